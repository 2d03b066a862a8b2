"""A VirtualBox of any version for the engine's worker to talk to: `installed(version)`.

It is a stand-in for the COM objects below vboxapi. The glue, vboxapi itself, is the real one of that
version, pyvbox too, and the worker's code is unchanged. So what is tested is whether each call fits the
version; what a real VirtualBox does with it, tests with a real one show.
"""

import pytest

from tests.integration.vboxcom.glue import installed
from tests.integration.vboxcom.signatures import VERSIONS
from tests.integration.vboxcom.world import World

__all__ = ["VERSIONS", "World", "installed"]

pytest.register_assert_rewrite("tests.integration.vboxcom.scenarios")
