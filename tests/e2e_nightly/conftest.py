"""The lab of tier e2e: a state folder of its own, run by the tasks a user runs."""

from tests.e2e.conftest import lab

__all__ = ["lab"]
