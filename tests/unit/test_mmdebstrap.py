from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.core.errors import BlockedError, CommandError
from lab.images import mmdebstrap
from tests.capabilities import needs_linux

pytestmark = needs_linux  # as mmdebstrap does


ARCHIVE = "deb http://mirror.example/debian trixie main\n"
ROOT = mmdebstrap.RootRecipe(suite="trixie", packages=["a"])


def fake_mmdebstrap(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An mmdebstrap on PATH that runs `script`."""
    program = folder / "bin" / "mmdebstrap"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_versions_come_from_apts_simulation() -> None:
    lines = [
        "Reading package lists...",
        "Inst libc6 (2.41-12+deb13u4 Debian:13.7/stable [amd64])",
        "Inst docker.io [1.0] (26.1.5+dfsg1-9 Debian:13.7/stable [amd64]) []",
        "Conf libc6 (2.41-12+deb13u4 Debian:13.7/stable [amd64])",
    ]
    assert mmdebstrap.parse_simulation(lines) == {"libc6": "2.41-12+deb13u4", "docker.io": "26.1.5+dfsg1-9"}


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("E: Failed to fetch http://m/InRelease  Could not connect to m", "mirror"),
        ("E: The repository 'http://m trixie Release' does not have a Release file.", "mirror"),
        ("dpkg: error: write: No space left on device", "disk filled up"),
        (
            "W: GPG error: The following signatures couldn't be verified: NO_PUBKEY 0E98404D386FA1D9",
            "signature",
        ),
        ("E: Unable to locate package nosuch", "package the recipe asks for"),
        ("E: unable to pick chroot mode automatically", "ordinary user"),
    ],
)
def test_a_known_cause_is_said_with_a_hint_and_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, what: str
) -> None:
    fake_mmdebstrap(tmp_path, monkeypatch, f'cat >/dev/null; echo "{said}" >&2; exit 25')
    log = tmp_path / "out" / "build.log"
    with pytest.raises(BlockedError, match=what) as caught:
        mmdebstrap.build(ROOT, archive=ARCHIVE, log=log)
    assert caught.value.hint
    assert caught.value.evidence == [str(log)]
    assert said in log.read_text()


def test_a_failing_hook_stays_a_command_error_with_the_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mmdebstrap(tmp_path, monkeypatch, "echo 'hook: no such thing' >&2; exit 25")
    with pytest.raises(CommandError) as caught:
        mmdebstrap.build(ROOT, archive=ARCHIVE, log=tmp_path / "log")
    assert "no such thing" in caught.value.tail


def test_hooks_run_from_a_copy_any_user_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "home" / "sources"
    (sources / "hooks").mkdir(parents=True)
    hook = sources / "hooks" / "10 system"
    hook.write_text('#!/bin/sh\ncat "$(dirname "$0")/../data"\n')
    (sources / "data").write_text("beside the hook")
    hook.chmod(0o700)
    (sources / "data").chmod(0o600)
    (tmp_path / "home").chmod(0o700)
    report = tmp_path / "report"
    fake_mmdebstrap(
        tmp_path,
        monkeypatch,
        f"""for word; do case $word in
            --customize-hook=download*) echo "$word" ;;
            --customize-hook=*) hook=${{word#*=}}; "$hook"; echo; stat -c %a "$hook" ;;
        esac; done >{report}; cat >>{report}""",
    )
    mmdebstrap.build(
        ROOT,
        archive=ARCHIVE,
        sources=sources,
        log=tmp_path / "log",
        downloads={"/out/disk": tmp_path / "a disk"},
    )
    data, mode, download, source = report.read_text().splitlines()
    assert (data, mode) == ("beside the hook", "755")
    assert download == f"--customize-hook=download /out/disk '{tmp_path}/a disk'"
    assert source == "deb http://mirror.example/debian trixie main"


def test_nothing_stays_of_a_build_that_died_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mmdebstrap(
        tmp_path, monkeypatch, 'mkdir -p "$TMPDIR/mmdebstrap.x/etc"; echo "root in $TMPDIR" >&2; kill -9 $$'
    )
    monkeypatch.setattr("lab.images.mmdebstrap.os.geteuid", lambda: 0)
    work = tmp_path / "work"
    with pytest.raises(CommandError) as caught:
        mmdebstrap.build(ROOT, archive=ARCHIVE, log=work / "build.log")
    assert f"root in {work}" in caught.value.tail
    assert [path.name for path in work.iterdir()] == ["build.log"]


def test_progress_counts_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mmdebstrap(
        tmp_path,
        monkeypatch,
        """cat >/dev/null; exec >&2
        echo 'I: installing remaining packages inside the chroot...'
        echo '0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.'
        echo 'Setting up a (1) ...'; echo 'noise'; echo 'Setting up b (1) ...'""",
    )
    seen: list[tuple[float, float | None, str]] = []
    mmdebstrap.build(
        ROOT,
        archive=ARCHIVE,
        log=tmp_path / "log",
        on_progress=lambda done, total, text: seen.append((done, total, text)),
    )
    assert seen[-1] == (2, 2, "installing remaining packages inside the chroot")
    assert len(seen) == 4
