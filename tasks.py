"""The tasks of lab: names, flags and exit codes (docs/tasks.md). The work is in lab/commands/."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from invoke import Collection, task

if TYPE_CHECKING:
    from lab.commands.session import Reply, Session

NAME = "default"
MAIN = "main"


def _perform(
    module: str, function: str, *, as_json: bool = False, flags: dict[str, Any] | None = None, **args: Any
) -> NoReturn:
    """Run lab.commands.<module>.<function>. Imports late, so that `invoke --list` stays quick."""
    from importlib import import_module

    from lab.cli.perform import perform

    def command(session: Session) -> Reply:
        return getattr(import_module(f"lab.commands.{module}"), function)(session, **args)  # type: ignore[no-any-return]

    perform(command, as_json=as_json, flags=flags)


def _after_dashes() -> list[str]:
    """The words after `--`, unsplit and unquoted as the shell gave them."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


# --- lab ---------------------------------------------------------------------------------------


@task(
    help={
        "name": "the lab's name",
        "engine": "auto, virtualbox or qemu",
        "emulator": "auto, canary, docker-android or none",
        "image": "auto, ubuntu-24.04 or debian-13",
        "fresh": "destroy the lab of that name first",
        "json": "print the result as JSON (schema lab.up/1)",
    }
)
def up(_c, name=NAME, engine="", emulator="", image="", fresh=False, json=False):
    """Create the lab VM, install Docker in it, start the emulator container, climb the ladder."""
    flags = {"engine": engine, "emulator.kind": emulator, "image": image}
    _perform("up", "up", as_json=json, flags=flags, name=name, fresh=fresh)


@task(help={"deep": "log in and ask Docker about the container", "json": "schema lab.status/1"})
def status(_c, name=NAME, deep=False, json=False):
    """Show one lab: state, ports, who holds it."""
    _perform("inspect", "status", as_json=json, name=name, deep=deep)


@task(name="list", help={"json": "schema lab.list/1"})
def list_(_c, json=False):
    """List all labs."""
    _perform("inspect", "list_labs", as_json=json)


@task(
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "compare": "also boot another L2 with KVM and one without, and report the ratio",
        "json": "schema lab.validation/1",
    }
)
def validate(_c, name=NAME, claim="", compare=False, json=False):
    """Climb the ladder on a running lab and judge the claims."""
    _perform("validate", "validate", as_json=json, name=name, claim=claim, compare=compare)


@task(
    help={
        "runs": "boots of L2 by each way to run it",
        "seed": "repeats the order of an earlier run; 0: a new one",
        "json": "schema lab.compare/1",
    }
)
def compare(_c, name=NAME, runs=3, seed=0, json=False):
    """Time boots of L2 with nested KVM and without any acceleration, and show the ratio."""
    _perform("compare", "compare", as_json=json, name=name, runs=runs, seed=seed)


@task
def ssh(_c, name=NAME):
    """Open a shell in the lab VM."""
    _perform("inside", "ssh", name=name)


@task(name="exec", help={"json": "schema lab.exec/1"})
def exec_(_c, name=NAME, json=False):
    """Run a command in the lab VM: invoke lab.exec -- uname -a"""
    _perform("inside", "execute", as_json=json, name=name, argv=_after_dashes())


@task(positional=["source", "target"])
def copy(_c, source, target, name=NAME):
    """Copy a file into or out of the lab VM: invoke lab.copy notes.txt lab:/tmp/"""
    _perform("inside", "copy", name=name, source=source, target=target)


@task(
    help={
        "follow": "go on as the file grows",
        "source": "console (L1's serial console), engine, container or l2",
    }
)
def logs(_c, name=NAME, follow=False, source="console"):
    """Print a log of the lab."""
    _perform("inside", "logs", name=name, follow=follow, source=source)


@task(help={"json": "schema lab.action/1"})
def halt(_c, name=NAME, json=False):
    """Power the VM off: gracefully within the deadline, else hard."""
    _perform("lifecycle", "halt", as_json=json, name=name)


@task(help={"json": "schema lab.action/1"})
def suspend(_c, name=NAME, json=False):
    """Save the running VM's memory on disk and end its process."""
    _perform("lifecycle", "suspend", as_json=json, name=name)


