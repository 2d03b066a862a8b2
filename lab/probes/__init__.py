"""Scripts that look at KVM from inside, and the shape of what they say; for the host and for L1."""
