"""An emulated PC: a whole x86 machine in software, with the processor of one's choice.

It needs no virtualization of the host, and brings Intel's VT-x or AMD-V all the same (docs/rehearsal.md).
"""