@task(help={"json": "schema lab.action/1"})
def resume(_c, name=NAME, json=False):
    """Bring a suspended lab back to where it was, ADB included."""
    _perform("lifecycle", "resume", as_json=json, name=name)


@task(positional=["snapshot"], help={"json": "schema lab.action/1"})
def snapshot(_c, snapshot, name=NAME, json=False):
    """Take a snapshot: memory too when the VM runs."""
    _perform("lifecycle", "snapshot", as_json=json, name=name, snapshot=snapshot)


@task(positional=["snapshot"], help={"json": "schema lab.action/1"})
def restore(_c, snapshot, name=NAME, json=False):
    """Go back to a snapshot."""
    _perform("lifecycle", "restore", as_json=json, name=name, snapshot=snapshot)


@task(help={"json": "schema lab.snapshots/1"})
def snapshots(_c, name=NAME, json=False):
    """List a lab's snapshots."""
    _perform("lifecycle", "snapshots", as_json=json, name=name)


@task(help={"purge": "remove its evidence too", "json": "schema lab.action/1"})
def destroy(_c, name=NAME, purge=False, json=False):
    """Remove all that lab made for this lab, half-made or whole. Evidence is kept."""
    _perform("lifecycle", "destroy", as_json=json, name=name, purge=purge)


@task(help={"deep": "rehash cached images and probe KVM anew", "json": "schema lab.doctor/1"})
def doctor(_c, deep=False, json=False):
    """Show what this host can do, and what is missing."""
    _perform("doctor", "doctor", as_json=json, deep=deep)


@task(
    optional=["vagrant"],
    help={
        "vagrant": "the machine's name in its Vagrantfile (vagrant when left out)",
        "name": "the lab's name (the machine's when left out)",
        "folder": "where the Vagrantfile is (this project's when left out)",
        "plan": "tell the Vagrantfile how the machine is to be, for this provider (schema lab.vagrant/1)",
        "prepare": "make what the machine needs before it is made, for this provider (schema lab.vagrant/1)",
        "json": "schema lab.action/1",
    },
)
def attach(_c, vagrant="", name="", folder="", plan="", prepare="", json=False):
    """Make a running machine of Vagrant's a lab."""
    machine = vagrant if isinstance(vagrant, str) else ""
    if plan or prepare:
        step = "prepare" if prepare else "describe"
        _perform("vagrantfile", step, as_json=json, machine=machine, provider=prepare or plan)
    _perform("attach", "attach", as_json=json, machine=machine, name=name, folder=folder)


@task(help={"json": "schema lab.config/1"})
def config(_c, json=False):
    """Print each effective setting with where it came from."""
    _perform("inspect", "config", as_json=json)


@task(help={"collect": "collect a bundle from the lab now", "json": "schema lab.evidence/1"})
def evidence(_c, name=NAME, collect=False, json=False):
    """List a lab's evidence, newest last."""
    _perform("evidence", "evidence", as_json=json, name=name, collect_now=collect)


@task(
    help={
        "run": "a run by its folder's name (the newest with a verdict when left out)",
        "runs": "report that many runs of its cell together, the newest last",
        "open": "open the page in a browser",
        "json": "schema lab.report-files/1",
    }
)
def report(_c, name=NAME, run="", runs=1, open=False, json=False):
    """Write the reports of a run (HTML, JSON, JUnit XML, Markdown) beside its evidence."""
    _perform("report", "report", as_json=json, name=name, run=run, runs=runs, open_it=open)


@task(
    name="open",
    help={
        "emulator": "which one",
        "print": "print the address; on a terminal with the password",
        "json": "schema lab.open/1",
    },
)
def open_(_c, name=NAME, emulator=MAIN, print=False, json=False):
    """Show the emulator's screen in the browser."""
    _perform("open", "open_", as_json=json, name=name, emulator=emulator, only_print=print)


# --- the emulators of a lab ----------------------------------------------------------------------


@task(
    name="up",
    positional=["emulator"],
    help={
        "emulator": "which one: main, or a name of its own for one beside it",
        "kind": "canary or docker-android; left out: as the main one",
        "json": "schema emulator.up/1",
    },
)
def emulator_up(_c, emulator=MAIN, name=NAME, kind="", json=False):
    """Start an emulator in the running VM, and wait until it is usable."""
    _perform("emulator", "up", as_json=json, name=name, emulator=emulator, kind=kind)


