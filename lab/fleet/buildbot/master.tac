# Made by lab (fleet.up), which writes it anew.
import os
from pathlib import Path

from buildbot.master import BuildMaster
from twisted.application import service

HERE = str(Path(__file__).resolve().parent)
os.umask(0o077)
application = service.Application('buildmaster')  # read by Buildbot as it stands
BuildMaster(HERE, "master.cfg").setServiceParent(application)
