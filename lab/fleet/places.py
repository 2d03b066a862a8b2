"""Where a fleet's files are, on the coordinator and on a host."""

from __future__ import annotations

from pathlib import Path


class Coordinator:
    """The files of a coordinator, all below `<state_dir>/fleet`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.folder = state / "fleet"
        self.master = self.folder / "master"
        """Buildbot's own folder: its configuration, queue, logs."""
        self.plan = self.folder / "fleet.json"
        """The plan in force: what fleet.up read last."""
        self.nights = self.folder / "nights"
        """A file a night: what was asked for, and what came of it."""
        self.lock = self.folder / "nights.lock"
        self.inbox = self.master / "inbox"
        """What hosts handed in and nobody took in yet."""
        self.refused = self.folder / "refused"
        """What could not be taken in, and why, beside it."""
        self.passwords = self.master / "passwords"
        """One file a host, 0600."""
        self.socket = self.master / "www.sock"
        self.pulse = self.master / "pulse.json"
        self.note = self.folder / "master.json"
        """Which process Buildbot is."""
        self.log = self.folder / "master.log"
        self.matrix = self.folder / "matrix.json"


class Membership:
    """The files of a host that joined a fleet, all below `<state_dir>/fleet-host`."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "fleet-host"
        self.place = self.folder / "host.json"
        self.password = self.folder / "password"
        self.tac = self.folder / "buildbot.tac"
        self.work = self.folder / "work"
        self.job = self.work / "job"
        """The only program that the coordinator's jobs name: lab itself."""
        self.key = self.folder / "tunnel"
        self.log = self.folder / "worker.log"
        self.lock = self.folder / "lock"

    def note(self, name: str) -> Path:
        """Which process the tunnel, or the worker, is."""
        return self.folder / f"{name}.json"