@task(name="restart", positional=["emulator"], help={"json": "schema emulator.up/1"})
def emulator_restart(_c, emulator=MAIN, name=NAME, json=False):
    """End an emulator, launch it anew, and wait until it is usable."""
    _perform("emulator", "restart", as_json=json, name=name, emulator=emulator)


@task(name="down", positional=["emulator"], help={"json": "schema emulator.action/1"})
def emulator_down(_c, emulator=MAIN, name=NAME, json=False):
    """End an emulator; one beside the main one is forgotten, its ports with it."""
    _perform("emulator", "down", as_json=json, name=name, emulator=emulator)


@task(
    name="status",
    help={"emulator": "only this one; left out: all", "json": "schema emulator.status/1"},
)
def emulator_status(_c, name=NAME, emulator="", json=False):
    """Look at every emulator: container, checks, timeline, what was recognised."""
    _perform("emulator", "status", as_json=json, name=name, emulator=emulator)


@task(name="list", help={"json": "schema emulator.list/1"})
def emulator_list(_c, name=NAME, json=False):
    """List a lab's emulators and their ports."""
    _perform("emulator", "list_emulators", as_json=json, name=name)


@task(name="logs", help={"follow": "go on as they grow", "json": "schema emulator.logs/1"})
def emulator_logs(_c, name=NAME, emulator=MAIN, follow=False, json=False):
    """Print an emulator's logs."""
    _perform("device", "logs", as_json=json, name=name, emulator=emulator, follow=follow, capture=json)


@task(name="screenshot", positional=["file"], help={"json": "schema emulator.action/1"})
def emulator_screenshot(_c, file, name=NAME, emulator=MAIN, json=False):
    """Write Android's screen into a PNG file."""
    _perform("device", "screenshot", as_json=json, name=name, emulator=emulator, file=file)


@task(name="install", positional=["apk"], help={"json": "schema emulator.action/1"})
def emulator_install(_c, apk, name=NAME, emulator=MAIN, json=False):
    """Install an app."""
    _perform("device", "install", as_json=json, name=name, emulator=emulator, apk=apk)


@task(name="shell", help={"json": "with a command: its output, schema lab.exec/1"})
def emulator_shell(_c, name=NAME, emulator=MAIN, json=False):
    """Run a command by adb shell, or open a shell: invoke emulator.shell -- getprop"""
    argv = _after_dashes()
    _perform("device", "shell", as_json=json, name=name, emulator=emulator, argv=argv, capture=json)


# --- images ------------------------------------------------------------------------------------


@task(name="list", help={"json": "schema image.list/1"})
def image_list(_c, json=False):
    """List the cached images."""
    _perform("image", "list_images", as_json=json)


@task(
    positional=["image"],
    help={
        "image": "ubuntu-24.04 or docker-android",
        "update": "docker-android: take what the tag stands for now, in the place of what is pinned",
        "json": "schema image.action/1",
    },
)
def fetch(_c, image="ubuntu-24.04", update=False, json=False):
    """Download and verify a published image."""
    _perform("image", "fetch", as_json=json, image=image, update=update)


@task(
    positional=["image"],
    help={"image": "debian-13 or canary; both when left out", "json": "schema image.action/1"},
)
def build(_c, image="", json=False):
    """Build the local images, if their recipe or package versions changed."""
    _perform("image", "build", as_json=json, image=image)


@task(
    help={"provider": "libvirt or virtualbox: which of Vagrant's it is for", "json": "schema image.action/1"}
)
def box(_c, provider="libvirt", json=False):
    """Make a Vagrant box of the image that a lab stands on."""
    _perform("box", "box", as_json=json, provider=provider)


@task(help={"json": "schema image.action/1"})
def verify(_c, json=False):
    """Rehash every cached image."""
    _perform("image", "verify", as_json=json)


@task(help={"json": "schema image.action/1"})
def prune(_c, json=False):
    """Remove cached images that no lab uses."""
    _perform("image", "prune", as_json=json)


# --- the theory --------------------------------------------------------------------------------


@task(
    help={
        "host": "another host than this one, such as macos-intel:13, macos-m3:15 or linux-amd,vm",
        "engine": "one engine, with a version if you like, such as virtualbox:7.1",
        "json": "schema theory.explain/1",
    }
)
def explain(_c, host="", engine="", json=False):
    """Tell what lab expects of this host and why, and what would work here; builds nothing."""
    _perform("theory", "explain", as_json=json, host=host, engine=engine)


