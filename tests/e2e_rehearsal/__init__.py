"""Test tier `e2e-rehearsal`: the whole chain on real VirtualBox with nested VT-x, on an emulated Intel PC."""
