"""The tasks of lab: names, flags and exit codes (docs/tasks.md). The work is in lab/commands/.

A function here is a task's description: its arguments are the flags, its docstring is the help.
"""

from __future__ import annotations

from invoke import Collection, task

from lab.cli.task import does, run

NAME = "default"
MAIN = "main"


# --- lab ---------------------------------------------------------------------------------------


@does(
    "up.up",
    "lab.up/1",
    help={
        "name": "the lab's name",
        "engine": "auto, virtualbox or qemu",
        "emulator": "auto, canary, docker-android or none",
        "image": "auto, ubuntu-24.04 or debian-13",
        "fresh": "destroy the lab of that name first",
    },
    settings={"engine": "engine", "emulator": "emulator.kind", "image": "image"},
)
def up(name=NAME, engine="", emulator="", image="", fresh=False):
    """Create the lab VM, install Docker in it, start the emulator container, climb the ladder."""


@does("inspect.status", "lab.status/1", help={"deep": "log in and ask Docker about the container"})
def status(name=NAME, deep=False):
    """Show one lab: state, ports, who holds it."""


@does("inspect.list_labs", "lab.list/1", name="list")
def list_():
    """List all labs."""


@does(
    "validate.validate",
    "lab.validation/1",
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "compare": "also boot another L2 with KVM and one without, and report the ratio",
    },
)
def validate(name=NAME, claim="", compare=False):
    """Climb the ladder on a running lab and judge the claims."""


@does(
    "compare.compare",
    "lab.compare/1",
    help={
        "runs": "boots of L2 by each way to run it",
        "seed": "repeats the order of an earlier run; 0: a new one",
    },
)
def compare(name=NAME, runs=3, seed=0):
    """Time boots of L2 with nested KVM and without any acceleration, and show the ratio."""


@does("inside.ssh")
def ssh(name=NAME):
    """Open a shell in the lab VM."""


@does("inside.execute", "lab.exec/1", name="exec", words=True, names={"json": "capture"})
def exec_(name=NAME):
    """Run a command in the lab VM: invoke lab.exec -- uname -a"""


@does("inside.copy", positional=["source", "target"])
def copy(source, target, name=NAME):
    """Copy a file into or out of the lab VM: invoke lab.copy notes.txt lab:/tmp/"""


@does(
    "inside.logs",
    help={
        "follow": "go on as the file grows",
        "source": "console (L1's serial console), engine, container or l2",
    },
)
def logs(name=NAME, follow=False, source="console"):
    """Print a log of the lab."""


@does("lifecycle.halt", "lab.action/1")
def halt(name=NAME):
    """Power the VM off: gracefully within the deadline, else hard."""


@does("lifecycle.suspend", "lab.action/1")
def suspend(name=NAME):
    """Save the running VM's memory on disk and end its process."""


@does("lifecycle.resume", "lab.action/1")
def resume(name=NAME):
    """Bring a suspended lab back to where it was, ADB included."""


@does("lifecycle.snapshot", "lab.action/1", positional=["snapshot"])
def snapshot(snapshot, name=NAME):
    """Take a snapshot: memory too when the VM runs."""


@does("lifecycle.restore", "lab.action/1", positional=["snapshot"])
def restore(snapshot, name=NAME):
    """Go back to a snapshot."""


@does("lifecycle.snapshots", "lab.snapshots/1")
def snapshots(name=NAME):
    """List a lab's snapshots."""


@does("lifecycle.destroy", "lab.action/1", help={"purge": "remove its evidence too"})
def destroy(name=NAME, purge=False):
    """Remove all that lab made for this lab, half-made or whole. Evidence is kept."""


@does("doctor.doctor", "lab.doctor/1", help={"deep": "rehash cached images and probe KVM anew"})
def doctor(deep=False):
    """Show what this host can do, and what is missing."""


@task(
    optional=["vagrant"],
    help={
        "vagrant": "the machine's name in its Vagrantfile (vagrant when left out)",
        "name": "the lab's name (the machine's when left out)",
        "folder": "where the Vagrantfile is (this project's when left out)",
        "plan": "tell the Vagrantfile how the machine is to be, for this provider (schema lab.vagrant/1)",
        "prepare": "make what the machine needs before it is made, for this provider (schema lab.vagrant/1)",
        "json": "print the result as JSON, schema lab.action/1",
    },
)
def attach(_c, vagrant="", name="", folder="", plan="", prepare="", json=False):
    """Make a running machine of Vagrant's a lab."""
    machine = vagrant if isinstance(vagrant, str) else ""
    if plan or prepare:
        step = "vagrantfile.prepare" if prepare else "vagrantfile.describe"
        run(step, as_json=json, machine=machine, provider=prepare or plan)
    run("attach.attach", as_json=json, machine=machine, name=name, folder=folder)


