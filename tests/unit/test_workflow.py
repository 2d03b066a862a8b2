""".github/workflows: valid, pinned, the least of permissions; the night's evidence is kept in any case."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from lab.host.identity import FILE
from lab.nights import archive, keys

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.yml"))}
WORKFLOWS: dict[str, dict[str, Any]] = {
    name: YAML(typ="safe", pure=True).load(text) for name, text in TEXTS.items()
}
WORKFLOW = WORKFLOWS["nightly.yml"]
EACH = pytest.mark.parametrize("name", TEXTS)
NIGHTS = {
    name: job
    for name, job in WORKFLOW["jobs"].items()
    if any(step.get("name") == "The night" for step in job["steps"])
}
JOBS = pytest.mark.parametrize("job", NIGHTS.values(), ids=list(NIGHTS))
ALL_JOBS = pytest.mark.parametrize("job", WORKFLOW["jobs"].values(), ids=list(WORKFLOW["jobs"]))
_PINNED = re.compile(r"^\s*-? *uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def _schema() -> dict[str, Any]:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    found: dict[str, Any] = json.loads(vendored.read_text())
    return found


@EACH
def test_githubs_schema_takes_it(name: str) -> None:
    faults = [fault.message for fault in Draft7Validator(_schema()).iter_errors(WORKFLOWS[name])]
    assert faults == []


def test_githubs_schema_would_not_take_anything() -> None:
    broken = WORKFLOW | {"jobs": {"one": {"steps": [{"runs": "typo"}]}}}
    assert list(Draft7Validator(_schema()).iter_errors(broken))


@EACH
def test_every_action_is_pinned_by_a_full_hash_and_says_its_version(name: str) -> None:
    uses = [line for line in TEXTS[name].splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not _PINNED.match(line)] == []


def test_one_action_has_one_hash() -> None:
    pins: dict[str, set[str]] = {}
    for action, digest in re.findall(r"uses: ([\w-]+/[\w-]+)[\w/-]*@(\w+)", "\n".join(TEXTS.values())):
        pins.setdefault(action, set()).add(digest)
    assert all(len(found) == 1 for found in pins.values())


def test_nothing_is_permitted_but_what_a_job_needs() -> None:
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in WORKFLOW["jobs"].items()} == {
        "night": {},
        "linux-kvm": {"contents": "read", "issues": "write"},
        "intel-mac": {"contents": "read", "issues": "write"},
        "matrix": {"contents": "read"},
    }


def test_each_push_is_looked_at_on_linux_and_on_both_kinds_of_mac() -> None:
    ci = WORKFLOWS["ci.yml"]
    assert set(ci["on"]) == {"push", "pull_request"}
    assert ci["permissions"] == {"contents": "read"}
    (job,) = ci["jobs"].values()
    assert job["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "macos-26-intel", "macos-26"]
    assert job["steps"][-1]["run"] == "bin/invoke test --tier unit"


def test_only_the_clock_and_a_person_start_it() -> None:
    # `on` is a boolean in YAML 1.1 and a word in 1.2, which GitHub reads.
    assert set(WORKFLOW["on"]) == {"schedule", "workflow_dispatch"}
    assert WORKFLOW["concurrency"] == {"group": "nightly", "cancel-in-progress": False}


@JOBS
def test_the_job_outlasts_the_nights_budget(job: dict[str, Any]) -> None:
    assert job["timeout-minutes"] >= int(job["env"]["LAB_NIGHTLY__BUDGET_MINUTES"]) + 30


@JOBS
def test_evidence_and_summary_are_kept_whichever_way_it_ends(job: dict[str, Any]) -> None:
    names = [step.get("name") for step in job["steps"]]
    after = job["steps"][names.index("The night") + 1 :]
    assert all(step["if"].startswith("always()") for step in after)
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in after)
    assert any(step.get("uses", "").startswith("actions/upload-artifact@") for step in after)


@pytest.mark.parametrize(("name", "key"), [("linux-kvm", "history-"), ("matrix", "matrix.run-")])
def test_the_history_travels_with_its_log_and_its_hosts_id(name: str, key: str) -> None:
    """A night that was killed is in the -wal file alone."""
    kept = [
        step["with"]
        for step in WORKFLOW["jobs"][name]["steps"]
        if str(step.get("with", {}).get("key", "")).startswith(key)
    ]
    paths = [f"~/.local/state/lab/{name}" for name in ("history.db*", FILE)]
    assert [each["path"].split() for each in kept] == [paths] * 2
    assert kept[0]["key"] == kept[1]["key"]
    assert kept[0]["key"].startswith(kept[0]["restore-keys"])


def test_no_cells_history_is_taken_for_anothers() -> None:
    """What is restored is found by how its key begins."""
    cells = [each["cell"] for each in WORKFLOW["jobs"]["linux-kvm"]["strategy"]["matrix"]["include"]]
    keys = [f"history-{cell}.run-" for cell in cells]
    assert not [(a, b) for a in keys for b in keys if a != b and b.startswith(a)]


@JOBS
def test_a_night_has_a_key_and_is_handed_in_under_it(job: dict[str, Any]) -> None:
    steps = {step.get("name"): step for step in job["steps"]}
    assert 'nightly.run --key "$NIGHT"' in steps["The night"]["run"]
    assert 'nightly.export "$NIGHT"' in steps["Export the night"]["run"]
    handed = steps["Hand the night in"]["with"]
    assert handed["path"].endswith(archive.ENDING)
    assert handed["name"].startswith("night-")
    cells = [
        each["cell"] for each in job.get("strategy", {}).get("matrix", {}).get("include", [{"cell": "x"}])
    ]
    for more in ("", ".57"):
        for cell in cells:
            said = {
                "needs.night.outputs.day": "2026-12-01",
                "needs.night.outputs.more": more,
                "matrix.cell": cell,
            }
            key = re.sub(
                r"\$\{\{ ([\w.]+) \}\}", lambda match, said=said: said[match[1]], job["env"]["NIGHT"]
            )
            assert keys.is_key(key), key


def test_the_matrix_is_made_of_all_nights_also_where_one_is_red() -> None:
    job = WORKFLOW["jobs"]["matrix"]
    assert set(job["needs"]) == {"night", *NIGHTS}
    assert job["if"].startswith("always()")
    taken = next(step for step in job["steps"] if "download-artifact@" in step.get("uses", ""))
    assert taken["with"]["pattern"] == "night-*"
    words = " ".join(step.get("run", "") for step in job["steps"])
    assert "nightly.import" in words
    assert "nightly.matrix --to" in words
    assert "merge-multiple" not in taken["with"]  # a second attempt's archive has the first one's name


@JOBS
def test_the_token_is_given_to_the_night_and_to_nothing_else(job: dict[str, Any]) -> None:
    holding = [step["name"] for step in job["steps"] if "github.token" in json.dumps(step)]
    assert holding == ["The night"]
    assert "github.token" not in json.dumps(job["env"])
    checkout = next(step for step in job["steps"] if "actions/checkout@" in step.get("uses", ""))
    assert checkout["with"] == {"persist-credentials": False}


@ALL_JOBS
def test_no_expression_is_pasted_into_a_script(job: dict[str, Any]) -> None:
    assert [step["name"] for step in job["steps"] if "${{" in step.get("run", "")] == []


@JOBS
def test_the_settings_are_ones_lab_knows(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.config import load

    for name, value in job["env"].items():
        text = str(value).replace("${{ github.repository }}", "me/lab")
        monkeypatch.setenv(name, text.replace("${{ matrix.image }}", "ubuntu-24.04"))
    monkeypatch.setenv("LAB_GITHUB_TOKEN", "a-token")
    assert load().nightly.github == "me/lab"


def test_a_runner_without_kvm_rehearses_and_keeps_that_too() -> None:
    job = WORKFLOW["jobs"]["linux-kvm"]
    steps = {step.get("name"): step for step in job["steps"]}
    assert "theory.rehearse" in steps["The rehearsal, where there is no KVM"]["run"]
    assert "REHEARSES=true" in steps["System packages, and this user at /dev/kvm"]["run"]
    assert "rehearsal" in steps["Summary and evidence"]["run"]
