"""Stand-ins for the programs `vagrant` and `virsh`, which keep what they know in files.

tests/e2e_vagrant tries the real ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_VAGRANT = """\
#!/bin/sh
echo "vagrant $*" >>{folder}/calls
place={root}/.vagrant/machines/vagrant/libvirt
case $1 in
--version) echo "Vagrant 2.3.4" ;;
status) printf '1,vagrant,provider-name,libvirt\\n1,vagrant,state,%s\\n' "$(cat {folder}/state)" ;;
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
if state == "none":
    sys.exit("error: failed to get domain 'id'")
if verb == "dominfo":
    print("State:", state)
    print("Managed save:", "yes" if (folder / "saved").exists() else "no")
if verb == "qemu-monitor-command":
    asked = json.loads(sys.argv[5])
    line = asked.get("arguments", {{}}).get("command-line", "")
    known = folder / "forwards"
    if found := re.search(r"hostfwd_add .*:(\\d+)-:(\\d+)", line):
        with known.open("a") as stream:
            print(*found.groups(), file=stream)
    text = "".join(
        " TCP[HOST_FORWARD] 7 127.0.0.1 %s 10.0.2.15 %s 0 0\\r\\n" % tuple(row.split())
        for row in known.read_text().splitlines()
    )
    answers = json.loads((folder / "answers").read_text())
    answers["human-monitor-command"] = text if "usernet" in line else ""
    command = asked["execute"]
    answer = {{"return": answers[command]}} if command in answers else {{"error": {{"desc": "no"}}}}
    print(json.dumps(answer))
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
    """`root` is the folder of a Vagrantfile with one machine, `vagrant`, by libvirt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.bin = folder, folder / "project", folder / "bin"
        self.state = folder / "state"
        for made in (self.root, self.bin):
            made.mkdir()
        self.state.write_text("none")
        for name in ("calls", "ssh-config"):
            (folder / name).write_text("")
        (folder / "forwards").write_text("10022 22\n")
        (folder / "answers").write_text(json.dumps(ANSWERS))
        for name, script in (("vagrant", _VAGRANT), ("virsh", _VIRSH)):
            program = self.bin / name
            program.write_text(script.format(folder=str(folder), root=str(self.root), python=sys.executable))
            program.chmod(0o755)

    def asked(self) -> list[str]:
        """The words Vagrant was called with."""
        calls = (self.folder / "calls").read_text().splitlines()
        return [line.removeprefix("vagrant ") for line in calls]
