"""A VM somebody else made becomes one that lab may log in to: its host key, lab's user, lab's key."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import CommandError, DeadlineError, InterruptedByUser, LabError, UsageError
from lab.core.proc import tail
from lab.engines.protocol import LOOPBACK
from lab.guest import login, python, seed
from lab.guest.keys import KeyPair
from lab.guest.login import AuthRefusedError, HostKeyError, UnreachableError
from lab.guest.ssh import Guest

MARKER = "made by lab.attach"
"""The comment of an account that lab made in somebody else's VM: one without it is not lab's to use."""

_REFUSED = 99
"""The script's status for that; useradd's own are below 20."""

_ADMIT = """
set -eu
user=$1 key=$2 marker=$3 refused=$4
refuse() { printf '%s\\n' "$1"; exit "$refused"; }
if account=$(getent passwd "$user"); then
    [ "$(printf '%s' "$account" | cut -d : -f 5)" = "$marker" ] || refuse "the account $user"
else
    # Who had that name before may have left keys and rights behind.
    for place in "/home/$user" "/etc/sudoers.d/$user"; do
        [ ! -e "$place" ] || refuse "$place"
    done
    useradd --create-home --shell /bin/bash --password "*" --comment "$marker" "$user"
fi
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

    Raises UnreachableError, DeadlineError, InterruptedByUser.
    """
    from lab.guest import connection  # paramiko takes a while to load

    try:
        with login.dial(LOOPBACK, port, deadline) as sock, connection.bounded_transport(sock) as transport:
            transport.banner_timeout = login.LOGIN_SECONDS
            met, until = threading.Event(), deadline.within(login.LOGIN_SECONDS)
            transport.start_client(met)
            while not met.wait(0.1) and transport.is_active():
                check_cancelled()
                if until.passed:
                    raise DeadlineError(f"the SSH server on {LOOPBACK}:{port} showed no key in time")
            if error := transport.get_exception():
                raise error
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
    except login.transport_errors() as error:
        if deadline.passed:
            raise DeadlineError(f"the SSH server on {LOOPBACK}:{port} showed no key in time") from error
        raise UnreachableError(f"{LOOPBACK}:{port} shows no SSH host key: {error}") from error


def admit(
    port: int, user: str, ways: Sequence[Path], known_hosts: Path, own: KeyPair, as_user: str = seed.USER
) -> str:
    """Let lab in as its own user with its own key, through `user` and one of the keys in `ways`.

    In words, what was done. `user` may use sudo without a password. Raises UsageError (an account of lab's
    name is somebody else's, or there is no Python for lab's scripts: nothing was changed), HostKeyError,
    AuthRefusedError, LockedKeyError, UnreachableError, CommandError.
    """
    with Guest(port=port, user=as_user, key=own.private, known_hosts=known_hosts) as guest:
        try:
            guest.open()
        except AuthRefusedError:
            pass
        else:
            python.require(guest)
            return "lab's key is known there"
    with _entered(port, user, ways, known_hosts) as guest:
        python.require(guest)
        words = ["sh", "-c", _ADMIT, "admit", as_user, own.public_line(), MARKER, str(_REFUSED)]
        done = guest.run(words, sudo=True, check=False)
    if done.status == _REFUSED:
        raise UsageError(
            f"the machine has {done.out.strip()} already, and lab did not make it",
            hint=f"lab logs in as a user of its own, {as_user}: rename or remove what has that name there",
        )
    if done.status != 0:
        raise CommandError(words, done.status, tail=tail(done.out + "\n" + done.err))
    return f"lab's user {as_user} and its key were put there"


def _entered(port: int, user: str, ways: Sequence[Path], known_hosts: Path) -> Guest:
    """Logged in with the first of the keys that is let in. Raises why the first was not, if none is."""
    refusals: list[LabError] = []
    for key in ways:
        guest = Guest(port=port, user=user, key=key, known_hosts=known_hosts)
        try:
            guest.open()
            return guest
        except (HostKeyError, UnreachableError, DeadlineError, InterruptedByUser):
            guest.close()
            raise
        except LabError as error:  # refused, or not to be used
            guest.close()
            refusals.append(error)
    first = refusals[0]
    first.tail = "\n".join([*([first.tail] if first.tail else []), *(error.what for error in refusals[1:])])
    raise first
