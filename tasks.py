"""The tasks of lab: names, flags and exit codes (docs/tasks.md). The work is in lab/tasks/.

A function here is a task's description: its arguments are the flags, its docstring is the help. What it
runs is imported when it runs, so that `invoke --list` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.collection import Collection

from lab.cli.task import does

if TYPE_CHECKING:
    from lab.workflow.session import Reply, Session

NAME = "default"
MAIN = "main"


# --- lab ---------------------------------------------------------------------------------------


@does(
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
def up(session: Session, name: str = NAME, fresh: bool = False) -> Reply:
    """Create the lab VM, install Docker in it, start the emulator container, climb the ladder."""
    from lab.tasks.lab.up import up

    return up(session, name=name, fresh=fresh)


@does("lab.status/1", help={"deep": "log in and ask Docker about the container"})
def status(session: Session, name: str = NAME, deep: bool = False) -> Reply:
    """Show one lab: state, ports, who holds it."""
    from lab.tasks.lab.status import status

    return status(session, name=name, deep=deep)


@does("lab.list/1", name="list")
def list_(session: Session) -> Reply:
    """List all labs."""
    from lab.tasks.lab.status import list_labs

    return list_labs(session)


@does(
    "lab.validation/1",
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "compare": "also boot another L2 with KVM and one without, and report the ratio",
    },
)
def validate(session: Session, name: str = NAME, claim: str = "", compare: bool = False) -> Reply:
    """Climb the ladder on a running lab and judge the claims."""
    from lab.tasks.lab.validate import validate

    return validate(session, name=name, claim=claim, compare=compare)


@does(
    "lab.compare/1",
    help={
        "runs": "boots of L2 by each way to run it",
        "seed": "repeats the order of an earlier run; 0: a new one",
        "arm": "--no-arm: without the ARM machine, whose image is made or fetched for this alone",
    },
)
def compare(session: Session, name: str = NAME, runs: int = 3, seed: int = 0, arm: bool = True) -> Reply:
    """Time boots of L2 with nested KVM, without, and of an emulated ARM machine, and show the ratios."""
    from lab.tasks.lab.compare import compare

    return compare(session, name=name, runs=runs, seed=seed, arm=arm)


@does()
def ssh(session: Session, name: str = NAME) -> Reply:
    """Open a shell in the lab VM."""
    from lab.tasks.lab.ssh import ssh

    return ssh(session, name=name)


@does("lab.exec/1", name="exec")
def exec_(session: Session, words: list[str], name: str = NAME, json: bool = False) -> Reply:
    """Run a command in the lab VM: invoke lab.exec -- uname -a"""
    from lab.tasks.lab.ssh import execute

    return execute(session, name=name, argv=words, capture=json)


@does("lab.watch/1", positional=["name"], help={"name": "the lab's name; nightly: the night at work"})
def watch(session: Session, name: str = NAME) -> Reply:
    """Follow the command at work on a lab from another terminal, until it ends."""
    from lab.tasks.lab.watch import watch

    return watch(session, name=name)


@does(positional=["source", "target"])
def copy(session: Session, source: str, target: str, name: str = NAME) -> Reply:
    """Copy a file into or out of the lab VM: invoke lab.copy notes.txt lab:/tmp/"""
    from lab.tasks.lab.copy import copy

    return copy(session, source=source, target=target, name=name)


@does(
    help={
        "follow": "go on as the file grows",
        "source": "console (L1's serial console), engine, container or l2",
    }
)
def logs(session: Session, name: str = NAME, follow: bool = False, source: str = "console") -> Reply:
    """Print a log of the lab."""
    from lab.tasks.lab.logs import logs

    return logs(session, name=name, follow=follow, source=source)


@does("lab.action/1")
def halt(session: Session, name: str = NAME) -> Reply:
    """Power the VM off: gracefully within the deadline, else hard."""
    from lab.tasks.lab.power import halt

    return halt(session, name=name)


@does("lab.action/1")
def suspend(session: Session, name: str = NAME) -> Reply:
    """Save the running VM's memory on disk and end its process."""
    from lab.tasks.lab.power import suspend

    return suspend(session, name=name)


