"""The process that holds VirtualBox's bindings: JSON lines in and out, one thread, nothing of lab's state.

It imports the standard library, `virtualbox` (pyvbox) and `vboxapi`, no more: it may run under another
Python than lab's, the one that VirtualBox's bindings fit. What it does is in the modules beside this
one, an operation a function; `lab.engines.virtualbox.client` is the other end.
"""
