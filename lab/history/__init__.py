"""The nights that were: what ran, what was found, what it took; in SQLite, kept by a rule."""