@does("lab.action/1")
def resume(session: Session, name: str = NAME) -> Reply:
    """Bring a suspended lab back to where it was, ADB included."""
    from lab.tasks.lab.power import resume

    return resume(session, name=name)


@does("lab.action/1", positional=["snapshot"])
def snapshot(session: Session, snapshot: str, name: str = NAME) -> Reply:
    """Take a snapshot: memory too when the VM runs."""
    from lab.tasks.lab import snapshots

    return snapshots.snapshot(session, snapshot=snapshot, name=name)


@does("lab.action/1", positional=["snapshot"])
def restore(session: Session, snapshot: str, name: str = NAME) -> Reply:
    """Go back to a snapshot."""
    from lab.tasks.lab.snapshots import restore

    return restore(session, snapshot=snapshot, name=name)


@does("lab.snapshots/1")
def snapshots(session: Session, name: str = NAME) -> Reply:
    """List a lab's snapshots."""
    from lab.tasks.lab.snapshots import snapshots

    return snapshots(session, name=name)


@does("lab.action/1", help={"purge": "remove its evidence too"})
def destroy(session: Session, name: str = NAME, purge: bool = False) -> Reply:
    """Remove all that lab made for this lab, half-made or whole. Evidence is kept."""
    from lab.workflow.destroy import destroy

    return destroy(session, name=name, purge=purge)


@does("lab.doctor/1", help={"deep": "rehash cached images and probe KVM anew"})
def doctor(session: Session, deep: bool = False) -> Reply:
    """Show what this host can do, and what is missing."""
    from lab.tasks.lab.doctor import doctor

    return doctor(session, deep=deep)


@does(
    "lab.action/1",
    optional=["vagrant"],
    help={
        "ssh": "a machine that you can log in to: a host of your ssh_config, or user@host[:port]",
        "ssh-config": "with --ssh: this file in the place of your ssh_config, such as Lima's of a machine",
        "here": "this very Linux machine, or WSL2 distribution",
        "install-docker": "with --ssh or --here: install Docker there, if there is none",
        "vagrant": "the machine's name in its Vagrantfile (vagrant when left out)",
        "name": "the lab's name (the machine's when left out)",
        "folder": "where the Vagrantfile is (this project's when left out)",
        "plan": "tell the Vagrantfile how the machine is to be, for this provider (schema lab.vagrant/1)",
        "prepare": "make what the machine needs before it is made, for this provider (schema lab.vagrant/1)",
    },
)
def attach(
    session: Session,
    vagrant: str = "",
    name: str = "",
    folder: str = "",
    plan: str = "",
    prepare: str = "",
    ssh: str = "",
    ssh_config: str = "",
    here: bool = False,
    install_docker: bool = False,
) -> Reply:
    """Make a machine that runs a lab: Vagrant's, one that you can log in to, or this one."""
    from lab.tasks.lab import attach_machine, vagrantfile
    from lab.tasks.lab.attach import attach

    if ssh or here:
        wanted = attach_machine.Wanted(ssh, name, here, install_docker, ssh_config)
        return attach_machine.attach(session, wanted, others=bool(vagrant or folder or plan or prepare))
    machine = vagrant if isinstance(vagrant, str) else ""  # the flag alone is True
    if prepare or plan:
        ask = vagrantfile.prepare if prepare else vagrantfile.describe
        return ask(session, machine, prepare or plan)
    return attach(session, machine=machine, name=name, folder=folder)


@does("lab.action/1", help={"forget": "forget it though its machine is not reached"})
def detach(session: Session, name: str, forget: bool = False) -> Reply:
    """Take away all that lab made in an attached machine, and nothing else; the lab is forgotten."""
    from lab.tasks.lab.detach import detach

    return detach(session, name=name, forget=forget)


