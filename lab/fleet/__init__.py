"""A team's machines: one night of every cell, on whichever host fits it, in one matrix (docs/fleet.md)."""
