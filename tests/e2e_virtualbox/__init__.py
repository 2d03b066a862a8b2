"""Test tier `e2e-virtualbox`: real VirtualBox, with its kernel driver, on an emulated PC with AMD-V."""
