"""lab.report: of the newest run, of a named one, of several; and what is said when there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import reports
from lab.core import files
from lab.core.errors import LabError, UsageError
from lab.engines.protocol import EngineFacts
from lab.host import kvm
from lab.host.cpu import parse_cpuinfo
from lab.host.facts import HostFacts, Kvm
from lab.reports import reading
from lab.tasks.lab.report import report
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.tasks.theory import explain
from lab.workflow.destroy import destroy
from tests.unit.bed import Bed, checked
from tests.unit.pages import Page


def paths(found: dict[str, Any]) -> dict[str, Path]:
    return {item["format"]: Path(item["path"]) for item in found["files"]}


def written(found: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(paths(found)["json"].read_text())
    return document


def test_the_newest_run_is_reported(bed: Bed) -> None:
    up(bed.session(), "default")
    found = checked(report(bed.session(), "default"))
    (run,) = bed.runs()
    assert (found["runs"], found["claim"], found["verdict"]) == ([str(run)], "nesting", "confirmed")
    assert all(path.parent == run for path in paths(found).values())
    page = Page(paths(found)["html"].read_text())
    assert "KVM works in a container in the VM, with QEMU 7.2" in page.one("h1").said
    assert "Where the time went" in {heading.said for heading in page.all("h2")}
    assert "console.log" in page.attribute("href")
    document = written(found)
    assert document["runs"][0]["files"] and document["runs"][0]["steps"]
    assert len(document["history"]) == 1 and document["predictions"]


def test_a_report_outlives_the_lab(bed: Bed) -> None:
    up(bed.session(), "default")
    destroy(bed.session(), "default")
    assert checked(report(bed.session(), "default"))["verdict"] == "confirmed"


def test_several_runs_of_one_cell(bed: Bed) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default")
    bed.world.kvm_ok = False
    validate(bed.session(), "default")
    up_run, first, second = bed.runs()
    found = checked(report(bed.session(), "default", runs=3))
    assert found["runs"] == [str(up_run), str(first), str(second)]
    assert (found["verdict"], found["reason"]) == (
        "inconclusive",
        "3 runs do not agree: 2 confirmed, 1 refuted",
    )
    assert paths(found)["html"].parent == second
    assert 'href="../' in paths(found)["html"].read_text(), "the others' evidence is linked to"
    assert checked(report(bed.session(), "default"))["verdict"] == "refuted"
    # The history of an earlier run knows nothing of the later ones.
    earlier = checked(report(bed.session(), "default", run=first.name))
    assert earlier["verdict"] == "confirmed" and len(written(earlier)["history"]) == 2


def test_runs_of_another_claim_are_left_out(bed: Bed) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default", claim="theory")
    found = checked(report(bed.session(), "default", runs=5))
    assert (found["claim"], len(found["runs"])) == ("theory", 1)


def test_the_comparison_of_a_validation_is_reported(bed: Bed) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default", compare=True)
    comparison = written(checked(report(bed.session(), "default")))["comparison"]
    assert comparison["ratios"][0]["ratio"] == 10.0
    assert [measure["seconds"] for measure in comparison["measures"]] == [[6.0], [60.0]]
    validate(bed.session(), "default")
    assert written(checked(report(bed.session(), "default")))["comparison"] is None
    several = checked(report(bed.session(), "default", runs=2))
    assert written(several)["comparison"] == comparison, "one of the runs measured it"
    assert "In the longest of the runs" in Page(paths(several)["html"].read_text()).one("main").said


def test_where_there_is_nothing_to_report(bed: Bed) -> None:
    with pytest.raises(UsageError, match="no run of a lab default"):
        report(bed.session(), "default")
    up(bed.session(), "default")
    with pytest.raises(UsageError, match="no run 'yesterday'"):
        report(bed.session(), "default", run="yesterday")
    with pytest.raises(UsageError, match="at least"):
        report(bed.session(), "default", runs=0)
    with pytest.raises(UsageError):
        report(bed.session(), "../default")


def test_a_damaged_run_is_named_and_leaves_the_others_be(bed: Bed) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default")
    first, second = bed.runs()
    (first / "validation.json").write_text("{")
    found = checked(report(bed.session(), "default", runs=2))
    assert found["runs"] == [str(second)] and len(written(found)["history"]) == 1
    for damage in ("{", "[]", "{}", '{"schema": "lab.validation/1"}'):
        (second / "validation.json").write_text(damage)
        with pytest.raises(LabError):
            report(bed.session(), "default")


def test_a_run_is_read_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    up(bed.session(), "default")
    validate(bed.session(), "default")
    opened: list[Path] = []

    def counted(path: Path) -> Any:
        opened.append(path)
        return files.read_json(path)

    monkeypatch.setattr(reading, "read_json", counted)
    found = checked(report(bed.session(), "default", runs=2))
    assert len(found["runs"]) == 2
    documents = [path for path in opened if path.name == "validation.json"]
    assert sorted(documents) == [run / "validation.json" for run in bed.runs()]


def test_a_run_without_a_verdict_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no verdict"):
        reports.read([reports.RunFolder(tmp_path)])


def test_open_hands_the_page_to_a_browser(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    up(bed.session(), "default")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    found = checked(report(bed.session(), "default", open_it=True))
    assert opened == [paths(found)["html"].as_uri()]


_SOFTWARE = "QEMU TCG CPU version 2.5+"


def _of(cpu: str, vendor: str, flags: str) -> HostFacts:
    cpuinfo = parse_cpuinfo(f"vendor_id : {vendor}\nmodel name : {cpu}\nflags : {flags}\n")
    kvm = Kvm(("kvm_amd",), {"kvm_amd.nested": "1"}, "0660", True)
    return HostFacts(
        "Debian GNU/Linux", "12", "6.1.0", "x86_64", cpuinfo, 2, 1 << 36, 1 << 36, "boot", kvm=kvm
    )


@pytest.mark.parametrize(
    ("here", "engine", "fact"),
    [
        (
            _of("AMD EPYC", "AuthenticAMD", "svm la57"),
            EngineFacts("virtualbox", "7.2.22", "hwvirt", "hardware", "fake"),
            "virtualbox-linux-la57",
        ),
        (
            _of("AMD EPYC", "AuthenticAMD", "hypervisor"),
            EngineFacts("virtualbox", "7.2.22", "hwvirt", "hardware", "fake"),
            "virtualbox-linux-no-extensions",
        ),
        (
            _of(_SOFTWARE, "AuthenticAMD", "svm hypervisor"),
            EngineFacts("virtualbox", "7.2.22", "hwvirt", "hardware", "fake"),
            "virtualbox-linux-emulated-amd",
        ),
        (
            _of("AMD EPYC", "AuthenticAMD", "svm"),
            EngineFacts("qemu", "7.2", "kvm", "hardware", "fake"),
            "qemu-",
        ),
        (
            _of("AMD EPYC", "AuthenticAMD", "hypervisor"),
            EngineFacts("qemu", "7.2", "tcg", "emulated", "fake"),
            "qemu-emulation",
        ),
    ],
)
def test_a_report_predicts_what_theory_explain_does_here(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, here: HostFacts, engine: EngineFacts, fact: str
) -> None:
    bed.use(host=lambda: here)
    usable = engine.acceleration == "kvm"
    answer = kvm.KvmAnswer(usable, "", nested=True)
    bed.use(kvm=lambda *_, **__: answer)
    monkeypatch.setattr(explain.shutil, "which", lambda name: f"/usr/bin/{name}")
    bed.world.facts = engine
    up(bed.session(engine=engine.engine), "default")
    (expected,) = checked(explain.explain(bed.session(), engine=engine.engine))["engines"]
    found = written(checked(report(bed.session(), "default")))["predictions"]
    assert expected["fact"] and expected["fact"]["id"].startswith(fact)
    claims = {claim: said for claim, said in expected["claims"].items() if said != "not applicable"}
    assert {one["claim"]: one["predicted"] for one in found} == claims
    assert {one["why"] for one in found} == {expected["why"]}
    assert {one["source"] for one in found} == {"; ".join(expected["fact"]["sources"])}


def test_without_the_hosts_facts_less_is_predicted_and_nothing_breaks(bed: Bed) -> None:
    up(bed.session(), "default")
    (run,) = bed.runs()
    for damage in ("{", "[]", "{}", None):
        (run / "host.json").unlink()
        if damage is not None:
            (run / "host.json").write_text(damage)
        assert written(checked(report(bed.session(), "default")))["predictions"]
        (run / "host.json").touch()


def _bring(site: Path, module: str, source: str) -> None:
    """A package with a reporter, as pip leaves one."""
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lab.reporters]\n{module} = {module}:Plain\n")


_PLAIN = """
class Plain:
    format, file = "plain", "verdict.txt"
    def render(self, run, folder):
        return f"{run.verdict}: {run.reason}, in {folder.name}"
"""


def test_a_package_brings_a_reporter(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    _bring(site, "plain", _PLAIN)
    _bring(site, "unfit", "import nothing_of_that_name")
    _bring(
        site,
        "broken",
        _PLAIN.replace("plain", "broken").replace("verdict.txt", "b").replace("run.reason", "1/0"),
    )
    _bring(site, "outside", _PLAIN.replace("verdict.txt", "../verdict.txt"))
    monkeypatch.syspath_prepend(site)
    up(bed.session(), "default")
    notes: list[str] = []
    session = bed.session()
    session.steps.subscribe(lambda event: notes.append(event.text) if event.kind == "note" else None)
    for _ in range(2):
        found = checked(report(session, "default"))
    assert list(paths(found)) == ["html", "json", "junit", "markdown", "plain"]
    (run,) = bed.runs()
    assert paths(found)["plain"] == run / "verdict.txt"
    assert (run / "verdict.txt").read_text().startswith("confirmed: every rung it needs passed")
    assert "verdict.txt" not in written(found)["runs"][0]["files"], "a report is no evidence"
    for name in ("unfit", "broken", "outside"):
        assert [note for note in notes if f"no report by `{name}`" in note], name
