"""VirtualBox over VBoxManage: for a host whose Python cannot load VirtualBox's bindings.

On macOS 6.1 and 7.0 brought bindings for Python 2 alone (src/libs/xpcom18a4/python/Makefile.kmk of 7.0.14).
"""

from lab.engines.virtualbox.manage.transport import Manage

__all__ = ["Manage"]
