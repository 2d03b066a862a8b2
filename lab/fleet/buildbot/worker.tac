# Made by lab (fleet.join), which writes it anew.
import json
import os
from pathlib import Path

from buildbot_worker.bot import Worker
from twisted.application import service

HERE = Path(__file__).resolve().parent
PLACE = json.loads((HERE / "host.json").read_text())
os.umask(0o077)
application = service.Application("buildbot-worker")
Worker(
    "127.0.0.1", PLACE["port"], PLACE["name"], (HERE / "password").read_text().strip(), str(HERE / "work"),
    PLACE["keepalive_seconds"], maxdelay=PLACE["keepalive_seconds"], allow_shutdown=None,
    delete_leftover_dirs=True,
).setServiceParent(application)
