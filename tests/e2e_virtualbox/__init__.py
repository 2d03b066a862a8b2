"""Test tier `e2e-virtualbox`: real VirtualBox, with its kernel driver, on an emulated host."""

from pathlib import Path

RECIPE = Path(__file__).with_name("host")
"""The emulated host's image, in the manner of images/guest/debian-13."""
