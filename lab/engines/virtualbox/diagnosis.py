"""What a person should know about VirtualBox on this host, and whether it can start a 64-bit VM. All pure."""

from __future__ import annotations

from typing import Literal

from lab.core.versions import in_range
from lab.engines.options import ExecutionEngine
from lab.engines.protocol import Availability, EngineFinding
from lab.engines.virtualbox import issues
from lab.engines.virtualbox.host import HostVirtualBox, Installed

_INSTALL = {
    "linux": "install it from your distribution or from virtualbox.org, with its kernel module",
    "macos": "install it from virtualbox.org",
}
_LOAD = (
    "run `modprobe vboxdrv`; without such a module, build it: package virtualbox-dkms, or `/sbin/vboxconfig`"
)
_IN_CONTAINER = "in a container, hand in /dev/vboxdrv and /dev/vboxdrvu; else let udev make them"
_ACCESS = "use a VirtualBox with set-uid root programs, as packages install it, or join the group vboxusers"
_FIRST_FRAMEWORK = "7.0"
_FIRST_CLOSED = "7.0"
_FIRST_INTERPRETER = "7.1"

_RAN = {
    "hwvirt": "VirtualBox's own hypervisor",
    "native": "the system's hypervisor (NEM), which is not known to hand on nesting",
    "interpreter": "the interpreter: no processor ran the VM, and it is slow",
}


def findings(
    host: HostVirtualBox,
    installed: Installed | None,
    version: str,
    transport: str,
    log_engine: str,
    error: str = "",
) -> list[EngineFinding]:
    """lab.doctor's lines, the known issues last.

    `version` is the API's or the hint of `installed`; `transport` says over which one VirtualBox answered
    and why, empty when it did over none, and `error` then why not; `log_engine` is
    RunLog.engine of the last run, empty when there was none.
    """
    listed = []
    if installed:  # that it is not is what `can_start_64bit` says
        listed += [_version(installed, version), _api(transport, error)]
        listed.append(_loopback(host, version))
    listed += [_hypervisor(host, version), _cpu(host)]
    if host.system == "linux":
        listed.append(_kvm(host))
    if log_engine:
        ran = _RAN.get(log_engine, log_engine)
        listed.append(EngineFinding("last run", log_engine == "hwvirt", f"VBox.log: the VM ran under {ran}"))
    if installed:
        listed += [
            EngineFinding(issue.id, False, issue.what, issue.hint, issue.source)
            for issue in issues.matching(host, version)
        ]
    return listed


def caution(host: HostVirtualBox) -> str:
    """What a nested start can do to this host, to be agreed to once; empty when nothing is known."""
    if host.system != "linux" or not host.bare_metal:
        return ""
    return (
        "Starting a VM with nested virtualization has locked up or panicked whole Linux hosts "
        "(VirtualBox/virtualbox#30 and #712): unsaved work in every program on this machine can be lost."
    )


def can_start_64bit(
    host: HostVirtualBox, installed: Installed | None, execution_engine: ExecutionEngine = "default"
) -> Availability:
    """Whether a 64-bit VM can be started, as far as can be told without starting one."""
    if installed is None:
        return Availability(False, "VirtualBox is not installed", _INSTALL[host.system])
    if host.silicon:
        return Availability(False, "VirtualBox runs no x86 VM on Apple silicon", "use the qemu engine")
    if execution_engine == "interpreter":
        return _interpreter(installed)
    if host.system == "macos":
        return _on_macos(host, installed)
    return _on_linux(host)


def expected_engine(host: HostVirtualBox, version: str) -> Literal["hwvirt", "native"]:
    """What VirtualBox will run a VM with by default; only its log says what it used."""
    framework = host.system == "macos" and not _before(version, _FIRST_FRAMEWORK)
    return "native" if framework else "hwvirt"


def _interpreter(installed: Installed) -> Availability:
    if _before(installed.version_hint, _FIRST_INTERPRETER):
        return Availability(
            False,
            f"this is {installed.version_hint}; the interpreter can be chosen from {_FIRST_INTERPRETER} on",
            "upgrade VirtualBox, or use the execution engine `default`",
        )
    return Availability(
        True,
        "in VirtualBox's interpreter, which needs no driver and no hardware, and is slow: a boot sector's "
        "speed, not an operating system's",
        "use the execution engine `default` where the processor has vmx or svm",
    )


def _on_macos(host: HostVirtualBox, installed: Installed) -> Availability:
    framework = "hv_support" in host.extensions
    old = _before(installed.version_hint, _FIRST_FRAMEWORK)
    if old and not host.driver_device:
        return Availability(
            False,
            f"this is {installed.version_hint}, which needs its kernel extension, and that is not loaded",
            _extension_hint(host),
            broken=True,
        )
    if not old and not framework:
        return Availability(
            False,
            "this Mac does not offer Hypervisor.framework (kern.hv_support)",
            "in a virtual machine, switch nested virtualization on for it",
            broken=True,
        )
    return Availability(True, "on its own kernel extension" if old else "on Apple's Hypervisor.framework")


