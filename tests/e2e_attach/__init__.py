"""Test tier `e2e-attach`: somebody's machine, attached over SSH through a jump, and left as it was."""