@does("lab.config/1")
def config(session: Session) -> Reply:
    """Print each effective setting with where it came from."""
    from lab.tasks.lab.config import config

    return config(session)


@does("lab.evidence/1", help={"collect": "collect a bundle from the lab now"})
def evidence(session: Session, name: str = NAME, collect: bool = False) -> Reply:
    """List a lab's evidence, newest last."""
    from lab.tasks.lab.evidence import evidence

    return evidence(session, name=name, collect_now=collect)


@does(
    "lab.report-files/1",
    help={
        "run": "a run by its folder's name (the newest with a verdict when left out)",
        "runs": "report that many runs of its cell together, the newest last",
        "open": "open the page in a browser",
    },
)
def report(session: Session, name: str = NAME, run: str = "", runs: int = 1, open: bool = False) -> Reply:
    """Write the reports of a run (HTML, JSON, JUnit XML, Markdown) beside its evidence."""
    from lab.tasks.lab.report import report

    return report(session, name=name, run=run, runs=runs, open_it=open)


@does(
    "lab.recording/1",
    help={
        "run": "a run by its folder's name (the newest with a verdict when left out)",
        "to": "the file: .svg, or .cast for asciinema",
        "seconds": "how long it takes to be seen, 0: as long as the run took",
    },
)
def record(session: Session, name: str = NAME, run: str = "", to: str = "", seconds: int = 20) -> Reply:
    """Make a recording of a run's terminal, from its evidence."""
    from lab.tasks.lab.record import record

    return record(session, name=name, run=run, to=to, seconds=seconds)


@does(
    "lab.diff/1",
    positional=["before", "after"],
    help={
        "before": "a run by its folder's name or path, or a night by its number",
        "after": "the later one",
        "last-good": "find the earlier one: the last that confirmed (name none: that of the newest)",
    },
)
def diff(
    session: Session, before: str = "", after: str = "", name: str = NAME, last_good: bool = False
) -> Reply:
    """What differs between two runs or nights, and what changed first on the ladder."""
    from lab.tasks.lab.diff import diff

    return diff(session, before=before, after=after, name=name, last_good=last_good)


@does(
    "lab.open/1",
    name="open",
    help={"emulator": "which one", "print": "print the address; on a terminal with the password"},
)
def open_(session: Session, name: str = NAME, emulator: str = MAIN, print: bool = False) -> Reply:
    """Show the emulator's screen in the browser."""
    from lab.tasks.lab.open import open_

    return open_(session, name=name, emulator=emulator, only_print=print)


# --- the emulators of a lab ----------------------------------------------------------------------


@does(
    "emulator.up/1",
    name="up",
    positional=["emulator"],
    help={
        "emulator": "which one: main, or a name of its own for one beside it",
        "kind": "canary or docker-android; left out: as the main one",
    },
)
def emulator_up(session: Session, emulator: str = MAIN, name: str = NAME, kind: str = "") -> Reply:
    """Start an emulator in the running VM, and wait until it is usable."""
    from lab.tasks.emulator.instances import up

    return up(session, emulator=emulator, name=name, kind=kind)


@does("emulator.up/1", name="restart", positional=["emulator"])
def emulator_restart(session: Session, emulator: str = MAIN, name: str = NAME) -> Reply:
    """End an emulator, launch it anew, and wait until it is usable."""
    from lab.tasks.emulator.instances import restart

    return restart(session, emulator=emulator, name=name)


@does("emulator.action/1", name="down", positional=["emulator"])
def emulator_down(session: Session, emulator: str = MAIN, name: str = NAME) -> Reply:
    """End an emulator; one beside the main one is forgotten, its ports with it."""
    from lab.tasks.emulator.instances import down

    return down(session, emulator=emulator, name=name)


@does("emulator.status/1", name="status", help={"emulator": "only this one; left out: all"})
def emulator_status(session: Session, name: str = NAME, emulator: str = "") -> Reply:
    """Look at every emulator: container, checks, timeline, what was recognised."""
    from lab.tasks.emulator.instances import status

    return status(session, name=name, emulator=emulator)


