"""The tasks `lab.*`."""
