"""What a docker-android container leaves for the evidence, in a few round trips."""

from __future__ import annotations

import json

from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.emulators.container import Container
from lab.emulators.docker_android import looking
from lab.emulators.docker_android.contract import SERIAL, Contract
from lab.guest.ssh import Guest

_LIMIT = 512 << 10
_LOGCAT_LINES = 4000
_SECONDS = 90.0
_MARK = "lab-next-file"

_ASK = f"""
adb -s {SERIAL} logcat -d -t {_LOGCAT_LINES} 2>&1
echo {_MARK}
adb -s {SERIAL} shell 'dumpsys window 2>&1 | head -c 60000; getprop' 2>&1
"""
# Of a container that has ended, whose files nobody but Docker can reach.
_COPY = """
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
docker cp "$1:$2" - | tar -x -C "$folder" --no-same-owner
find "$folder" -type f -name '*.log' -exec tail -v -c 262144 {} +
"""


def gather(guest: Guest, container: Container, promised: Contract) -> dict[str, str]:
    """File name to text: the container's log and description, all logs in it, Android's own.

    Never raises for a container that is not well: then there is less.
    """
    outputs = container.evidence(guest)
    files = [promised.log("*.log")]
    command = ["sh", "-c", _ASK]
    look = looking.ask(guest, container.name, promised, command=command, files=files, limit=_LIMIT)
    for path, text in look.files.items():
        if path != promised.status_file:
            outputs[path.rpartition("/")[2]] = text
    logcat, _, windows = look.said.partition(f"{_MARK}\n")
    outputs |= {name: text for name, text in {"logcat.txt": logcat, "dumpsys.txt": windows}.items() if text}
    outputs["android-container.json"] = json.dumps(
        {
            "status": look.files.get(promised.status_file, "").strip(),
            "processes": [process.model_dump() for process in look.processes],
            "stages": look.stages,
            "memory_kills": look.memory_kills,
            "kernel": look.kernel,
        },
        indent=2,
    )
    if look.container is not None and not look.files:
        outputs["container-files.log"] = _left(guest, container, promised)
    return outputs


def _left(guest: Guest, container: Container, promised: Contract) -> str:
    argv = ["sh", "-c", _COPY, "copy", container.name, promised.logs]
    try:
        done = guest.run(argv, sudo=True, check=False, deadline=Deadline.after(_SECONDS))
    except LabError as error:
        return f"{error.what}\n"
    return done.out + done.err
