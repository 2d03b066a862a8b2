"""Run by the PC's own Python, on the machine that builds: compiles the modules named and all that they load.

    python3 modules.py ROOT NAME…

Prints the path of each file that the PC needs, as it is below ROOT.
"""

import importlib
import py_compile
import sys


def main(root: str, *names: str) -> None:
    for name in names:
        importlib.import_module(name)
    loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
    for path in sorted(path for path in loaded if path and path.startswith(f"{root}/usr/")):
        print(_compiled(root, path) if path.endswith(".py") else path)


def _compiled(root: str, path: str) -> str:
    place = path.removeprefix(root)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    return str(py_compile.compile(path, f"{path}c", place, doraise=True, invalidation_mode=mode))


main(*sys.argv[1:])
