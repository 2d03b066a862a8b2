"""Measured figures: what may be said of a few of them, and what they look like."""
