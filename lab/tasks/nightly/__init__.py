"""The tasks `nightly.*`."""
