"""What a test needs of the system it runs on: where that is not so it is left out, with the reason."""

from __future__ import annotations

import sys

import pytest

from lab.host.packages import find_program

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def needs(*programs: str) -> pytest.MarkDecorator:
    """The test runs only where all these programs are."""
    absent = [name for name in programs if not find_program(name)]
    return pytest.mark.skipif(bool(absent), reason=f"needs {' and '.join(absent)}")
