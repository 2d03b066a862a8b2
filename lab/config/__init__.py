"""Settings, where each comes from, and the names users give."""

from lab.config.loading import effective, load
from lab.config.model import Address, Settings
from lab.config.names import check_name, check_snapshot_name

__all__ = ["Address", "Settings", "check_name", "check_snapshot_name", "effective", "load"]
