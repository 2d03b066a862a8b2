"""The tiny guests of the functional KVM probe: parts of scripts/kvm_probe.py, which runs as one text.

Old Pythons run them (lab.guest.python.OLDEST), so they are written as for those.
"""
