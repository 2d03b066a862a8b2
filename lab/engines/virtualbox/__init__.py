"""VirtualBox 6.1 to 7.2, the engine the theory is about, through its API and not its command line.

`engine.py` and `machine.py` are the protocol; `client.py` talks to `worker/`, the process that holds
VirtualBox's bindings. Nothing is imported here: the worker may run under a Python without lab's libraries.
"""
