"""Test tier `e2e-android`: every way docker-android fails, played by its double, each by its name."""
