"""lab.diff: what differs between two runs or nights, what changed first, and what nobody recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.reports import decisive
from lab.reports.difference import difference, last_good, not_recorded
from lab.reports.side import RunSide
from lab.tasks.lab.diff import diff
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from tests import schema
from tests.unit import nights
from tests.unit.bed import Bed, checked
from tests.unit.pages import Page
from tests.unit.reports import DOCUMENTS, fails, kept, late, made

GOOD = {
    "config.json": json.dumps([{"key": "vm.nested", "value": True, "origin": "default"}]),
    "settings.json": json.dumps({"nested": "on", "uuid": "1b03a977-aa36-4e72-8406-2cad06ba1dd5"}),
    "versions.json": json.dumps({"lab": "0.1.0", "engine": "7.2.22"}),
    "packages.txt": "docker.io\t26.1.5\nqemu\t1\nold\t3\n",
    "kvm-parameters.txt": "/sys/module/kvm_amd/parameters/nested:1\n/sys/module/kvm/initsize:0\n",
    "dmesg.txt": "[    9.14] kvm_amd: Nested Virtualization enabled\n[   9.2] usb 1-1: new device\n"
    "[  241.2] kvm [931]: vcpu0, guest rIP: 0xffffffff9de96048 Unhandled WRMSR(0xc0010007) = 0xffff\n",
}
BAD = {
    "config.json": json.dumps([{"key": "vm.nested", "value": False, "origin": "environment LAB_VM__NESTED"}]),
    "settings.json": json.dumps({"nested": "off", "uuid": "00000000-0000-0000-0000-2cad06ba1dd5"}),
    "versions.json": json.dumps({"lab": "0.1.0", "engine": "10.0.0"}),
    "packages.txt": "docker.io\t28.0\nqemu\t1\n",
    "kvm-parameters.txt": "/sys/module/kvm_amd/parameters/nested:0\n",
    "dmesg.txt": "[   19.14] kvm_amd: SVM not supported by CPU 0\n"
    "[  341.2] kvm [1931]: vcpu0, guest rIP: 0xffffffff9de96049 Unhandled WRMSR(0xc0010007) = 0xffff\n",
}


def folder(root: Path, name: str, document: dict[str, Any], files: dict[str, str]) -> Path:
    made_folder = kept(root / "default" / name, document)
    for file, text in files.items():
        (made_folder / file).write_text(text)
    return made_folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    bad = made(fates={"guest.kvm": fails("real mode: entry failed")})
    return (
        folder(tmp_path, "20261101T000000.000Z-up", DOCUMENTS["confirmed"], GOOD),
        folder(tmp_path, "20261102T000000.000Z-up", bad, BAD),
    )


def test_what_changed_first_is_the_lowest_rung_that_turned_out_differently(sides: tuple[Path, Path]) -> None:
    found = difference(RunSide(sides[0]), RunSide(sides[1]))
    assert found.first is not None
    assert (found.first.rung, found.first.before, found.first.after) == ("guest.kvm", "passed", "failed")
    assert found.headline == (
        "guest.kvm changed first: passed before, failed now: real mode: entry failed; changed beside it: "
        "vm.nested on → off; engine 7.2.22 → 10.0.0; docker.io 26.1.5 → 28.0, and 3 more"
    )
    turned = [row.rung for row in found.rungs if row.outcome]
    assert turned == ["guest.kvm", "container.kvm", "nested.boot", "nested.adb"], "the last three: blocked"


def test_each_part_is_compared_and_what_is_of_one_run_alone_is_not(sides: tuple[Path, Path]) -> None:
    parts = {part.part: part for part in difference(RunSide(sides[0]), RunSide(sides[1])).parts}
    changes = {name: [(each.what, each.before, each.after) for each in parts[name].changes] for name in parts}
    assert changes["settings"] == [("vm.nested", "on", "off")]
    assert changes["vm"] == [("nested", "on", "off")], "the VM's uuid is another in every run"
    assert changes["packages"] == [("docker.io", "26.1.5", "28.0"), ("old", "3", None)]
    assert changes["kvm"] == [("kvm_amd/parameters/nested", "1", "0")]
    assert ("nesting", "confirmed", "refuted") in changes["claims"]
    assert changes["cell"] == [] and parts["packages"].same == 1


def test_decisive_lines_differ_by_what_they_say_and_not_by_their_numbers(sides: tuple[Path, Path]) -> None:
    logs = {log.file: log for log in difference(RunSide(sides[0]), RunSide(sides[1])).logs}
    assert logs["dmesg.txt"].gone == ("kvm_amd: Nested Virtualization enabled",)
    assert logs["dmesg.txt"].new == ("kvm_amd: SVM not supported by CPU 0",)
    assert logs["VBox.log"].recorded == "neither"


def test_virtualboxs_own_word_is_among_its_decisive_lines() -> None:
    log = (
        "00:00:01.100000 HM: HMR3Init: VT-x w/ nested paging\n"
        "00:00:01.200000 CPUM: Warning! Can't turn on nested VT-x/AMD-V when NEM is used!\n"
        "00:00:02.000000 GIM: Using provider 'KVM' (Implementation version: 0)\n"
        "00:00:03.000000 VMMDev: Guest Log: kvm: nested\n"
        "00:00:04.000000 AudioDrv: whatever\n"
    )
    assert decisive.LOGS["VBox.log"](log) == [
        "HM: HMR3Init: VT-x w/ nested paging",
        "CPUM: Warning! Can't turn on nested VT-x/AMD-V when NEM is used!",
        "GIM: Using provider 'KVM' (Implementation version: 0)",
    ]


def test_what_a_side_did_not_record_is_said_and_never_guessed(sides: tuple[Path, Path]) -> None:
    before, after = sides
    for name in ("packages.txt", "config.json", "validation.json"):
        (after / name).unlink()
    (after / "settings.json").write_text("{torn")
    (before / "dmesg.txt").unlink()
    found = difference(RunSide(before), RunSide(after))
    parts = {part.part: part for part in found.parts}
    for name in ("packages", "settings", "claims", "cell", "vm"):
        assert (parts[name].recorded, parts[name].changes) == ("before", ()), name
    assert found.first is None and found.rungs == () and found.rungs_recorded == "before"
    assert "which rung changed first is not known" in found.headline
    assert not_recorded(found)[0] == f"{before.name} did not record: dmesg.txt"
    assert not_recorded(found)[1].startswith(f"{after.name} did not record: rungs, claims, settings")
    assert found.after.verdict == ""


def test_a_version_that_was_not_looked_at_is_no_change(sides: tuple[Path, Path]) -> None:
    before, after = sides
    for side in sides:
        for name in ("config.json", "settings.json", "packages.txt", "kvm-parameters.txt"):
            (side / name).unlink()
        (side / "versions.json").write_text('{"engine": "7.2.22"}')
    document = json.loads((after / "validation.json").read_text())
    document["facts"] = {}
    (after / "validation.json").write_text(json.dumps(document))
    found = difference(RunSide(before), RunSide(after))
    (versions,) = [part for part in found.parts if part.part == "versions"]
    assert [(each.what, each.after) for each in versions.changes] == [("L1's kernel", None)]
    assert "L1's kernel" not in found.headline


def test_two_runs_that_are_the_same(tmp_path: Path) -> None:
    one, other = (folder(tmp_path, name, DOCUMENTS["confirmed"], GOOD) for name in ("1-up", "2-up"))
    found = difference(RunSide(one), RunSide(other))
    assert found.headline == "no rung turned out differently; nothing else that was recorded changed"
    assert found.rungs == () and all(not log.new and not log.gone for log in found.logs)


def test_a_run_that_was_cut_short_has_the_rungs_it_came_to(sides: tuple[Path, Path]) -> None:
    document = made(until="docker.engine")
    (sides[1] / "validation.json").unlink()
    (sides[1] / "rungs.json").write_text(json.dumps(document["rungs"]))
    found = difference(RunSide(sides[0]), RunSide(sides[1]))
    assert found.first is not None
    assert (found.first.rung, found.first.after) == ("container.kvm", "not looked at")


def test_control_characters_of_a_guest_reach_nobody(sides: tuple[Path, Path]) -> None:
    (sides[1] / "packages.txt").write_text("docker.io\t\x1b[31m28\n")
    (sides[1] / "dmesg.txt").write_text("kvm: \x1b]0;title\x07\n")
    text = json.dumps(difference(RunSide(sides[0]), RunSide(sides[1])).as_json())
    assert "\\u001b" not in text and "\\u0007" not in text


def test_what_a_record_gives_no_name_has_one_in_the_difference(sides: tuple[Path, Path]) -> None:
    (sides[0] / "settings.json").write_text('{"": 1, "\\u0007": {"": 1}}')
    (sides[1] / "settings.json").write_text('{"": 2, "\\u0007": {"": 3}}')
    found = difference(RunSide(sides[0]), RunSide(sides[1]))
    schema.validate(found.as_json())
    (vm,) = [part for part in found.parts if part.part == "vm"]
    assert vm.changes and all("(unnamed)" in change.what for change in vm.changes)


def test_the_last_good_run_is_of_the_same_claim_host_and_engine(bed: Bed) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default", claim="theory")
    bed.world.kvm_ok = False
    validate(bed.session(), "default")
    first, other, red = bed.runs()
    document = json.loads((other / "validation.json").read_text()) | {"verdict": "confirmed"}
    (other / "validation.json").write_text(json.dumps(document))
    assert last_good(red) == first, "the other is of another claim"
    found = checked(diff(bed.session(), "", "", "default", last_good=True))
    assert (found["before"]["name"], found["after"]["name"]) == (first.name, red.name)
    assert found["first"]["rung"] == "guest.kvm"
    assert found == checked(diff(bed.session(), first.name, str(red), "default"))
    document["claim"], document["cell"]["host"]["id"] = "nesting", "another"
    (other / "validation.json").write_text(json.dumps(document))
    assert last_good(red) == first, "the other is of another host"
    document["cell"]["host"]["id"], document["cell"]["engine"] = "", "virtualbox"
    (other / "validation.json").write_text(json.dumps(document))
    assert last_good(red) == first, "the other is of another engine"
    with pytest.raises(UsageError, match="no run of lab default before"):
        diff(bed.session(), first.name, "", "default", last_good=True)


def test_what_is_no_run_is_refused_with_those_that_are_like_it(bed: Bed) -> None:
    up(bed.session(), "default")
    (run,) = bed.runs()
    for wanted in ((run.name, ""), ("", ""), (run.name, run.name[:-1]), (run.name, "7")):
        with pytest.raises(UsageError) as caught:
            diff(bed.session(), *wanted, "default")
        assert "invoke lab.evidence" in caught.value.hint
    with pytest.raises(UsageError):
        diff(bed.session(), run.name, run.name, "default", last_good=True)
    with pytest.raises(UsageError):
        diff(bed.session(), "", "", "another", last_good=True)


def test_the_report_of_a_red_run_says_what_changed_since_the_last_good_one(bed: Bed) -> None:
    up(bed.session(), "default")
    bed.world.kvm_ok = False
    validate(bed.session(), "default")
    good, red = bed.runs()
    page = Page((red / "report.html").read_text())
    assert "What changed since the last good run" in {heading.said for heading in page.all("h2")}
    assert "guest.kvm changed first: passed before, failed now" in (red / "report.md").read_text()
    kept_difference = json.loads((red / "report.json").read_text())["difference"]
    assert kept_difference["before"]["name"] == good.name
    assert "difference" not in json.loads((good / "report.json").read_text())
    assert "changed since" not in (good / "report.html").read_text()


def test_a_red_night_is_told_with_what_changed_since_the_last_good_one(bed: Bed) -> None:
    nights.spend(bed)
    bed.world.kvm_ok = False
    red, _ = nights.spend(bed)
    night_folder = Path(red["evidence"])
    kept_difference = json.loads((night_folder / "diff.json").read_text())
    assert (kept_difference["before"]["night"], kept_difference["after"]["night"]) == (1, 2)
    assert kept_difference["first"]["rung"] == "guest.kvm"
    for name in ("summary.md", "report.html", "report.md"):
        assert "changed first: passed before, failed now" in (night_folder / name).read_text(), name
    assert "since the last good night: guest.kvm" in (night_folder / "summary.md").read_text()
    assert checked(diff(bed.session(), "2", "", "default", last_good=True)) == kept_difference
    assert checked(diff(bed.session(), "1", red["uuid"], "default")) == kept_difference
    run = Path(red["runs"][0]["evidence"])
    mixed = checked(diff(bed.session(), "1", run.name, "default"))
    assert (mixed["before"]["night"], mixed["after"]["night"]) == (1, None)
    with pytest.raises(UsageError, match="no night before night 1"):
        diff(bed.session(), "1", "", "default", last_good=True)


def test_a_night_without_a_page_has_the_difference_in_its_summary(bed: Bed) -> None:
    nights.spend(bed)
    red, _ = nights.spend(
        bed,
        nights.night.Roads(up=nights.blocked, validate=nights.ROADS.validate, compare=nights.ROADS.compare),
    )
    assert red["verdict"] == "blocked"
    assert not (Path(red["evidence"]) / "diff.json").exists(), "its run left nothing to compare"
    with pytest.raises(UsageError, match="left evidence"):
        diff(bed.session(), "1", "2", "default")


def test_a_timeout_is_no_failure_in_the_difference(tmp_path: Path) -> None:
    good = folder(tmp_path, "1-up", DOCUMENTS["confirmed"], GOOD)
    unsure = folder(tmp_path, "2-up", made(fates={"nested.adb": late}), GOOD)
    found = difference(RunSide(good), RunSide(unsure))
    assert found.first is not None and found.first.after == "inconclusive"
