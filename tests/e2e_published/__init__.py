"""Test tier `e2e-published`: an image as a distribution publishes it, from its server to a nested guest."""
