"""Stands where Docker's proxy is: takes connections on inherited sockets, and makes them in this namespace.

nsenter --target=PID --net python published.py FD:ADDRESS:PORT …
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

_BLOCK = 1 << 16


def main() -> None:
    threads = []
    for word in sys.argv[1:]:
        number, address, port = word.split(":")
        listener = socket.socket(fileno=int(number))
        threads.append(threading.Thread(target=_serve, args=(listener, address, int(port))))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _serve(listener: socket.socket, address: str, port: int) -> None:
    while True:
        here, _ = listener.accept()
        try:
            there = socket.create_connection((address, port), timeout=10)
        except OSError:
            here.close()
            continue
        there.settimeout(None)
        for one, other in ((here, there), (there, here)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(_BLOCK):
            sink.sendall(block)
    # Both ways: a peer that has gone is gone for its partner too.
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
