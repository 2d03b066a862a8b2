"""The ladder: rungs, the claims they decide, and the verdicts."""
