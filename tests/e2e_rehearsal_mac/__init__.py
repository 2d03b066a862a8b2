"""Test tier `e2e-rehearsal-mac`: a Mac's whole road, on real VirtualBox in an emulated Intel PC."""
