"""The tasks of lab: names, flags and exit codes (docs/tasks.md). The work is in lab/commands/."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from invoke import Collection, task

if TYPE_CHECKING:
    from lab.commands.session import Reply, Session

NAME = "default"


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
        "emulator": "auto, canary or none",
        "image": "auto, ubuntu-24.04 or debian-13",
        "fresh": "destroy the lab of that name first",
        "json": "print the result as JSON (schema lab.up/1)",
    }
)
def up(_c, name=NAME, engine="", emulator="", image="", fresh=False, json=False):
    """Create the lab VM, install Docker in it, start the emulator container, climb the ladder."""
    flags = {"engine": engine, "emulator": emulator, "image": image}
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


@task(help={"json": "schema lab.config/1"})
def config(_c, json=False):
    """Print each effective setting with where it came from."""
    _perform("inspect", "config", as_json=json)


@task(help={"collect": "collect a bundle from the lab now", "json": "schema lab.evidence/1"})
def evidence(_c, name=NAME, collect=False, json=False):
    """List a lab's evidence, newest last."""
    _perform("evidence", "evidence", as_json=json, name=name, collect_now=collect)


# --- images ------------------------------------------------------------------------------------


@task(name="list", help={"json": "schema image.list/1"})
def image_list(_c, json=False):
    """List the cached images."""
    _perform("image", "list_images", as_json=json)


@task(positional=["image"], help={"json": "schema image.action/1"})
def fetch(_c, image="ubuntu-24.04", json=False):
    """Download and verify a published image."""
    _perform("image", "fetch", as_json=json, image=image)


@task(
    positional=["image"],
    help={"image": "debian-13 or canary; both when left out", "json": "schema image.action/1"},
)
def build(_c, image="", json=False):
    """Build the local images, if their recipe or package versions changed."""
    _perform("image", "build", as_json=json, image=image)


@task(help={"json": "schema image.action/1"})
def verify(_c, json=False):
    """Rehash every cached image."""
    _perform("image", "verify", as_json=json)


@task(help={"json": "schema image.action/1"})
def prune(_c, json=False):
    """Remove cached images that no lab uses."""
    _perform("image", "prune", as_json=json)


# --- the project itself ------------------------------------------------------------------------


@task(
    name="test",
    help={"tier": "unit, integration, e2e, e2e-virtualbox, or all but the last", "json": "schema test/1"},
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
    up, status, list_, validate, ssh, exec_, copy, logs, halt, suspend, resume,
    snapshot, restore, snapshots, destroy, doctor, config, evidence,
)  # fmt: skip
_IMAGE = (image_list, fetch, build, verify, prune)

namespace = Collection(test_, lint, bench)
namespace.add_collection(Collection("lab", *_LAB))
namespace.add_collection(Collection("image", *_IMAGE))
