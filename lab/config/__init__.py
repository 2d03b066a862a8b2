"""Settings, where each comes from, and the names users give."""

from lab.config.loading import Row, effective, load
from lab.config.model import Address, Settings
from lab.config.names import check_instance_name, check_name, check_snapshot_name

__all__ = [
    "Address",
    "Row",
    "Settings",
    "check_instance_name",
    "check_name",
    "check_snapshot_name",
    "effective",
    "load",
]
