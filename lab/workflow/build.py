"""Building a lab, one part a rung: each is done only as far as it is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from lab import engines
from lab.core import system
from lab.core.deadline import POLL_SECONDS, Deadline, check_cancelled
from lab.core.errors import BlockedError, CommandError
from lab.core.steps import Background
from lab.emulators import MAIN
from lab.emulators.protocol import Emulator
from lab.engines.protocol import HELD, State
from lab.guest import boot, clock, docker, seed
from lab.guest.ssh import Guest
from lab.images import cache, debian, uses
from lab.ladder import rungs
from lab.model.domain import Outcome
from lab.workflow import attached, consent, emulator_start, guest_image, ports, preflight
from lab.workflow.workbench import Workbench

_HOLD_KVM = debian.SOURCES / "rootfs/etc/systemd/system/lab-hold-kvm.service"
"""systemd unit that keeps one idle KVM guest running (why: see the unit file). Lab's own image has it."""


class Builder:
    """`ensure()` gives what `lab.up` does before each rung is checked.

    Steps that do not need each other run side by side: the emulator's image is prepared while
    the VM is made and boots (once KVM is seen to work there, where gigabytes are to be fetched), copied
    into it while Docker is being installed, and L2 boots while the rungs below it are looked at.
    An image that cannot be had is for L2's own rung to tell.
    """

    def __init__(self, bench: Workbench, background: Background) -> None:
        self._bench = bench
        self._session = bench.session
        self._steps = bench.session.steps
        self._background = background
        self._prepared: Future[None] | None = None
        self._installed: Future[None] | None = None
        self._loaded: Future[None] | None = None
        self._kvm: Future[bool] = Future()
        self._launched = False
        """L2 was launched before its rung was reached: that launch is the first of the tries."""
        self._slept = False
        """L1 was suspended or paused: its clock stands where it was then."""

    def saw(self, outcome: Outcome) -> None:
        """Hear what came of a rung: L2 is not launched where a tiny guest did not run."""
        if outcome.rung == rungs.guest.kvm.name:
            self._kvm.set_result(outcome.passed)

    def give_up(self) -> None:
        """The climb ended early: whoever waits for its outcome waits no more."""
        self._kvm.cancel()

    def ensure(self) -> dict[str, Callable[[], None]]:
        actions = {
            rungs.host.engine.name: self._images,
            rungs.vm.settings.name: self._vm,
            rungs.vm.boot.name: self._begin_inside,
            rungs.docker.engine.name: self._docker,
        }
        if self._bench.main_emulator() is not None:
            actions[rungs.nested.boot.name] = self._emulator
        settings = self._session.settings
        plainly = system.explained(settings.state_dir, settings.cache_dir)
        return {rung: plainly(action) for rung, action in actions.items()}

    def _images(self) -> None:
        """Packages, then images: an engine may want to boot one's kernel to see what it can do."""
        bench = self._bench
        self._session.need(guest_image.purposes(self._session, bench.record().engine, bench.record().image))
        if not engines.kind(bench.record().engine).boots_kernel and not bench.engine.availability().usable:
            return  # the rung says why; no image helps, and some are large
        emulator = bench.main_emulator()
        if emulator is not None and not emulator.to_be_fetched():
            self._prepared = self._background.start(lambda: self._prepare(emulator))
        self._image()
        if self._prepared is not None and self._session.kernel is None:
            self._settled(self._prepared)

    def _vm(self) -> None:
        bench = self._bench
        state = bench.machine.status()
        if attached.is_attached(bench.record()):
            attached.require_docker(bench)
        if state is State.RUNNING:
            return
        self._slept = state is State.SUSPENDED or state in HELD
        if state in HELD:  # a suspend was cut short: its ports are still its own
            bench.machine.resume(ports.forwards(bench.lab))
            return
        if state is State.CRASHED:  # what is left of it holds its ports and memory
            bench.machine.stop(Deadline.after(0))
            state = State.STOPPED
        if state in (State.ABSENT, State.STOPPED):
            self._create()  # what is there is kept: a creation may have been cut short
        preflight.before_start(self._session, bench.lab, bench.record())
        if bench.record().nested:
            consent.require(self._session, bench.engine)
        if state is not State.SUSPENDED:
            bench.lab.change(boot_id="")  # a boot of lab's own doing is none to tell of
        with self._steps.step("vm.start") as step:
            fixed = bench.session.settings.ports.model_dump()
            start = bench.machine.resume if state is State.SUSPENDED else bench.machine.start
            ports.start_on_free_ports(
                lambda: ports.choose(bench.lab, bench.guest_ports(), fixed, self._steps),
                start,
            )
            bench.close()
            step.result = ", ".join(
                f"{forward.name} on 127.0.0.1:{forward.host_port}" for forward in ports.forwards(bench.lab)
            )

    def _image(self) -> None:
        bench = self._bench
        if not bench.record().image:
            image, why = self._session.factories.guest_image(self._session, bench.record())
            bench.lab.change(image=image, image_why=why)
            bench.changed_image()
            self._steps.note(f"image: {image} ({why})")
        if bench.base_disk.parent.is_dir():  # another program's VM has none in the cache
            use = uses.Use(uuid=bench.record().uuid, lab=bench.lab.name, folder=bench.lab.folder.absolute())
            cache.mark_use(self._session.images, bench.record().image, use)

    def _create(self) -> None:
        bench = self._bench
        with self._steps.step("vm.create"):
            record = bench.record()
            own = guest_image.is_own(record.image)
            grow = not own or record.disk_gib > debian.recipe().disk.size_gib  # a published one is small
            services = {} if own else {_HOLD_KVM.name: _HOLD_KVM.read_text()}
            wanted = seed.Seed(record.uuid, f"lab-{record.name}", bench.keys, grow, services)
            bench.lab.journal.intend("file", str(bench.spec.seed))
            seed.write(wanted, bench.spec.seed)
            bench.lab.journal.done("file", str(bench.spec.seed))
            bench.machine.create()

    def _begin_inside(self) -> None:
        """Install Docker and bring the emulator's image in, while the VM's boot ends and KVM is looked at."""
        self._installed = self._background.start(self._install)
        if emulator := self._bench.main_emulator():
            self._loaded = self._background.start(lambda: self._bring(emulator))

    def _docker(self) -> None:
        if self._installed is not None:
            self._installed.result()
        if self._loaded is not None and self._prepared is not None:  # one that is fetched may take hours
            # Loading wants the whole processor, and a container started beside it takes as long as both.
            # L2's boot leaves one to spare: Docker is looked at then. What came of loading is for its rung.
            self._settled(self._loaded)
        self._bench.guest.reconnect()  # the user's new groups count from a login on

    def _install(self) -> None:
        if attached.is_attached(self._bench.record()):
            return  # its Docker is used as it is
        with self._inside() as guest, self._steps.step("docker.install") as step:
            if self._slept:
                clock.set_now(guest)
            deadline = Deadline.after(self._session.settings.deadlines.docker)
            docker.ensure(guest, self._bench.record().docker_package, step, deadline)

    def _prepare(self, emulator: Emulator) -> None:
        with self._steps.step("emulator.prepare", emulator.name) as step:
            emulator.prepare(step)

    def _inside(self) -> Guest:
        """A connection of its own, as soon as there is one: this work goes on beside the climb.

        An image of lab's own is ready for it from the first login on; another one may still be
        setting itself up.
        """
        deadline = Deadline.after(self._session.settings.deadlines.boot)
        guest = self._bench.log_in(deadline, self._bench.new_guest)
        if not guest_image.is_own(self._bench.record().image) and not guest.terms.somebodys:
            boot.wait_until_over(guest, deadline)
        return guest

    def _bring(self, emulator: Emulator) -> None:
        """Copy the image in and, once Docker is there, load it and launch L2: nothing waits for it yet."""
        if self._prepared is not None:
            self._prepared.result()
        elif self._kvm_works():
            self._prepare(emulator)
        else:
            return
        with self._inside() as guest:
            with self._steps.step("emulator.upload", emulator.name) as step:
                emulator.upload(guest, step)
            if self._installed is not None:
                self._installed.result()
            with self._steps.step("emulator.load", emulator.name) as step:
                emulator.load(guest, step)
            if self._kvm_works():
                # A container that Docker does not start is tried again when its rung is reached.
                with contextlib.suppress(CommandError, BlockedError):
                    self._launch(guest)

    def _kvm_works(self) -> bool:
        """Wait for guest.kvm; whether it passed. Raises InterruptedByUser."""
        self._settled(self._kvm)
        return self._kvm.result()

    @staticmethod
    def _settled(work: Future[Any]) -> None:
        """Wait for the end of it, good or bad. Raises InterruptedByUser."""
        while not wait([work], timeout=POLL_SECONDS).done:
            check_cancelled()

    def _emulator(self) -> None:
        if self._loaded is not None:
            self._loaded.result()
        if not self._launched:
            self._launch(self._bench.guest)
        emulator_start.boot(self._bench, MAIN, self._seconds())

    def _seconds(self) -> float:
        """How long L2 may take to answer: no less than its rung will wait."""
        nested = self._session.settings.deadlines.nested_boot
        android = self._bench.emulator(MAIN).android
        return max(nested, emulator_start.android_seconds(self._bench)) if android else nested

    def _launch(self, guest: Guest) -> None:
        """Launch L2, unless the one launched last still runs."""
        container = self._bench.emulator(MAIN).state(guest)
        if not emulator_start.is_still_running(self._bench, MAIN, container):
            emulator_start.launch(self._bench, MAIN, guest)
            self._launched = True