@does("emulator.list/1", name="list")
def emulator_list(session: Session, name: str = NAME) -> Reply:
    """List a lab's emulators and their ports."""
    from lab.tasks.emulator.instances import list_emulators

    return list_emulators(session, name=name)


@does("emulator.logs/1", name="logs", help={"follow": "go on as they grow"})
def emulator_logs(
    session: Session, name: str = NAME, emulator: str = MAIN, follow: bool = False, json: bool = False
) -> Reply:
    """Print an emulator's logs."""
    from lab.tasks.emulator.device import logs

    return logs(session, name=name, emulator=emulator, follow=follow, capture=json)


@does("emulator.action/1", name="screenshot", positional=["file"])
def emulator_screenshot(session: Session, file: str, name: str = NAME, emulator: str = MAIN) -> Reply:
    """Write Android's screen into a PNG file."""
    from lab.tasks.emulator.device import screenshot

    return screenshot(session, file=file, name=name, emulator=emulator)


@does("emulator.action/1", name="install", positional=["apk"])
def emulator_install(session: Session, apk: str, name: str = NAME, emulator: str = MAIN) -> Reply:
    """Install an app."""
    from lab.tasks.emulator.device import install

    return install(session, apk=apk, name=name, emulator=emulator)


@does(
    "lab.exec/1", name="shell", help={"json": "with a command: print its output as JSON, schema lab.exec/1"}
)
def emulator_shell(
    session: Session, words: list[str], name: str = NAME, emulator: str = MAIN, json: bool = False
) -> Reply:
    """Run a command by adb shell, or open a shell: invoke emulator.shell -- getprop"""
    from lab.tasks.emulator.device import shell

    return shell(session, name=name, emulator=emulator, argv=words, capture=json)


# --- images ------------------------------------------------------------------------------------


@does("image.list/1", name="list")
def image_list(session: Session) -> Reply:
    """List the cached images."""
    from lab.tasks.image.list import list_images

    return list_images(session)


@does(
    "image.action/1",
    positional=["image"],
    help={
        "image": "ubuntu-24.04 or docker-android",
        "update": "docker-android: take what the tag stands for now, in the place of what is pinned",
    },
)
def fetch(session: Session, image: str = "ubuntu-24.04", update: bool = False) -> Reply:
    """Download and verify a published image."""
    from lab.tasks.image.fetch import fetch

    return fetch(session, image=image, update=update)


@does(
    "image.action/1",
    positional=["image"],
    help={
        "image": "debian-13 (on Linux), canary; both when left out; rehearsal: for theory.rehearse; "
        "canary-arm64-emulated: for lab.compare; canary-arm64: for arm64 machines"
    },
)
def build(session: Session, image: str = "") -> Reply:
    """Build the local images, if their recipe or package versions changed."""
    from lab.tasks.image.build import build

    return build(session, image=image)


@does("image.action/1", help={"provider": "libvirt or virtualbox: which of Vagrant's it is for"})
def box(session: Session, provider: str = "libvirt") -> Reply:
    """Make a Vagrant box of the image that a lab stands on."""
    from lab.tasks.image.box import box

    return box(session, provider=provider)


@does("image.action/1", positional=["image", "file"], help={"image": "canary", "file": "the file to write"})
def export(session: Session, image: str, file: str) -> Reply:
    """Write the cached canary into a file, for a machine that cannot build it."""
    from lab.tasks.image.export import export

    return export(session, image=image, file=file)


@does("image.action/1", name="import", positional=["file"], help={"file": "what image.export wrote"})
def import_(session: Session, file: str) -> Reply:
    """Put an exported canary into the cache."""
    from lab.tasks.image.export import import_

    return import_(session, file=file)


@does("image.action/1")
def verify(session: Session) -> Reply:
    """Rehash every cached image."""
    from lab.tasks.image.verify import verify

    return verify(session)


@does("image.action/1")
def prune(session: Session) -> Reply:
    """Remove cached images that no lab uses."""
    from lab.tasks.image.prune import prune

    return prune(session)


