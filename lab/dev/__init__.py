"""The tasks for the project itself: test, lint, bench."""