@does("inspect.config", "lab.config/1")
def config():
    """Print each effective setting with where it came from."""


@does(
    "evidence.evidence",
    "lab.evidence/1",
    help={"collect": "collect a bundle from the lab now"},
    names={"collect": "collect_now"},
)
def evidence(name=NAME, collect=False):
    """List a lab's evidence, newest last."""


@does(
    "report.report",
    "lab.report-files/1",
    help={
        "run": "a run by its folder's name (the newest with a verdict when left out)",
        "runs": "report that many runs of its cell together, the newest last",
        "open": "open the page in a browser",
    },
    names={"open": "open_it"},
)
def report(name=NAME, run="", runs=1, open=False):
    """Write the reports of a run (HTML, JSON, JUnit XML, Markdown) beside its evidence."""


@does(
    "open.open_",
    "lab.open/1",
    name="open",
    help={"emulator": "which one", "print": "print the address; on a terminal with the password"},
    names={"print": "only_print"},
)
def open_(name=NAME, emulator=MAIN, print=False):
    """Show the emulator's screen in the browser."""


# --- the emulators of a lab ----------------------------------------------------------------------


@does(
    "emulator.up",
    "emulator.up/1",
    name="up",
    positional=["emulator"],
    help={
        "emulator": "which one: main, or a name of its own for one beside it",
        "kind": "canary or docker-android; left out: as the main one",
    },
)
def emulator_up(emulator=MAIN, name=NAME, kind=""):
    """Start an emulator in the running VM, and wait until it is usable."""


@does("emulator.restart", "emulator.up/1", name="restart", positional=["emulator"])
def emulator_restart(emulator=MAIN, name=NAME):
    """End an emulator, launch it anew, and wait until it is usable."""


@does("emulator.down", "emulator.action/1", name="down", positional=["emulator"])
def emulator_down(emulator=MAIN, name=NAME):
    """End an emulator; one beside the main one is forgotten, its ports with it."""


@does(
    "emulator.status", "emulator.status/1", name="status", help={"emulator": "only this one; left out: all"}
)
def emulator_status(name=NAME, emulator=""):
    """Look at every emulator: container, checks, timeline, what was recognised."""


@does("emulator.list_emulators", "emulator.list/1", name="list")
def emulator_list(name=NAME):
    """List a lab's emulators and their ports."""


@does(
    "device.logs",
    "emulator.logs/1",
    name="logs",
    help={"follow": "go on as they grow"},
    names={"json": "capture"},
)
def emulator_logs(name=NAME, emulator=MAIN, follow=False):
    """Print an emulator's logs."""


@does("device.screenshot", "emulator.action/1", name="screenshot", positional=["file"])
def emulator_screenshot(file, name=NAME, emulator=MAIN):
    """Write Android's screen into a PNG file."""


@does("device.install", "emulator.action/1", name="install", positional=["apk"])
def emulator_install(apk, name=NAME, emulator=MAIN):
    """Install an app."""


@does(
    "device.shell",
    "lab.exec/1",
    name="shell",
    help={"json": "with a command: print its output as JSON, schema lab.exec/1"},
    names={"json": "capture"},
    words=True,
)
def emulator_shell(name=NAME, emulator=MAIN):
    """Run a command by adb shell, or open a shell: invoke emulator.shell -- getprop"""


# --- images ------------------------------------------------------------------------------------


@does("image.list_images", "image.list/1", name="list")
def image_list():
    """List the cached images."""


@does(
    "image.fetch",
    "image.action/1",
    positional=["image"],
    help={
        "image": "ubuntu-24.04 or docker-android",
        "update": "docker-android: take what the tag stands for now, in the place of what is pinned",
    },
)
def fetch(image="ubuntu-24.04", update=False):
    """Download and verify a published image."""


@does(
    "image.build",
    "image.action/1",
    positional=["image"],
    help={"image": "debian-13 (on Linux), canary; both when left out; rehearsal: for theory.rehearse"},
)
def build(image=""):
    """Build the local images, if their recipe or package versions changed."""


@does(
    "box.box",
    "image.action/1",
    help={"provider": "libvirt or virtualbox: which of Vagrant's it is for"},
)
def box(provider="libvirt"):
    """Make a Vagrant box of the image that a lab stands on."""


@does(
    "carry.export",
    "image.action/1",
    positional=["image", "file"],
    help={"image": "canary", "file": "the file to write"},
)
def export(image, file):
    """Write the cached canary into a file, for a machine that cannot build it."""


@does(
    "carry.import_",
    "image.action/1",
    name="import",
    positional=["file"],
    help={"file": "what image.export wrote"},
)
def import_(file):
    """Put an exported canary into the cache."""