# --- the theory --------------------------------------------------------------------------------


@does(
    "theory.explain/1",
    help={
        "host": "another host than this one, such as macos-intel:13, macos-m3:15 or linux-amd,vm",
        "engine": "one engine, with a version if you like, such as virtualbox:7.1",
    },
)
def explain(session: Session, host: str = "", engine: str = "") -> Reply:
    """Tell what lab expects of this host and why, and what would work here; builds nothing."""
    from lab.tasks.theory.explain import explain

    return explain(session, host=host, engine=engine)


@does("theory.matrix/1")
def matrix(session: Session) -> Reply:
    """Show all that is known of hosts and engines, and what was observed."""
    from lab.tasks.theory.explain import matrix

    return matrix(session)


@does(
    "theory.experiment/1",
    help={
        "runs": "fresh VMs for each of the six cells",
        "engine": "auto, virtualbox or qemu",
        "seed": "repeats the order of an earlier run; 0: a new one",
    },
    settings={"engine": "engine"},
)
def experiment(session: Session, runs: int = 1, seed: int = 0) -> Reply:
    """Try paravirtualization by nesting, a fresh VM a cell: which makes /dev/kvm work in it?"""
    from lab.tasks.theory.experiment import experiment

    return experiment(session, runs=runs, seed=seed)


@does(
    "theory.rehearse/1",
    help={
        "cpu": "the PC's processor: haswell, westmere and more with VT-x, or amd (docs/rehearsal.md)",
        "experiment": "theory.experiment there, instead of lab.up",
    },
)
def rehearse(session: Session, cpu: str = "haswell", experiment: bool = False) -> Reply:
    """Run lab on VirtualBox in an emulated PC that has VT-x: on any Linux machine, without root."""
    from lab.tasks.theory.rehearse import rehearse

    return rehearse(session, cpu=cpu, experiment=experiment)


# --- nightly -----------------------------------------------------------------------------------


@does(
    "nightly.run/1",
    name="run",
    help={
        "claim": "nesting, android or theory: which verdict chooses the exit code",
        "runs": "how often to look at the VM (nightly.runs)",
        "key": "DATE/CELL: one night for this key; a second call waits for it, and returns it",
        "like": "repeat that night (number, uuid or key): its settings, digests and claim",
    },
    settings={"runs": "nightly.runs"},
)
def nightly_run(session: Session, claim: str = "", key: str = "", like: str = "") -> Reply:
    """One night, now: a fresh VM, several looks, a comparison, a report; recorded whatever happens."""
    from lab.tasks.nightly.run import run

    return run(session, claim=claim, key=key, like=like)


@does(
    "nightly.flakes/1",
    name="flakes",
    help={"limit": "over how many nights, 0 for all", "all": "also the rungs that passed each time"},
)
def nightly_flakes(session: Session, limit: int = 0, all: bool = False) -> Reply:
    """How often each rung did not hold, in each cell, with its interval."""
    from lab.tasks.nightly.flakes import flakes

    return flakes(session, limit=limit, all_=all)


@does(
    "nightly.export/1",
    name="export",
    positional=["night"],
    help={
        "night": "its key, uuid or number",
        "to": "the file to write, or with --since the folder",
        "since": "instead of one night: all with a key of that day or later that ran here",
        "format": "archive, or kcidb-like: the night in kernel CI's words, without evidence",
    },
)
def nightly_export(
    session: Session, night: str = "", to: str = "", since: str = "", format: str = "archive"
) -> Reply:
    """Write a night with its evidence into an archive, for the host that gathers them."""
    from lab.tasks.nightly.export import export

    return export(session, night=night, to=to, since=since, form=format)


@does(
    "nightly.import/1",
    name="import",
    positional=["file"],
    help={"file": "what nightly.export wrote, or a folder of them"},
)
def nightly_import(session: Session, file: str) -> Reply:
    """Take nights of other hosts into the history; their verdicts are judged anew."""
    from lab.tasks.nightly.export import import_

    return import_(session, file=file)


