"""`vagrant up` against `lab.up`, from nothing to a verdict: `.venv/bin/python -m benchmarks.vagrant [RUNS]`.

The same image, settings and acceleration on both roads, in turns, as the ordinary user of the tests
(tests/e2e_vagrant/road.py). Images and box are made, and the box is known to Vagrant, beforehand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from lab import __version__
from lab.dev.bench import measure
from lab.host import facts
from tests.e2e_vagrant import road as roads
from tests.e2e_vagrant.road import Answer, Road

_LAB = "direct"


def main(runs: int) -> dict[str, Any]:
    began, started = datetime.now(UTC), time.monotonic()
    subprocess.run([roads.INVOKE, "image.build"], cwd=roads.ROOT, check=True, stdout=sys.stderr)
    with roads.opened() as road:
        _add_box(road)
        vagrant, direct = [], []
        for number in range(runs):
            vagrant.append(_good(road.vagrant("up", "--provider", "libvirt")))
            _good(road.vagrant("destroy", "--force"))
            _good(road.lab("lab.destroy", "--purge", "--name", roads.NAME))
            direct.append(_good(road.lab("lab.up", "--engine", "qemu", "--name", _LAB)))
            _good(road.lab("lab.destroy", "--purge", "--name", _LAB))
            print(f"pair {number + 1}: {vagrant[-1]} s, {direct[-1]} s", file=sys.stderr)
    ratios = [round(one / other, 3) for one, other in zip(direct, vagrant, strict=True)]
    return {
        "schema": "bench/1",
        "host": facts.read().as_dict(),
        "lab_version": __version__,
        "started": began.isoformat(timespec="milliseconds"),
        "seconds": round(time.monotonic() - started, 3),
        "measures": [
            measure("vagrant up", "s", vagrant, None, "libvirt; the first one puts the disk into its pool"),
            measure("lab.up", "s", direct, None, "the embedded engine, after each vagrant up"),
            measure("lab.up against vagrant up", "ratio", ratios, 1.0, "pairs of runs, in order"),
        ],
    }


def _add_box(road: Road) -> None:
    made = road.lab("image.box", "--provider", "libvirt", "--json")
    _good(made)
    (row,) = made.document["results"]
    _good(road.vagrant("box", "add", "--name", row["name"], row["why"]))


def _good(answer: Answer) -> float:
    """Its seconds, when it ended well: a figure of anything else would be worth nothing."""
    if answer.status != 0:
        raise SystemExit(answer.said)
    return round(answer.seconds, 3)


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3), indent=2))