@does("image.verify", "image.action/1")
def verify():
    """Rehash every cached image."""


@does("image.prune", "image.action/1")
def prune():
    """Remove cached images that no lab uses."""


# --- the theory --------------------------------------------------------------------------------


@does(
    "theory.explain",
    "theory.explain/1",
    help={
        "host": "another host than this one, such as macos-intel:13, macos-m3:15 or linux-amd,vm",
        "engine": "one engine, with a version if you like, such as virtualbox:7.1",
    },
)
def explain(host="", engine=""):
    """Tell what lab expects of this host and why, and what would work here; builds nothing."""


@does("theory.matrix", "theory.matrix/1")
def matrix():
    """Show all that is known of hosts and engines, and what was observed."""


@does(
    "experiment.experiment",
    "theory.experiment/1",
    help={
        "runs": "fresh VMs for each of the six cells",
        "engine": "auto, virtualbox or qemu",
        "seed": "repeats the order of an earlier run; 0: a new one",
    },
    settings={"engine": "engine"},
)
def experiment(runs=1, engine="", seed=0):
    """Try paravirtualization by nesting, a fresh VM a cell: which makes /dev/kvm work in it?"""


@does(
    "rehearse.rehearse",
    "theory.rehearse/1",
    help={
        "cpu": "the PC's processor: haswell, westmere and more with VT-x, or amd (docs/rehearsal.md)",
        "experiment": "theory.experiment there, instead of lab.up",
    },
)
def rehearse(cpu="haswell", experiment=False):
    """Run lab on VirtualBox in an emulated PC that has VT-x: on any Linux machine, without root."""


# --- nightly -----------------------------------------------------------------------------------


@does(
    "nightly.run",
    "nightly.run/1",
    name="run",
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "runs": "how often to look at the VM (nightly.runs)",
    },
    settings={"runs": "nightly.runs"},
)
def nightly_run(claim="", runs=""):
    """One night, now: a fresh VM, several looks, a comparison, a report; recorded whatever happens."""


@does("nightly.history", "nightly.history/1", name="history", help={"limit": "how many nights, 0 for all"})
def nightly_history(limit=14):
    """The nights that were, newest first."""


@does(
    "nightly.install",
    "nightly.schedule/1",
    name="install",
    help={"at": "HH:MM, local time", "print": "show the files, write nothing"},
    names={"print": "print_only"},
)
def nightly_install(at="03:30", print=False):
    """Have a night run every day: launchd, systemd or the Task Scheduler."""


@does("nightly.uninstall", "nightly.schedule/1", name="uninstall")
def nightly_uninstall():
    """Take the night out of the scheduler again."""


@does("nightly.status", "nightly.schedule/1", name="status")
def nightly_status():
    """Whether a night is installed or runs, and how the last one ended."""


# --- the project itself ------------------------------------------------------------------------


@does(
    "project.test",
    "test/1",
    name="test",
    help={
        "tier": "unit, integration, e2e; all: those; e2e-android, e2e-nightly, e2e-rehearsal, "
        "e2e-rehearsal-mac, e2e-virtualbox, e2e-vagrant, e2e-published"
    },
)
def test_(tier="all"):
    """Run the tests, with the linters."""


@does("project.lint")
def lint():
    """ruff, mypy --strict and import-linter."""


@does(
    "bench.bench",
    "bench/1",
    help={
        "runs": "how often each figure is taken",
        "cold": "also from a fresh clone with nothing cached, once",
    },
)
def bench(runs=3, cold=False):
    """Measure what docs/benchmarks.md promises."""


_LAB = (
    up, status, list_, validate, compare, ssh, exec_, copy, logs, halt, suspend, resume,
    snapshot, restore, snapshots, destroy, attach, doctor, config, evidence, report, open_,
)  # fmt: skip
_EMULATOR = (
    emulator_up, emulator_restart, emulator_down, emulator_status, emulator_list, emulator_logs,
    emulator_screenshot, emulator_install, emulator_shell,
)  # fmt: skip
_THEORY = (explain, matrix, experiment, rehearse)
_IMAGE = (image_list, fetch, build, box, export, import_, verify, prune)
_NIGHTLY = (nightly_run, nightly_history, nightly_install, nightly_uninstall, nightly_status)

namespace = Collection(test_, lint, bench)
namespace.add_collection(Collection("lab", *_LAB))
namespace.add_collection(Collection("emulator", *_EMULATOR))
namespace.add_collection(Collection("image", *_IMAGE))
namespace.add_collection(Collection("theory", *_THEORY))
namespace.add_collection(Collection("nightly", *_NIGHTLY))
