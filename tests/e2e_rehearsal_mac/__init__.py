"""Test tier `e2e-rehearsal-mac`: a Mac's whole road, on real VirtualBox with nested VT-x in an emulated Intel PC."""
