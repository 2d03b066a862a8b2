"""Sessions and the console: who holds a machine, and what a running VM does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.integration.vboxcom.media import Progress
from tests.integration.vboxcom.raw import (
    E_UNEXPECTED,
    INVALID_OBJECT_STATE,
    INVALID_VM_STATE,
    ComError,
    Node,
    Raw,
)

if TYPE_CHECKING:
    from tests.integration.vboxcom.machine import Record

PNG = b"\x89PNG\r\n\x1a\n"


class Session(Node):
    interface = "ISession"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.record: Record | None = None

    def lock(self, record: Record, write: bool) -> None:
        if self.record is not None:
            raise ComError(INVALID_OBJECT_STATE, "The session is locked already")
        if record.lingering or (write and (record.vm or record.holders)):
            record.lingering = max(0, record.lingering - 1)
            said = f"The machine '{record.name}' is already locked for a session (or being unlocked)"
            raise ComError(INVALID_OBJECT_STATE, said)
        self.record = record
        record.holders.append(self)
        if record.draft is None:
            record.begin()

    def let_go(self) -> None:
        assert self.record is not None
        record, self.record = self.record, None
        record.holders.remove(self)
        if not record.holders and not record.vm:
            record.draft = None  # what was not saved is lost

    def held(self) -> Record:
        if self.record is None:
            raise ComError(E_UNEXPECTED, "The session is not locked")
        return self.record

    def get_state(self) -> int:
        return self.world.number("SessionState", "Locked" if self.record else "Unlocked")

    def get_machine(self) -> Raw:
        from tests.integration.vboxcom.machine import Machine

        return Machine(self.held(), self).raw

    def get_console(self) -> Raw | None:
        record = self.held()
        return Console(self, record).raw if record.vm else None

    def call_unlock_machine(self) -> None:
        self.held()
        self.let_go()


class Console(Node):
    interface = "IConsole"

    def __init__(self, session: Session, record: Record) -> None:
        super().__init__(session.world)
        self.record = record
        self.parts["display"] = lambda: Display(session.world)

    def check(self, name: str, write: bool) -> None:
        if not self.record.vm:
            raise ComError(INVALID_VM_STATE, "The virtual machine is not running")

    def _must_be(self, *states: str) -> None:
        if self.record.state not in states:
            raise ComError(INVALID_VM_STATE, f"Invalid machine state: {self.record.state}")

    def call_pause(self) -> None:
        self._must_be("Running")
        self.record.state = "Paused"

    def call_resume(self) -> None:
        self._must_be("Paused")
        self.record.state = "Running"

    def call_power_button(self) -> None:
        self._must_be("Running")
        if self.world.polite:
            self.record.end("PoweredOff")

    def call_power_down(self) -> Raw:
        self._must_be("Running", "Paused", "Stuck")
        return Progress(self.world, "powerDown", lambda: self.record.end("PoweredOff")).raw


class Display(Node):
    interface = "IDisplay"

    def call_get_screen_resolution(self, _screen: int) -> tuple[int, ...]:
        return (720, 400, 32, 0, 0, self.world.number("GuestMonitorStatus", "Enabled"))

    def call_take_screen_shot_to_array(self, _screen: int, width: int, height: int, form: int) -> Any:
        assert self.world.label("BitmapFormat", form) == "PNG"
        return self.world.picture(PNG + b"%dx%d" % (width, height))
