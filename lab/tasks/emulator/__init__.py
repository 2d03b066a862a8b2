"""The tasks `emulator.*`."""
