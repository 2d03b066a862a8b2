"""The tasks `fleet.*`."""