@does("nightly.history/1", name="history", help={"limit": "how many nights, 0 for all"})
def nightly_history(session: Session, limit: int = 14) -> Reply:
    """The nights that were, newest first."""
    from lab.tasks.nightly.history import history

    return history(session, limit=limit)


@does(
    "fleet.matrix/1",
    name="matrix",
    help={
        "to": "the folder to write them into",
        "limit": "how many days, 0 for all",
        "open": "open the page in a browser",
    },
)
def nightly_matrix(session: Session, to: str = "", limit: int = 60, open: bool = False) -> Reply:
    """What this host tried, night by night: a page and a badge."""
    from lab.tasks.nightly.matrix import matrix

    return matrix(session, to=to, limit=limit, open_it=open)


@does("nightly.issues/1", name="issues")
def nightly_issues(session: Session) -> Reply:
    """The known issues (known-issues.toml), and which nights failed by them."""
    from lab.tasks.nightly.issues import issues

    return issues(session)


@does(
    "nightly.schedule/1",
    name="install",
    help={"at": "HH:MM, local time", "print": "show the files, write nothing"},
)
def nightly_install(session: Session, at: str = "03:30", print: bool = False) -> Reply:
    """Have a night run every day: launchd, systemd or the Task Scheduler."""
    from lab.tasks.nightly.schedule import install

    return install(session, at=at, print_only=print)


@does("nightly.schedule/1", name="uninstall")
def nightly_uninstall(session: Session) -> Reply:
    """Take the night out of the scheduler again."""
    from lab.tasks.nightly.schedule import uninstall

    return uninstall(session)


@does("nightly.schedule/1", name="status")
def nightly_status(session: Session) -> Reply:
    """Whether a night is installed or runs, and how the last one ended."""
    from lab.tasks.nightly.schedule import status

    return status(session)


# --- a fleet -----------------------------------------------------------------------------------


@does(
    "fleet.action/1",
    name="up",
    help={"file": "the fleet's description (the project's fleet.toml, or the one beside your lab.toml)"},
)
def fleet_up(session: Session, file: str = "") -> Reply:
    """Make this machine a fleet's coordinator, or have it read fleet.toml anew."""
    from lab.tasks.fleet.up import up

    return up(session, file=file)


@does("fleet.action/1", name="down")
def fleet_down(session: Session) -> Reply:
    """End the coordinator's queue; what is in it goes on at the next fleet.up."""
    from lab.tasks.fleet.up import down

    return down(session)


@does("fleet.status/1", name="status")
def fleet_status(session: Session) -> Reply:
    """The queue, every host, the nights that are open."""
    from lab.tasks.fleet.up import status

    return status(session)


@does(
    "fleet.night/1",
    name="run",
    iterable=["cell"],
    help={"cell": "only this cell; may be given several times", "date": "of which night; today's"},
)
def fleet_run(session: Session, cell: list[str], date: str = "") -> Reply:
    """Ask for a night of every cell, now; what is asked for already stays as it is."""
    from lab.tasks.fleet.nights import run

    return run(session, cells=cell, date=date)


@does(
    "fleet.night/1",
    name="cancel",
    iterable=["cell"],
    help={"cell": "only this cell; may be given several times", "date": "of which night; today's"},
)
def fleet_cancel(session: Session, cell: list[str], date: str = "") -> Reply:
    """Take back what is open of a night."""
    from lab.tasks.fleet.nights import cancel

    return cancel(session, cells=cell, date=date)


@does("fleet.matrix/1", name="matrix", help={"nights": "how many, 0 for all"})
def fleet_matrix(session: Session, nights: int = 14) -> Reply:
    """Cells by nights: the verdict of each, and the word of what is open."""
    from lab.tasks.fleet.nights import matrix

    return matrix(session, nights=nights)


@does("fleet.night/1", name="gather")
def fleet_gather(session: Session) -> Reply:
    """Take in what hosts handed in and close what is due; the queue has it run by itself."""
    from lab.tasks.fleet.nights import take_in

    return take_in(session)


