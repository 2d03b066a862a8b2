"""Stand-ins for the programs `vagrant`, `virsh` and `VBoxManage`, which keep what they know in files.

tests/e2e_vagrant tries the real ones, tests/integration/test_vagrant_words.py QEMU's words, and
tests/integration/test_vagrant.py VBoxManage's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_VAGRANT = """\
#!/bin/sh
echo "vagrant $*" >>{folder}/calls
place={root}/.vagrant/machines/vagrant/{provider}
case $1 in
--version) echo "Vagrant 2.3.4" ;;
status) printf '1,vagrant,provider-name,{provider}\\n1,vagrant,state,%s\\n' "$(cat {folder}/state)" ;;
ssh-config) cat {folder}/ssh-config ;;
up) mkdir -p "$place"; echo id >"$place/id"; echo running >{folder}/state ;;
halt) [ ! -e {folder}/deaf ] || [ "$3" = --force ] || sleep 30; echo shut off >{folder}/state ;;
suspend) echo shut off >{folder}/state; touch {folder}/saved ;;
resume) echo running >{folder}/state; rm -f {folder}/saved ;;
destroy) echo none >{folder}/state; rm -rf "$place" ;;
esac
"""

_VIRSH = """\
#!{python}
import json, re, sys
from pathlib import Path
folder = Path({folder!r})
state = (folder / "state").read_text().strip()
verb = sys.argv[3]
if verb == "version":
    sys.exit(print("Running against daemon: 9.0.0"))
if state == "none" or sys.argv[2] != (folder / "connection").read_text():
    sys.exit("error: failed to get domain 'id'")
if verb == "dominfo":
    print("State:", state)
    print("Managed save:", "yes" if (folder / "saved").exists() else "no")
if verb == "qemu-monitor-command":
    asked = json.loads(sys.argv[5])
    line = asked.get("arguments", {{}}).get("command-line", "")
    known, network, said = folder / "forwards", (folder / "network").read_text(), ""
    if found := re.search(r"hostfwd_add (\\S+) (.*:(\\d+)-:(\\d+))", line):
        if found[1] != network:
            said = "unrecognized netdev id '%s'\\r\\n" % found[1]
        elif (folder / "taken").exists():
            said = "Could not set up host forwarding rule '%s'\\r\\n" % found[2]
        else:
            with known.open("a") as stream:
                print(*found.groups()[2:], file=stream)
    rows = [tuple(row.split()) for row in known.read_text().splitlines()] if network else []
    text = "Hub -1 (%s):\\r\\n" % network if network else ""
    text += "".join(" TCP[HOST_FORWARD] 7 127.0.0.1 %s 10.0.2.15 %s 0 0\\r\\n" % row for row in rows)
    answers = json.loads((folder / "answers").read_text())
    answers["human-monitor-command"] = text if "usernet" in line else said
    command = asked["execute"]
    answer = {{"return": answers[command]}} if command in answers else {{"error": {{"desc": "no"}}}}
    print(json.dumps(answer))
"""

_VBOXMANAGE = """\
#!/bin/sh
state=$(cat {folder}/state)
if [ "$state" = none ]; then
    echo "VBoxManage: error: Could not find a registered machine named '$2'" >&2
    echo "VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap" >&2
    exit 1
fi
case $1 in
showvminfo) cat {folder}/showvminfo; echo "VMState=\\"$state\\"" ;;
controlvm) echo "Forwarding(9)=\\"$4\\"" >>{folder}/showvminfo ;;
esac
"""

VMINFO = """\
memory=3072
cpus=2
nested-hw-virt="on"
paravirtprovider="default"
effparavirtprovider="kvm"
nic1="nat"
"""

ANSWERS = {
    "query-cpus-fast": [{"qom-path": "/cpu"}, {"qom-path": "/cpu"}],
    "query-memory-size-summary": {"base-memory": 3 << 30},
    "query-kvm": {"enabled": False},
    "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 0}},
    "query-uuid": {"UUID": "id"},
    "qom-get": True,
}
"""Of a machine with two CPUs and 3 GiB."""


class World:
    """`root` is the folder of a Vagrantfile with one machine, `vagrant`, by `provider`.

    In `folder`: `connection` is libvirt's where the machine is, `network` the id of QEMU's user network
    (empty: it has none), `showvminfo` what VBoxManage says of it; while `taken` is there QEMU can bind no
    port.
    """

    def __init__(self, folder: Path, provider: str = "libvirt") -> None:
        self.folder, self.root, self.bin = folder, folder / "project", folder / "bin"
        self.state = folder / "state"
        for made in (self.root, self.bin):
            made.mkdir()
        self.state.write_text("none")
        for name in ("calls", "ssh-config"):
            (folder / name).write_text("")
        (folder / "forwards").write_text("10022 22\n")
        (folder / "connection").write_text("qemu:///session")
        (folder / "network").write_text("net0")
        (folder / "answers").write_text(json.dumps(ANSWERS))
        (folder / "showvminfo").write_text(VMINFO)
        words = {"folder": folder, "root": self.root, "python": sys.executable, "provider": provider}
        for name, script in (("vagrant", _VAGRANT), ("virsh", _VIRSH), ("VBoxManage", _VBOXMANAGE)):
            program = self.bin / name
            program.write_text(script.format(**{key: str(value) for key, value in words.items()}))
            program.chmod(0o755)

    def asked(self) -> list[str]:
        """The words Vagrant was called with."""
        calls = (self.folder / "calls").read_text().splitlines()
        return [line.removeprefix("vagrant ") for line in calls]

    def run(self, ssh_port: int = 22222) -> None:
        """Have the machine run, as after `vagrant up`, its SSH server at that port of the loopback."""
        subprocess.run([self.bin / "vagrant", "up"], check=True)
        (self.folder / "calls").write_text("")
        (self.folder / "ssh-config").write_text(
            f"Host vagrant\n  HostName 127.0.0.1\n  User vagrant\n  Port {ssh_port}\n  IdentityFile /key\n"
        )
        (self.folder / "forwards").write_text(f"{ssh_port} 22\n")

    def say(self, name: str, old: str, new: str) -> None:
        """Change what one of the stand-ins' files says."""
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