def _extension_hint(host: HostVirtualBox) -> str:
    allow = "allow it in System Settings, Privacy & Security, and restart"
    if issues.since_macos_13(host):
        return f"{allow}; where macOS does not load it even so, this version needs macOS 12 or older"
    return allow


def _on_linux(host: HostVirtualBox) -> Availability:
    if refused := _on_hardware(host):
        return refused
    if not host.driver_device:
        hint = _IN_CONTAINER if host.driver_loaded else _LOAD
        return Availability(False, _driver(host), hint)
    if not host.driver_usable:
        return Availability(False, _driver(host), _ACCESS)
    why = f"on {host.extensions[0]} by its driver vboxdrv"
    if host.five_level_paging:
        return Availability(
            True, f"{why}, though a VM is known to hang under 5-level paging", "boot the host with no5lvl"
        )
    if host.holders:
        when = "holds the extension" if host.kvm_at_load else "runs a guest meanwhile"
        return Availability(True, f"{why}, unless {' and '.join(host.holders)} {when}", _unload(host))
    return Availability(True, why)


def _on_hardware(host: HostVirtualBox) -> Availability | None:
    if host.extensions:
        return None
    return Availability(
        False,
        "the processor offers no vmx or svm",
        "switch VT-x or AMD-V on in the firmware, or in a virtual machine nested virtualization for it",
    )


def _version(installed: Installed, version: str) -> EngineFinding:
    shown = version or "a version it does not tell"
    return EngineFinding("version", bool(version), f"{shown} in {installed.folder}")


def _api(transport: str, error: str) -> EngineFinding:
    if transport:
        return EngineFinding("api", True, transport)
    return EngineFinding(
        "api",
        False,
        f"it does not answer{f': {error}' if error else ''}",
        "`VBoxManage list hostinfo` shows whether it answers anybody; then see virtualbox.transport",
    )


def _loopback(host: HostVirtualBox, version: str) -> EngineFinding:
    name = "host's loopback"
    if _before(version, _FIRST_CLOSED):
        stop = "stop what listens on 127.0.0.1 and is not for it"
        return EngineFinding(
            name,
            False,
            f"within the VM's reach at 10.0.2.2: NAT of {version} cannot be kept from it",
            # On a Mac 6.1 is what the theory is about, and a newer version answers another question.
            stop if host.system == "macos" else f"use VirtualBox {_FIRST_CLOSED} or newer, or {stop}",
        )
    return EngineFinding(name, True, "out of the VM's reach: NAT is told so")


def _hypervisor(host: HostVirtualBox, version: str) -> EngineFinding:
    if host.system == "macos" and not _before(version, _FIRST_FRAMEWORK):
        offered = "hv_support" in host.extensions
        return EngineFinding(
            "hypervisor", offered, f"Hypervisor.framework is {'offered' if offered else 'not offered'}"
        )
    if host.system == "macos":
        loaded = f"VirtualBox's kernel extension is {'' if host.driver_device else 'not '}loaded"
        return EngineFinding(
            "driver", host.driver_device, loaded, "" if host.driver_device else _extension_hint(host)
        )
    if host.driver_device and host.driver_usable:
        return EngineFinding("driver", True, _driver(host))
    hint = _ACCESS if host.driver_device else _IN_CONTAINER if host.driver_loaded else _LOAD
    return EngineFinding("driver", False, _driver(host), hint)


def _driver(host: HostVirtualBox) -> str:
    if host.driver_device:
        if host.driver_usable:
            return "/dev/vboxdrv is there"
        return "/dev/vboxdrv is there, and this user can open neither it nor /dev/vboxdrvu"
    if host.driver_loaded:
        return "the kernel module vboxdrv is loaded, and there is no /dev/vboxdrv"
    return "the kernel module vboxdrv is not loaded"


def _cpu(host: HostVirtualBox) -> EngineFinding:
    name = host.cpu_model or "the processor"
    extensions = [extension for extension in host.extensions if extension != "hv_support"]
    if host.silicon:
        return EngineFinding("cpu", False, f"{name}: Apple silicon, for x86 VMs of no use")
    inside = "" if host.bare_metal else ", itself in a virtual machine"
    return EngineFinding(
        "cpu", bool(extensions), f"{name}: {' and '.join(extensions) or 'no vmx or svm'}{inside}"
    )


def _kvm(host: HostVirtualBox) -> EngineFinding:
    if host.holders:
        observed = f"{' and '.join(host.holders)} loaded"
        if not host.kvm_at_load:
            return EngineFinding(
                "kvm modules", True, f"{observed}: it has the extension while a guest of it runs"
            )
        return EngineFinding("kvm modules", False, observed, _unload(host))
    others = " and ".join(host.kvm_modules)
    return EngineFinding("kvm modules", True, f"only {others} loaded" if others else "none loaded")


def _unload(host: HostVirtualBox) -> str:
    return f"unload it before a VM is started: `rmmod {' '.join(host.holders)}`"


def _before(version: str, bound: str) -> bool:
    """False for an unknown version."""
    return in_range(version, "", bound)
