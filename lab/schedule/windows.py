"""Windows: a task of the Task Scheduler, in its XML (schema version 1.2)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from platformdirs import user_config_path

from lab.schedule.plan import MARKER, Plan, Unit

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
TASK = "\\lab\\nightly"
_FIRST_DAY = "2026-01-01"
"""Any day that has been: the trigger repeats daily from it."""


class TaskScheduler:
    """The file stays beside lab's settings; `schtasks` keeps a copy of its own."""

    name = "task scheduler"
    tool = "schtasks"
    absent = frozenset({1})
    """Its only failure: which one is said in the system's own language."""

    def units(self, plan: Plan) -> list[Unit]:
        task = ElementTree.Element("Task", {"version": "1.2", "xmlns": NAMESPACE})
        about = ElementTree.SubElement(task, "RegistrationInfo")
        _text(about, "Description", f"lab: the night's validation. {MARKER}")
        trigger = ElementTree.SubElement(ElementTree.SubElement(task, "Triggers"), "CalendarTrigger")
        _text(trigger, "StartBoundary", f"{_FIRST_DAY}T{plan.hour:02}:{plan.minute:02}:00")
        _text(trigger, "Enabled", "true")
        _text(ElementTree.SubElement(trigger, "ScheduleByDay"), "DaysInterval", "1")
        who = ElementTree.SubElement(ElementTree.SubElement(task, "Principals"), "Principal", {"id": "me"})
        _text(who, "LogonType", "InteractiveToken")
        _text(who, "RunLevel", "LeastPrivilege")
        settings = ElementTree.SubElement(task, "Settings")
        _text(settings, "MultipleInstancesPolicy", "IgnoreNew")
        _text(settings, "DisallowStartIfOnBatteries", "false")
        _text(settings, "StopIfGoingOnBatteries", "false")
        _text(settings, "StartWhenAvailable", "true")
        _text(settings, "WakeToRun", "true")
        _text(settings, "ExecutionTimeLimit", f"PT{plan.minutes}M")
        _text(settings, "Enabled", "true")
        action = ElementTree.SubElement(ElementTree.SubElement(task, "Actions", {"Context": "me"}), "Exec")
        program, *words = plan.program
        _text(action, "Command", program)
        _text(action, "Arguments", subprocess.list2cmdline(words))
        _text(action, "WorkingDirectory", str(plan.folder))
        ElementTree.indent(task)
        text = ElementTree.tostring(task, encoding="unicode")
        # schtasks wants UTF-16, which this codec begins with its mark.
        return [Unit(self.paths()[0], f'<?xml version="1.0" encoding="UTF-16"?>\n{text}\n'.encode("utf-16"))]

    def paths(self) -> list[Path]:
        base = Path(os.environ["APPDATA"]) / "lab" if "APPDATA" in os.environ else user_config_path("lab")
        return [base / "nightly-task.xml"]

    def activate(self) -> list[list[str]]:
        return [["schtasks", "/Create", "/F", "/TN", TASK, "/XML", str(self.paths()[0])]]

    def deactivate(self) -> list[list[str]]:
        return [["schtasks", "/Delete", "/F", "/TN", TASK]]

    def after_removal(self) -> list[list[str]]:
        return []

    def query(self) -> list[str]:
        return ["schtasks", "/Query", "/TN", TASK, "/V", "/FO", "LIST"]

    def advice(self) -> str:
        return "a task takes the variables of your account: nothing is set in it"


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
