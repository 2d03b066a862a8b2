"""The tasks `image.*`."""
