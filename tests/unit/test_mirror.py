"""Which Debian archive the canary is built from: decided in one place, asked for once, kept if it answers."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import BlockedError, UsageError
from lab.documents.host import DoctorEngine
from lab.documents.images import ImageResult
from lab.host import kvm
from lab.images import apt_sources, canary
from lab.tasks.image import build as image_build
from lab.tasks.lab import config, doctor, up
from lab.workflow import mirror
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench
from tests.unit.bed import Bed, checked
from tests.unit.terminal import environment, on_terminal, script

_USABLE = DoctorEngine(name="an engine", usable=True, why="it is there", hint="", facts=None, findings=())
ADDRESS = "http://mirror.example/debian"


class FakeArchive:
    """A Debian archive that answers as `fault` has it; `asked` are the addresses that were tried."""

    fault: Exception | None = None

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        patch.setattr(canary, "archive", self.at)

    def at(self, address: str) -> FakeArchive:
        self.asked.append(address)
        return self

    def check(self, _deadline: object) -> None:
        if self.fault:
            raise self.fault


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """On a machine whose apt knows no Debian archive."""
    monkeypatch.setattr(apt_sources, "debian_archive", lambda *_: None)
    return Bed(tmp_path, monkeypatch)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    return FakeArchive(monkeypatch)


def asked(bed: Bed, *answers: str, **flags: Any) -> tuple[Session, list[str]]:
    """A session with a person who gives these answers, and what they were asked."""
    questions: list[str] = []
    left = list(answers)

    def answer(question: str) -> str:
        questions.append(question)
        return left.pop(0)

    return replace(bed.session(**flags), interactive=True, ask_for=answer), questions


def test_the_setting_goes_before_apt_and_apt_before_what_was_answered(
    bed: Bed, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, questions = asked(bed, ADDRESS)
    assert mirror.debian(session) == ADDRESS
    monkeypatch.setattr(apt_sources, "debian_archive", lambda *_: "http://apt.example/debian")
    assert mirror.debian(session) == "http://apt.example/debian"
    given = bed.session(images={"debian_mirror": "http://set.example/debian"})
    assert mirror.debian(given) == "http://set.example/debian"
    assert len(questions) == 1 and archive.asked == [ADDRESS]


def test_it_is_asked_for_once_and_kept(bed: Bed, archive: FakeArchive) -> None:
    session, questions = asked(bed, f"  {ADDRESS}\n")
    assert mirror.debian(session) == ADDRESS
    assert "images.debian_mirror" in questions[0] and "no Debian archive" in questions[0]
    assert mirror.debian(bed.session()) == ADDRESS, "in another command, with nobody to be asked"
    assert (session.settings.state_dir / "debian-mirror.json").stat().st_mode & 0o777 == 0o600


def test_where_nobody_can_be_asked_it_is_blocked_and_says_both_ways_out(bed: Bed) -> None:
    silent, _ = asked(bed, "")
    for session in (bed.session(), silent):
        with pytest.raises(BlockedError, match="no Debian archive is known") as caught:
            mirror.debian(session)
        for way in ("images.debian_mirror", "image.export canary FILE", "image.import FILE"):
            assert way in caught.value.hint


def test_a_wrong_address_is_told_and_asked_for_again(bed: Bed, archive: FakeArchive) -> None:
    archive.fault = BlockedError("it is signed by no key that is believed")
    session, questions = asked(bed, "http://wrong.example/debian", "mirror.example", ADDRESS)
    with pytest.raises(BlockedError, match="no key that is believed"):
        mirror.debian(session)
    assert mirror.known(session) is None
    with pytest.raises(UsageError, match=r"'mirror\.example' is no address"):
        mirror.debian(session)
    assert archive.asked == ["http://wrong.example/debian"], "what is no address is not tried"
    archive.fault = None
    assert mirror.debian(session) == ADDRESS and len(questions) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"address": 5}', '{"address": "ftp://x/debian"}', "{}"])
def test_what_cannot_be_read_is_asked_for_anew(bed: Bed, archive: FakeArchive, content: str) -> None:
    session, questions = asked(bed, ADDRESS)
    session.settings.state_dir.mkdir()
    (session.settings.state_dir / "debian-mirror.json").write_text(content)
    assert mirror.debian(session) == ADDRESS and len(questions) == 1
    assert mirror.debian(bed.session()) == ADDRESS


def test_config_and_doctor_show_where_it_is_from(
    bed: Bed, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.use(kvm=lambda *_, **__: kvm.KvmAnswer(False, "no KVM", None))
    monkeypatch.setattr(doctor, "_engine", lambda _session, name: _USABLE.model_copy(update={"name": name}))

    def shown(session: Session) -> tuple[Any, str, dict[str, str]]:
        (row,) = [row for row in checked(config.config(session))["values"] if row["key"] == mirror.KEY]
        rows = doctor.doctor(session).document["checks"]
        (check,) = [check for check in rows if check["name"] == "debian archive"]
        return row["value"], row["origin"], check

    value, origin, check = shown(bed.session())
    assert (value, origin, check["status"]) == ("", "default", "warn") and "image.import" in check["hint"]
    session, _ = asked(bed, "http://me:secret@mirror.example/debian")
    mirror.debian(session)
    value, origin, check = shown(bed.session())
    assert value == ADDRESS and origin.endswith("debian-mirror.json") and check["status"] == "ok"
    assert "secret" not in str(check) and origin in check["observed"]
    monkeypatch.setattr(apt_sources, "debian_archive", lambda *_: ADDRESS)
    assert shown(bed.session())[:2] == (ADDRESS, "this machine's apt sources")
    given = bed.session(images={"debian_mirror": "http://set.example/debian"})
    assert shown(given)[0] == "http://set.example/debian"


def test_every_builder_of_the_canary_asks_the_same(bed: Bed, archive: FakeArchive) -> None:
    built: list[str] = []

    def build(_cache: Path, _step: object, address: str, *_: object) -> Any:
        built.append(address)
        raise BlockedError("as far as it goes")

    bed.patch.setattr(canary, "build", build)
    session, questions = asked(bed, ADDRESS)
    with pytest.raises(BlockedError, match="as far as"):
        image_build.build(session, "canary")
    checked(up.up(bed.session(), "default"))
    assert Workbench.open(session, "default").place().debian_mirror() == ADDRESS
    assert built == [ADDRESS] and len(questions) == 1


def test_up_asks_before_it_makes_anything_and_goes_on_where_nobody_is(bed: Bed, archive: FakeArchive) -> None:
    archive.fault = BlockedError("could not be fetched")
    session, questions = asked(bed, "http://wrong.example/debian", emulator="canary")
    with pytest.raises(BlockedError, match="could not be fetched"):
        up.up(session, "default")
    assert session.store.find("default") is None and len(questions) == 1
    checked(up.up(bed.session(emulator="canary"), "default"))


@pytest.mark.parametrize("system", ["Darwin", "Linux"])
def test_what_cannot_be_built_here_is_said(bed: Bed, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    wanted: list[str] = []
    needed: list[object] = []
    bed.use(install=lambda purposes, **_: needed.append(purposes))
    for name in ("debian-13", "canary"):
        bed.patch.setitem(
            image_build._BUILDS, name, lambda _session, _step, name=name: wanted.append(name) or name
        )
    monkeypatch.setattr(image_build, "result", lambda _session, name, outcome: _row(name, outcome))
    document = checked(image_build.build(bed.session(), ""))
    if system == "Linux":
        assert set(wanted) == {"debian-13", "canary"} and document["notes"] == [] and needed
        return
    assert wanted == ["canary"] and document["notes"] == ["debian-13 is built on Linux only"] and not needed
    with pytest.raises(BlockedError, match="built on Linux only") as caught:
        image_build.build(bed.session(), "debian-13")
    assert "image.fetch" in caught.value.hint


def _row(name: str, outcome: str) -> ImageResult:
    return ImageResult(id=name, kind="canary", name=name, result=outcome, bytes=1, sha256="0" * 64, why="")


# At the terminal


def test_the_question_takes_a_line_and_the_end_of_input_is_none(tmp_path: Path) -> None:
    command = "print(repr(session.ask_for('None is known.\\nAddress:')))\nreturn Reply()"
    seen = on_terminal(script(command), environment(tmp_path), (b"Address: ", b"http://a/debian\n"))
    assert seen.lines[:3] == ["None is known.", "Address: http://a/debian", "'http://a/debian'"], seen.raw
    end = on_terminal(script(command), environment(tmp_path), (b"Address: ", b"\x04"))
    assert "''" in end.lines and end.code == 0, end.raw


def test_ctrl_c_at_the_question_is_an_interruption(tmp_path: Path) -> None:
    command = "session.ask_for('Address:')\nreturn Reply()"
    assert on_terminal(script(command), environment(tmp_path), (b"Address: ", b"\x03")).code == 130


def test_a_person_at_a_terminal_is_asked_and_a_dead_address_is_told(tmp_path: Path) -> None:
    """Through the real commands, up to the network: nothing listens there."""
    command = (
        "from lab.tasks.image.build import build\n"
        "from lab.images import apt_sources\n"
        "apt_sources.debian_archive = lambda *_: None\n"
        "return build(session, 'canary')"
    )
    seen = on_terminal(
        script(command), environment(tmp_path), (b"as apt has it: ", b"http://127.0.0.1:9/debian\n")
    )
    text = "\n".join(seen.lines)
    assert seen.code == 11 and "127.0.0.1:9" in text and "error:" in text, seen.raw
    assert not (tmp_path / "state" / "debian-mirror.json").exists()
