"""The tasks `theory.*`."""