@task(help={"json": "schema theory.matrix/1"})
def matrix(_c, json=False):
    """Show all that is known of hosts and engines, and what was observed."""
    _perform("theory", "matrix", as_json=json)


@task(
    help={
        "runs": "fresh VMs for each of the six cells",
        "engine": "auto, virtualbox or qemu",
        "seed": "repeats the order of an earlier run; 0: a new one",
        "json": "schema theory.experiment/1",
    }
)
def experiment(_c, runs=1, engine="", seed=0, json=False):
    """Try paravirtualization by nesting, a fresh VM a cell: which makes /dev/kvm work in it?"""
    flags = {"engine": engine}
    _perform("experiment", "experiment", as_json=json, flags=flags, runs=runs, seed=seed)


# --- nightly -----------------------------------------------------------------------------------


@task(
    name="run",
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "runs": "how often to look at the VM (nightly.runs)",
        "json": "schema nightly.run/1",
    },
)
def nightly_run(_c, claim="", runs="", json=False):
    """One night, now: a fresh VM, several looks, a comparison, a report; recorded whatever happens."""
    _perform("nightly", "run", as_json=json, flags={"nightly.runs": runs}, claim=claim)


@task(name="history", help={"limit": "how many nights, 0 for all", "json": "schema nightly.history/1"})
def nightly_history(_c, limit=14, json=False):
    """The nights that were, newest first."""
    _perform("nightly", "history", as_json=json, limit=limit)


@task(
    name="install",
    help={
        "at": "HH:MM, local time",
        "print": "show the files, write nothing",
        "json": "schema nightly.schedule/1",
    },
)
def nightly_install(_c, at="03:30", print=False, json=False):
    """Have a night run every day: launchd, systemd or the Task Scheduler."""
    _perform("nightly", "install", as_json=json, at=at, print_only=print)


@task(name="uninstall", help={"json": "schema nightly.schedule/1"})
def nightly_uninstall(_c, json=False):
    """Take the night out of the scheduler again."""
    _perform("nightly", "uninstall", as_json=json)


@task(name="status", help={"json": "schema nightly.schedule/1"})
def nightly_status(_c, json=False):
    """Whether a night is installed or runs, and how the last one ended."""
    _perform("nightly", "status", as_json=json)


# --- the project itself ------------------------------------------------------------------------


@task(
    name="test",
    help={
        "tier": "unit, integration, e2e; all: those; e2e-android, e2e-nightly, e2e-virtualbox, e2e-vagrant",
        "json": "schema test/1",
    },
)
def test_(_c, tier="all", json=False):
    """Run the tests, with the linters."""
    _perform("project", "test", as_json=json, tier=tier)


@task
def lint(_c):
    """ruff, mypy --strict and import-linter."""
    _perform("project", "lint")


@task(
    help={
        "runs": "how often each figure is taken",
        "cold": "also from a fresh clone with nothing cached, once",
        "json": "schema bench/1",
    }
)
def bench(_c, runs=3, cold=False, json=False):
    """Measure what docs/benchmarks.md promises."""
    _perform("bench", "bench", as_json=json, runs=runs, cold=cold)


_LAB = (
    up, status, list_, validate, compare, ssh, exec_, copy, logs, halt, suspend, resume,
    snapshot, restore, snapshots, destroy, attach, doctor, config, evidence, report, open_,
)  # fmt: skip
_EMULATOR = (
    emulator_up, emulator_restart, emulator_down, emulator_status, emulator_list, emulator_logs,
    emulator_screenshot, emulator_install, emulator_shell,
)  # fmt: skip
_THEORY = (explain, matrix, experiment)
_IMAGE = (image_list, fetch, build, box, verify, prune)
_NIGHTLY = (nightly_run, nightly_history, nightly_install, nightly_uninstall, nightly_status)

namespace = Collection(test_, lint, bench)
namespace.add_collection(Collection("lab", *_LAB))
namespace.add_collection(Collection("emulator", *_EMULATOR))
namespace.add_collection(Collection("image", *_IMAGE))
namespace.add_collection(Collection("theory", *_THEORY))
namespace.add_collection(Collection("nightly", *_NIGHTLY))
