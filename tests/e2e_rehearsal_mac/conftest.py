"""As in the tier of the PC's own Linux."""

from tests.e2e_rehearsal.conftest import lines, pytest_terminal_summary

__all__ = ["lines", "pytest_terminal_summary"]
