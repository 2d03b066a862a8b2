"""The Linux that an emulated PC boots in the tests: Debian's kernel, KVM, and Python for lab's probes."""

from tests.integration.tinypc.build import TinyLinux, built

__all__ = ["TinyLinux", "built"]
