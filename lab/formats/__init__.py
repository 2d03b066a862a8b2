"""File formats lab writes or reads itself: byte for byte the same from the same input."""
