"""Test tier `e2e-nightly`: nights and the experiment, each of several VMs one after the other."""
