"""Does KVM work inside a container? The same tiny guest as in L1, run under the container's rules."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import BlockedError
from lab.formats import oci
from lab.formats.cpio import Entry
from lab.guest.ssh import Guest
from lab.probes.kvm import SECONDS_PER_MODE, Probe, parse_probe, script

_NOBODY = "65534:65534"
# L1's own Python, mounted read-only, serves the probe: the image itself holds only these links.
_LINKS = {name: Entry.link(f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")}
_FOLDERS = {name: Entry.folder() for name in ("usr", "proc", "dev", "etc", "tmp")}


def probe(guest: Guest, deadline: Deadline) -> Probe:
    """Run the functional probe in a container with `--device /dev/kvm`, as nobody in group kvm.

    Raises BlockedError when L1 has no /dev/kvm, CommandError when Docker does not run the container.
    """
    owner = guest.run(["stat", "--format", "%g", "/dev/kvm"], check=False, deadline=deadline)
    if owner.status != 0:
        raise BlockedError("the VM has no /dev/kvm to hand to a container", hint="see the rung guest.kvm")
    reference = f"lab-kvm-probe:{secrets.token_hex(4)}"
    words = ["docker", "run", "--rm", "--interactive", "--network", "none", "--user", _NOBODY]
    words += ["--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges"]
    words += ["--device", "/dev/kvm", "--group-add", owner.out.strip(), "--volume", "/usr:/usr:ro"]
    words += [reference, "/usr/bin/python3", "-", "--seconds", str(SECONDS_PER_MODE)]
    try:
        guest.run(["docker", "load", "--quiet"], sudo=True, stdin=_image(reference), deadline=deadline)
        done = guest.run(words, sudo=True, stdin=script("kvm_probe.py"), deadline=deadline)
        return parse_probe(done.out)
    finally:
        guest.run(["docker", "image", "rm", "--force", reference], sudo=True, check=False)


def _image(reference: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lab-probe-") as folder:
        target = Path(folder) / "image.tar"
        oci.write(target, reference=reference, entries=_LINKS | _FOLDERS, config={"Cmd": ["/bin/true"]})
        return target.read_bytes()
