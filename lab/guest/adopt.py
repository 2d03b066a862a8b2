"""A VM somebody else made becomes one that lab may log in to: its host key, lab's user, lab's key."""

from __future__ import annotations

from pathlib import Path

from lab.deadline import Deadline
from lab.engines.protocol import LOOPBACK
from lab.errors import DeadlineError
from lab.guest import login, seed
from lab.guest.keys import KeyPair
from lab.guest.login import AuthRefusedError, UnreachableError
from lab.guest.ssh import Guest

_ADMIT = """
set -eu
user=$1 key=$2
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --password "*" "$user"
for group in adm kvm systemd-journal; do
    ! getent group "$group" >/dev/null || usermod --append --groups "$group" "$user"
done
printf '%s ALL=(ALL) NOPASSWD:ALL\\n' "$user" >"/etc/sudoers.d/$user"
chmod 0440 "/etc/sudoers.d/$user"
home=$(getent passwd "$user" | cut -d : -f 6)
install -d -m 0700 -o "$user" "$home/.ssh"
touch "$home/.ssh/authorized_keys"
grep -qxF "$key" "$home/.ssh/authorized_keys" || printf '%s\\n' "$key" >>"$home/.ssh/authorized_keys"
chown "$user" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
"""


def host_key(port: int, deadline: Deadline) -> str:
    """The host key an SSH server on the loopback shows, as `kind base64`: to be pinned on first contact.

    Raises UnreachableError, DeadlineError.
    """
    import paramiko

    try:
        with login.dial(LOOPBACK, port, deadline) as sock, paramiko.Transport(sock) as transport:
            transport.banner_timeout = login.LOGIN_SECONDS
            transport.start_client(timeout=max(1.0, deadline.within(login.LOGIN_SECONDS).left))
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
    except login.transport_errors() as error:
        if deadline.passed:
            raise DeadlineError(f"the SSH server on {LOOPBACK}:{port} showed no key in time") from error
        raise UnreachableError(f"{LOOPBACK}:{port} shows no SSH host key: {error}") from error


def admit(port: int, user: str, key: Path, known_hosts: Path, own: KeyPair, as_user: str = seed.USER) -> str:
    """Let lab in as its own user with its own key, through `user` and `key`; in words, what was done.

    `user` may use sudo without a password. Raises HostKeyError, AuthRefusedError, UnreachableError,
    CommandError.
    """
    with Guest(port=port, user=as_user, key=own.private, known_hosts=known_hosts) as guest:
        try:
            guest.open()
            return "lab's key is known there"
        except AuthRefusedError:
            pass
    with Guest(port=port, user=user, key=key, known_hosts=known_hosts) as guest:
        guest.run(["sh", "-c", _ADMIT, "admit", as_user, own.public_line], sudo=True)
    return f"lab's user {as_user} and its key were put there"
