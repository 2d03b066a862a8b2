#!/usr/bin/python3
"""The container's screen: a framebuffer in a file, which x11vnc shows.

It stands where Xvfb, a window manager and the emulator's window are in docker-android: one colour, and the
emulator's own screen in its middle for as long as there is an emulator. Arguments are Xvfb's.
"""

# Pathlib is slow to load on an emulated processor; /tmp is the container's own.
# ruff: noqa: PTH104, PTH123, S108

import json
import mmap
import os
import socket
import sys
import time

FILE = "/tmp/.screen"
MONITOR = "/tmp/emulator.qmp"
SHOT = "/tmp/.emulator.ppm"
DESKTOP = bytes((0x60, 0x40, 0x30, 0))
SECONDS = 2.0
"""Between two looks: each costs an emulated processor a tenth of a second."""


class Monitor:
    """QEMU's monitor (QMP), for screendump. Raises OSError when QEMU is not there any more."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(MONITOR)
        self.stream = self.socket.makefile("rwb")
        self.stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: str) -> bool:
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self.stream.flush()
        while line := self.stream.readline():
            answer = json.loads(line)
            if "event" not in answer:
                return "return" in answer
        raise ConnectionError("QEMU closed its monitor")

    def close(self) -> None:
        self.socket.close()


def main() -> None:
    width, height = (int(word) for word in sys.argv[-1].split("x")[:2])
    size = width * height * 4
    with open(f"{FILE}.new", "wb+") as file:
        file.truncate(size)
        pixels = mmap.mmap(file.fileno(), size)
    pixels[:] = DESKTOP * (width * height)
    os.rename(f"{FILE}.new", FILE)
    monitor: Monitor | None = None
    while True:
        try:
            monitor = monitor or Monitor()
            if monitor.execute("screendump", filename=SHOT):
                paint(pixels, width, height)
        except OSError:
            if monitor:
                monitor.close()
                pixels[:] = DESKTOP * (width * height)
            monitor = None
        time.sleep(SECONDS)


def paint(pixels: mmap.mmap, width: int, height: int) -> None:
    """Copy the emulator's screen (a PPM) into the middle of ours."""
    with open(SHOT, "rb") as file:
        kind, size, _, rest = file.read().split(b"\n", 3)
    columns, rows = (int(word) for word in size.split())
    if kind != b"P6" or columns > width or rows > height:
        return
    window = bytearray(4 * columns * rows)
    for colour in range(3):
        window[2 - colour :: 4] = rest[colour::3]
    left, top = (width - columns) // 2, (height - rows) // 2
    for row in range(rows):
        at = ((top + row) * width + left) * 4
        pixels[at : at + columns * 4] = window[row * columns * 4 : (row + 1) * columns * 4]


if __name__ == "__main__":
    main()
