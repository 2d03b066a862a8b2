"""One machine for the whole tier."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e_vagrant import road as roads
from tests.e2e_vagrant.road import Road


@pytest.fixture(scope="session")
def road() -> Iterator[Road]:
    if missing := [tool for tool in ("vagrant", "virsh", "libvirtd") if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    # Built as whoever runs the tests: in the user's namespace there is no root to build with.
    subprocess.run([roads.INVOKE, "image.build"], cwd=roads.ROOT, check=True)
    with roads.opened() as made:
        yield made
