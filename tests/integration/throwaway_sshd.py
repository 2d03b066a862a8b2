"""An sshd on the loopback whose machine is thrown away: what a login does to users and files is undone.

It runs in a mount namespace with copies of /etc, /home and what else useradd writes to. Only root can.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SETUP = """\
set -eu
folder=$1 sshd=$2 over=$1/over
for place in /etc /home /root /var/mail /var/log /usr/local/bin; do
    mkdir -p "$over$place"
done
cp -a /etc/. "$over/etc/"
mkdir -p "$over/etc/sudoers.d"
cat >"$over/usr/local/bin/sudo" <<END
#!/bin/sh
while [ "\\${1#-}" != "\\$1" ]; do [ "\\$1" != -p ] || shift; shift; done
exec "\\$@"
END
chmod 0755 "$over/usr/local/bin/sudo"
for place in /etc /home /root /var/mail /var/log /usr/local/bin; do
    mount --bind "$over$place" "$place"
done
mkdir -p /run/sshd
exec "$sshd" -D -e -f "$folder/config"
"""


@dataclass(frozen=True)
class Machine:
    """`over` holds the machine's own /etc and /home; `key` opens its root."""

    port: int
    key: Path
    over: Path
    host_key: str


def program() -> str | None:
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def running(folder: Path, kind: str = "ed25519") -> Iterator[Machine]:
    """`kind` is that of root's key: Vagrant's own are RSA in its older versions."""
    key, host = folder / "root-key", folder / "host-key"
    for path, what in ((key, kind), (host, "ed25519")):
        format_ = ["-m", "PEM"] if what == "rsa" else []
        subprocess.run(["ssh-keygen", "-q", "-t", what, *format_, "-N", "", "-f", path], check=True)
    shutil.copy(f"{key}.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        f"AuthorizedKeysFile .ssh/authorized_keys\n"
        f"Match User root\n  AuthorizedKeysFile {folder / 'authorized'}\n"
    )
    sshd = program()
    assert sshd
    with (folder / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", _SETUP, "setup", folder, sshd],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Machine(port, key, folder / "over", Path(f"{host}.pub").read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
