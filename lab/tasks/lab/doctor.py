"""lab.doctor: what this host can do, what is missing, and what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from lab import engines
from lab.core.errors import ExitCode, LabError
from lab.core.web import shown
from lab.documents.host import DoctorCheck, DoctorEngine, DoctorPackage, LabDoctor
from lab.host import facts as host_facts
from lab.host import packages
from lab.images import cache, canary
from lab.workflow import mirror, preflight
from lab.workflow.session import Reply, Session

_GIB = 2**30
_WANTED_FREE = 8 * _GIB


def doctor(session: Session, deep: bool = False) -> Reply:
    """Exit 0 when some engine can start a VM here, 11 when none can."""
    settings = session.settings
    host = session.factories.host()
    with session.steps.step("doctor.kvm", "does a kernel really run under this host's KVM?"):
        answer = session.factories.kvm(settings.cache_dir, deep, session.kernel, settings.qemu.binary)
    rows = [_engine(session, name) for name in engines.names()]
    result = LabDoctor(
        host=host.as_dict(),
        engines=rows,
        packages=[_package(item) for item in packages.TABLE if _can_be_had(item)],
        kvm=answer,
        checks=[*_resources(session, host), _mirror(session), *(_images(session) if deep else [])],
    )
    usable = any(row.usable for row in rows)
    return Reply.of(result, *_lines(result), code=ExitCode.DONE if usable else ExitCode.BLOCKED)


def _engine(session: Session, name: str) -> DoctorEngine:
    try:
        engine = session.engine(name)
    except LabError as error:  # of another package, and broken
        return DoctorEngine(name=name, usable=False, why=error.what, hint=error.hint, facts=None, findings=[])
    # One that may not be read hides no other.
    folders = [lab.vm_folder for lab in session.store.labs() if os.access(lab.vm_folder, os.R_OK | os.X_OK)]
    availability = engine.availability()
    return DoctorEngine(
        name=name,
        usable=availability.usable,
        why=availability.why,
        hint=availability.hint,
        facts=engine.facts() if availability.usable else None,
        findings=engine.findings(folders),
    )


def _can_be_had(item: packages.Requirement) -> bool:
    """Whether it is here, or this system has a package of it: what a Mac cannot have is no lack."""
    return packages.Installer.detect().package(item) is not None or not item.absent({})


def _package(item: packages.Requirement) -> DoctorPackage:
    return DoctorPackage(
        program=", ".join([*item.programs, *(str(path) for path in item.files)]),
        package=packages.Installer.detect().package(item),
        present=not item.absent({}),
        needed_for=", ".join(sorted(item.needed_for)),
    )


def _resources(session: Session, host: host_facts.HostFacts) -> list[DoctorCheck]:
    settings = session.settings
    wanted = settings.vm.memory_mib * 2**20
    enough = host.memory_available >= wanted
    has = f"{host.memory_available / _GIB:.1f} GiB available"
    if host.mac:
        enough = host.memory_total >= wanted + preflight.MAC_KEEPS_BYTES
        has = f"{host.memory_total / _GIB:.1f} GiB"
    what = f"{has}, the VM takes {wanted / _GIB:.1f}"
    checks = [_check("memory", enough, what, "close something, or set vm.memory_mib lower")]
    for key, folder in (("state_dir", settings.state_dir), ("cache_dir", settings.cache_dir)):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        checks.append(
            _check(
                key,
                free >= _WANTED_FREE,
                f"{free / _GIB:.1f} GiB free for {folder}",
                f"free some space, or set {key} to another place",
            )
        )
    return checks


def _mirror(session: Session) -> DoctorCheck:
    """Where the canary would be built from, if it had to be."""
    used = mirror.known(session)
    if used is not None:
        return _check("debian archive", True, f"{shown(used.address)}, from {used.origin}", "")
    here = canary.find(session.images) is not None
    observed = "none is known" + (", and the canary is here already" if here else "")
    return _check("debian archive", here, observed, mirror.HINT)


def _images(session: Session) -> list[DoctorCheck]:
    checks = []
    for entry in cache.entries(session.images):
        with session.steps.step("image.verify", entry.id):
            try:
                cache.verify(entry)
                checks.append(_check(f"image {entry.id}", True, "its hash is as recorded", ""))
            except LabError as error:
                checks.append(_check(f"image {entry.id}", False, error.what, error.hint))
    return checks


def _check(name: str, good: bool, observed: str, hint: str) -> DoctorCheck:
    return DoctorCheck(
        name=name, status="ok" if good else "warn", observed=observed, hint="" if good else hint
    )


def _lines(result: LabDoctor) -> Iterator[str]:
    def marked(good: bool, text: str, hint: str = "") -> Iterator[str]:
        yield f"{'✓' if good else '✗'} {text}"
        if hint and not good:
            yield f"    hint: {hint}"

    host = result.host
    cpu = host["cpu"]
    system = f"{host['os']} {host['os_version']}".rstrip()
    memory = f"{host['memory_total'] / _GIB:.0f} GiB"
    yield f"{system}, kernel {host['kernel']}, {host['cpus']} CPUs ({cpu['model']}), {memory}"
    extensions = ", ".join(cpu["extensions"])
    yield from marked(bool(extensions), f"virtualization extensions: {extensions or 'none'}")
    if host["mac"] is None and result.kvm:  # KVM is Linux's
        yield from marked(result.kvm.usable, f"hardware KVM: {result.kvm.why}")
    for engine in result.engines:
        how = engine.facts.how if engine.facts else engine.why
        version = f" {engine.facts.version}" if engine.facts else ""
        yield from marked(engine.usable, f"engine {engine.name}{version}: {how}", engine.hint)
        for finding in engine.findings:
            source = f" [{finding.source}]" if finding.source else ""
            yield from marked(finding.good, f"  {finding.name}: {finding.observed}{source}", finding.hint)
    absent = [item for item in result.packages if not item.present]
    for item in absent:
        yield from marked(False, f"{item.program} ({item.needed_for})", f"package {item.package}")
    if not absent:
        yield from marked(True, "every program lab needs is installed")
    for check in result.checks:
        yield from marked(check.status == "ok", f"{check.name}: {check.observed}", check.hint)
