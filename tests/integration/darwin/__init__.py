"""The Darwin mask: lab's own commands on a Mac that is recorded, not there (README.md)."""

from tests.integration.darwin.mac import CHECKOUT, HOME, MACS, Completed, Mac, Masked, disguise

__all__ = ["CHECKOUT", "HOME", "MACS", "Completed", "Mac", "Masked", "disguise"]
