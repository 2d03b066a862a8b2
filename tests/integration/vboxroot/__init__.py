"""A real VirtualBox for the integration tests: in a throwaway Debian sid root (README.md)."""

from tests.integration.vboxroot.instance import Instance, mounted
from tests.integration.vboxroot.root import Root, built

__all__ = ["Instance", "Root", "built", "mounted"]
