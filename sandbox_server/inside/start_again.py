"""Starts a fork server's interpreter a second time, as one that knows nothing of its server.

The command line of the first says where the package lies and who started it; a program could read
that in its own memory, for good. The second gets the sources of this package and the set-up by a
memory file. Its modules have names and no paths, so no traceback, frame or loader has one either.
"""

import json
import os
import pathlib
import resource
import sys
from typing import NoReturn

from sandbox_server.inside import linux, python_files

_STACK_BYTES = 4 << 20
_BOOT = """
import importlib.util, json, os, sys
os.environ.pop("PYTHONHOME", None)
class BuiltIn:
    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            is_package = name in ("sandbox_server", "sandbox_server.inside")
            return importlib.util.spec_from_loader(name, self, is_package=is_package)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        source = self.sources.pop(module.__name__)
        exec(compile(source, f"<{module.__name__}>", "exec"), module.__dict__)
with open(int(sys.argv.pop()), encoding="utf-8") as file:
    setup = json.load(file)
sys.meta_path.insert(0, BuiltIn())
BuiltIn.sources = setup.pop("sources")
from sandbox_server.inside import zygote
del sys.meta_path[0], file
sys.exit(zygote.start(**setup))
"""


def _sources() -> dict[str, str]:
    inside = pathlib.Path(__file__).parent
    files = {f"sandbox_server.inside.{path.stem}": path for path in inside.glob("*.py")}
    files["sandbox_server.inside"] = files.pop("sandbox_server.inside.__init__")
    files["sandbox_server"] = inside.parent / "__init__.py"
    return {name: path.read_text("utf-8") for name, path in files.items()}


def start_again(home: str | None, **setup: object) -> NoReturn:
    """Runs `zygote.start(**setup)` in a fresh interpreter in place of this one.

    With `home` it takes its library from there by way of its working directory, for good.
    """
    environment = dict(os.environ)
    if home is not None:
        os.chdir(home)
        environment["PYTHONHOME"] = python_files.AT_WORKING_DIRECTORY
    # So that `print(object())` is the same in each run. Containers may refuse: no harm.
    persona = linux.LIBC.personality(0xFFFFFFFF)
    linux.LIBC.personality(persona | linux.ADDR_NO_RANDOMIZE)
    # glibc takes the size of thread stacks from the limit at this exec.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, hard))
    fd = os.memfd_create("setup", 0)  # the next interpreter reads and closes it
    with open(fd, "w", encoding="utf-8", closefd=False) as file:
        json.dump(setup | {"sources": _sources()}, file)
    os.lseek(fd, 0, os.SEEK_SET)
    os.execve(
        sys.executable,
        [sys.executable, "-s", "-P", "-B", "-c", _BOOT, str(fd)],
        environment,
    )
