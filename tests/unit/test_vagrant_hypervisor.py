"""Why a machine of Vagrant's is paused: its hypervisor is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.engines.protocol import State
from lab.engines.vagrant.libvirt import VagrantLibvirt
from lab.engines.vagrant.vboxmanage import VagrantVirtualBox
from lab.engines.virtualbox.manage.command import Program


@pytest.mark.parametrize(
    ("status", "state"),
    [("io-error", State.DISK_FULL), ("paused", State.PAUSED), ("suspended", State.PAUSED)],
)
def test_libvirts_paused_is_asked_for_its_reason(status: str, state: State) -> None:
    def virsh(*words: str) -> str:
        if words[0] == "dominfo":
            return "State:          paused\n"
        assert words[0] == "qemu-monitor-command" and "query-status" in words[2]
        return json.dumps({"return": {"status": status}})

    assert VagrantLibvirt("u", virsh).state() is state


@pytest.mark.parametrize(
    ("log", "state"), [("00:01:02.3 VD#0: Host disk full\n", State.DISK_FULL), ("", State.PAUSED)]
)
def test_virtualboxs_paused_is_looked_up_in_its_log(tmp_path: Path, log: str, state: State) -> None:
    class Described(Program):
        def run(self, doing: str, *words: str | Path, deadline: Deadline) -> str:
            return f'VMState="paused"\nLogFldr="{tmp_path}"\n'

    (tmp_path / "VBox.log").write_text(log)
    assert VagrantVirtualBox("u", Described(Path("VBoxManage"))).state() is state