@does(
    "fleet.action/1",
    name="join",
    positional=["name"],
    help={
        "name": "this host's name in fleet.toml",
        "coordinator": "where ssh reaches it, such as me@desk; left out: this very machine",
        "port": "the fleet's port (9989)",
        "password": "the file with this host's password, which fleet.up made; - for standard input",
        "ssh-config": "this file in the place of your ssh_config",
        "install": "have it start with the machine (launchd, systemd); --no-install: only write it down",
    },
)
def fleet_join(
    session: Session,
    name: str,
    coordinator: str = "",
    port: int = 9989,
    password: str = "",
    ssh_config: str = "",
    install: bool = True,
) -> Reply:
    """Make this machine a host of a fleet, which starts with the machine."""
    from lab.tasks.fleet.join import join

    return join(
        session,
        name=name,
        coordinator=coordinator,
        port=port,
        password=password,
        ssh_config=ssh_config,
        install=install,
    )


@does("fleet.action/1", name="leave")
def fleet_leave(session: Session) -> Reply:
    """Take this machine out of its fleet."""
    from lab.tasks.fleet.join import leave

    return leave(session)


@does(name="work")
def fleet_work(session: Session) -> Reply:
    """Work for the fleet until this is ended: what fleet.join has started with the machine."""
    from lab.tasks.fleet.join import work

    return work(session)


# --- the project itself ------------------------------------------------------------------------


@does(
    "test/1",
    name="test",
    help={
        "tier": "unit, integration, e2e; all: those; e2e-android, e2e-nightly, e2e-rehearsal, "
        "e2e-rehearsal-mac, e2e-virtualbox, e2e-vagrant, e2e-published, e2e-attach, e2e-fleet"
    },
)
def test_(session: Session, tier: str = "all") -> Reply:
    """Run the tests, with the linters."""
    from lab.dev.project import test

    return test(session, tier=tier)


@does()
def lint(session: Session) -> Reply:
    """ruff, mypy --strict and import-linter."""
    from lab.dev.project import lint

    return lint(session)


@does(
    "bench/1",
    help={
        "runs": "how often each figure is taken",
        "cold": "also from a fresh clone with nothing cached, once",
    },
)
def bench(session: Session, runs: int = 3, cold: bool = False) -> Reply:
    """Measure what docs/benchmarks.md promises."""
    from lab.dev.bench import bench

    return bench(session, runs=runs, cold=cold)


_LAB = (
    up, status, list_, validate, compare, ssh, exec_, copy, logs, watch, halt, suspend, resume,
    snapshot, restore, snapshots, destroy, attach, detach, doctor, config, evidence, report, record,
    diff, open_,
)  # fmt: skip
_EMULATOR = (
    emulator_up, emulator_restart, emulator_down, emulator_status, emulator_list, emulator_logs,
    emulator_screenshot, emulator_install, emulator_shell,
)  # fmt: skip
_THEORY = (explain, matrix, experiment, rehearse)
_IMAGE = (image_list, fetch, build, box, export, import_, verify, prune)
_NIGHTLY = (
    nightly_run, nightly_history, nightly_flakes, nightly_matrix, nightly_export, nightly_import,
    nightly_issues, nightly_install, nightly_uninstall, nightly_status,
)  # fmt: skip
_FLEET = (
    fleet_up, fleet_down, fleet_status, fleet_run, fleet_cancel, fleet_matrix, fleet_gather, fleet_join,
    fleet_leave, fleet_work,
)  # fmt: skip

namespace = Collection(test_, lint, bench)
namespace.add_collection(Collection("lab", *_LAB))
namespace.add_collection(Collection("emulator", *_EMULATOR))
namespace.add_collection(Collection("image", *_IMAGE))
namespace.add_collection(Collection("theory", *_THEORY))
namespace.add_collection(Collection("nightly", *_NIGHTLY))
namespace.add_collection(Collection("fleet", *_FLEET))
