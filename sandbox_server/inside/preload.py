"""Makes the fork server warm: imports and first calls.

Knows nothing of isolation. Runs once, before the first child exists.
"""

import _socket
import atexit
import errno
import importlib
import importlib.metadata
import os
import posix
import posixpath
import socket
import sys
import types

from sandbox_server.inside import python_files, runner

MODULES = (
    "asyncio", "bisect", "cmath", "collections", "concurrent.futures", "copy", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "heapq",
    "itertools", "json", "math", "operator", "pprint", "queue", "re", "statistics", "string",
    "textwrap", "time", "typing", "uuid", "numpy", "numpy.linalg", "numpy.fft",
    "numpy.polynomial", "scipy", "scipy.optimize", "scipy.integrate", "scipy.linalg",
    "scipy.stats", "scipy.special", "sympy", "sympy.ntheory", "sympy.combinatorics",
    "sympy.geometry", "sympy.stats", "sympy.solvers.diophantine",
)  # fmt: skip

# First calls import lazily and fill caches: a cold sympy.solve costs 32 ms, a warm one 7.
WARM_UP = (
    "import sympy as sp\nx, y = sp.symbols('x y')\nsp.solve(x**2 - 5*x + 6, x)",
    "sp.solve([x + y - 3, x - y - 1], [x, y])",
    "sp.integrate(x**2 * sp.sin(x), x)",
    "sp.simplify(sp.sin(x)**2 + sp.cos(x)**2); sp.factor(x**3 - 1); sp.expand((x + y)**4)",
    "sp.nsolve(sp.cos(x) - x, x, 1); sp.limit(sp.sin(x)/x, x, 0); sp.series(sp.exp(x), x, 0, 4)",
    "sp.factorint(360360); sp.isprime(10**9 + 7); sp.Matrix([[1, 2], [3, 4]]).inv()",
    "sp.diff(sp.exp(x**2), x); sp.Rational(3, 4) + sp.sqrt(8); sp.latex(x**2 / y)",
    "sp.summation(x, (x, 1, 10)); sp.sympify('2*x + 1').subs(x, 3)",
    "import numpy as np\nnp.linalg.solve(np.eye(3) * 2.0, np.ones(3)).round(3)",
    "np.linalg.eigvals(np.array([[1.0, 2.0], [3.0, 4.0]])); np.roots([1, -3, 2])",
    "np.random.default_rng(0).normal(size=4).mean()",
    "from scipy import optimize, integrate\noptimize.brentq(lambda t: t**2 - 2, 0, 2)",
    "from scipy import integrate\nintegrate.quad(lambda t: t**2, 0, 1)",
    "from scipy import optimize\noptimize.minimize(lambda v: (v**2).sum(), [1.0, 2.0])",
    "import itertools, collections, fractions, decimal\nfractions.Fraction(1, 3) + 1",
    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(10))\n[i for i in range(9)]",
    "class A:\n    pass\nraise ValueError('é')",
    "def broken(:",
    "import no_such_module",
    "1 / 0",
)


_EDITABLE = "__editable__"
# Python specialises code after some calls, and writes to it until then.
_ROUNDS = 4


def _is_editable(finder: object) -> bool:
    return finder.__module__.startswith(_EDITABLE)


def prune_import_path(readable: tuple[str, ...]) -> None:
    """Keeps the import path entries that an execution may read, and no zip of another place."""
    kept = []
    for path in filter(None, sys.path):
        real = os.path.realpath(path)
        if any(real == r or real.startswith(r + "/") for r in readable):
            kept.append(path if path.startswith(python_files.AT_WORKING_DIRECTORY) else real)
    sys.path[:] = kept
    sys.path_importer_cache.clear()
    sys.argv[:] = [""]
    # Finders of packages that are installed as links to a checkout: they know where that lies.
    for name in [name for name in sys.modules if name.startswith(_EDITABLE)]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if not _is_editable(one)]
    sys.path_hooks[:] = [one for one in sys.path_hooks if not _is_editable(one)]


def _stay(path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | int) -> None:
    """`os.chdir` where the filter refuses it."""
    if isinstance(path, int) or os.path.abspath(os.fsdecode(path)) != "/":
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)


def answer_for_refused_calls() -> None:
    """Python's own answers where the filter of a tier without a root of its own refuses the kernel's.

    The host is called "sandbox", the working directory is "/" and stays so, and a path with a link
    in it is left as it is.
    """
    true = os.uname()
    names = os.uname_result((true.sysname, "sandbox", true.release, true.version, true.machine))
    posix.uname = os.uname = lambda: names
    _socket.gethostname = socket.gethostname = lambda: "sandbox"
    posix.chdir = os.chdir = _stay
    posix.getcwd = os.getcwd = lambda: "/"
    posix.getcwdb = os.getcwdb = lambda: b"/"
    if sys.version_info >= (3, 13):  # realpath passes over links that it cannot read
        return
    join = posixpath._joinrealpath  # pyright: ignore[reportAttributeAccessIssue]

    def joined(path: str, rest: str, strict: bool, seen: dict) -> tuple[str, bool]:
        try:
            return join(path, rest, strict, seen)
        except PermissionError:
            if strict:
                raise
            return posixpath.join(path, rest), True

    posixpath._joinrealpath = joined  # pyright: ignore[reportAttributeAccessIssue]


def _is_heavy(text: str) -> bool:
    return "scipy" in text or text == "sympy.stats"


def warm_up(with_scipy: bool) -> dict[str, str]:
    """Imports and runs the set above, without what needs scipy if so asked. Package versions.

    scipy brings 120 shared libraries: mapping and unmapping them costs each fork 1.6 ms.
    """
    for name in MODULES:
        if with_scipy or not _is_heavy(name):
            importlib.import_module(name)
    import numpy

    with open(os.devnull, "w", encoding="utf-8") as null:
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = null
        module = runner.make_module()
        for source in WARM_UP * _ROUNDS:
            if not with_scipy and _is_heavy(source):
                continue
            runner.run(source, module, "<code>", True)
        sys.stdout, sys.stderr = streams
    runner.make_module()
    runner.seed_generators(0)
    numpy.random.seed(0)
    atexit._clear()
    return {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "sympy")}


def rehearse() -> None:
    """Touches in a waiting child the pages that every program touches."""
    main = sys.modules["__main__"]
    module = types.ModuleType("__main__")
    runner.run("x = 1\nfor i in range(3):\n    x += i\nstr(x)", module, "<code>", True)
    sys.modules["__main__"] = main
