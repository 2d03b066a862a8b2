"""fleet.toml: what is taken, and what is refused in words of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.fleet import master, plan
from lab.fleet.places import Coordinator
from tests.unit.bed import Bed

GOOD = """
closes = "06:30"
[[host]]
name = "mini"
tags = ["macos", "vbox"]
[[host]]
name = "box"
tags = ["linux"]
[[cell]]
name = "mac"
tags = ["macos", "vbox"]
settings = { engine = "virtualbox", vm = { cpus = 2, nested = true }, emulator = { env = ["A=b c"] } }
expects = { host = "mini", virtualbox = "7.1" }
[[cell]]
name = "anywhere"
[[cell]]
name = "nowhere"
tags = ["arm"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_hosts_are_found_by_all_tags_and_settings_become_variables(tmp_path: Path) -> None:
    fleet = plan.read(written(tmp_path, GOOD))
    mac, anywhere, nowhere = fleet.cell
    assert [fleet.hosts_for(cell) for cell in fleet.cell] == [["mini"], ["mini", "box"], []]
    assert mac.environment == {
        "LAB_ENGINE": "virtualbox",
        "LAB_VM__CPUS": "2",
        "LAB_VM__NESTED": "true",
        "LAB_EMULATOR__ENV": '["A=b c"]',
    }
    assert (mac.expects.host, mac.expects.virtualbox, mac.expects.processor) == ("mini", "7.1", "")
    assert (anywhere.environment, nowhere.tags, fleet.at, fleet.closes) == ({}, ("arm",), "02:00", "06:30")


def test_what_is_sent_to_hosts_means_the_same_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.config import load

    for name, text in plan.read(written(tmp_path, GOOD)).cell[0].environment.items():
        monkeypatch.setenv(name, text)
    settings = load()
    assert (settings.engine, settings.vm.cpus, settings.vm.nested) == ("virtualbox", 2, True)
    assert settings.emulator.env == ["A=b c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no [[cell]]"),
        ("[[cell]]\nname = 'x'\n[[cell]]\nname = 'x'", "two cells x"),
        ("[[cell]]\nname = 'x'\n[[host]]\nname='h'\n[[host]]\nname='h'", "two hosts h"),
        ("[[cell]]\nname = 'a/b'", "cell a/b: name"),
        ("[[cell]]\nname = 'x'\ntag = ['t']", "cell x: tag"),
        ("[[cell]]\nname = 'x'\nsettings = { engin = 'qemu' }", "did you mean engine"),
        ("[[cell]]\nname = 'x'\nsettings = { state_dir = '/x' }", "state_dir is each host's own"),
        ("[[cell]]\nname = 'x'\nsettings = { vm = { cpus = 'many' } }", "vm.cpus = 'many'"),
        ("[[cell]]\nname = 'x'\nexpects = { host = 'nobody' }", "none of that name"),
        ("[[cell]]\nname = 'x'\n[[host]]\nname = 'coordinator'", "cannot be called coordinator"),
        ("closes = '25:00'\n[[cell]]\nname = 'x'", "closes"),
        ("closes = ''\n[[cell]]\nname = 'x'", "closes"),
        ("port = 80\n[[cell]]\nname = 'x'", "port"),
        ("[[cell]\n", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan.read(written(tmp_path, text))
    assert words in f"{caught.value.what} {caught.value.hint}"


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = "[[cell]]\nname='x'\nsettings={engine=1}\n[[cell]]\nname='y'\nexpects={host='z'}"
    with pytest.raises(UsageError, match="2 problems"):
        plan.read(written(tmp_path, text))


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*fleet\.toml"):
        plan.read(tmp_path / "fleet.toml")


def test_what_buildbot_reads_is_private_and_a_host_that_left_has_no_password(bed: Bed) -> None:
    fleet = plan.read(written(bed.folder, GOOD))
    here = Coordinator(bed.session().settings.state_dir)
    content = {"at": fleet.at}
    digest, changed = master._write(here, fleet, content)
    assert changed
    assert master._write(here, fleet, content) == (digest, False)
    assert {path.name for path in here.passwords.iterdir()} == {"mini", "box"}
    secrets = [path.read_text() for path in here.passwords.iterdir()]
    assert len(set(secrets)) == 2
    for path in (*here.master.glob("*.*"), *here.passwords.iterdir(), here.plan):
        assert path.is_dir() or path.stat().st_mode & 0o777 == 0o600, path
    assert not any(secret.strip() in (here.master / "plan.json").read_text() for secret in secrets)
    alone = fleet.model_copy(update={"host": fleet.host[:1]})
    again, changed = master._write(here, alone, content)
    assert again != digest
    assert [path.name for path in here.passwords.iterdir()] == ["mini"]
    assert json.loads((here.master / "plan.json").read_text())["digest"] == again


def test_the_master_is_told_nothing_but_what_is_fixed() -> None:
    """No command of Buildbot's has a word that a person, a host or a request could choose."""
    text = (master.PARTS / "master.cfg").read_text()
    assert '"buildbotNetUsageData": None' in text
    assert "interface=127.0.0.1" in text
    assert "mode=600" in text
    assert text.count("ShellCommand(") == 3  # a job's, the gathering's, the clocks'
    assert "regex=DATE" in text
