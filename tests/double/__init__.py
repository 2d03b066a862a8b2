"""A container image that keeps docker-android's contract, traps included, with a real L2 (README.md)."""
