"""The Darwin mask: lab's own commands on a Mac that is recorded, not there (README.md)."""

from tests.integration.darwin.mac import HOME, MACS, Mac, Masked, disguise

__all__ = ["HOME", "MACS", "Mac", "Masked", "disguise"]
