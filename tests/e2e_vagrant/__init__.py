"""Test tier `e2e-vagrant`: real Vagrant, its libvirt provider and libvirt, down to the nested guest."""
