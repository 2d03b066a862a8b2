"""Tier e2e-fleet: a fleet by its tasks, on the embedded engine."""
