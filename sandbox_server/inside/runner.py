"""Runs one program in this process and says how it ended. No isolation here.

The value of a last expression is taken by AST. Tracebacks keep the user's frames only. All it
reports is untrusted: the program shares this process and can forge every word.
"""

import ast
import atexit
import base64
import contextlib
import gc
import io
import linecache
import os
import random
import stat
import sys
import threading
import traceback
import types
from collections.abc import Callable, Sequence

import numpy as np

TRACEBACK_FRAMES = 8
_USER_FILES = ("<code", "<string>", "<stdin>", "/tmp/")
# Python may itself be installed below /tmp. The code of this package has no path (start_again.py).
_OUR_FILES = (sys.prefix + "/", sys.base_prefix + "/")
_CHARS_CUT = 200
FETCH_BYTES = 768 << 10  # of all files together that a run gives back: an answer stays below 4 MiB
_FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


class _Pipe(io.FileIO):
    """Descriptor 1 or 2. It is /dev/null when the stream is made and a pipe when a program runs.

    /dev/null can be sought and a pipe cannot; a stream asks once and would believe it for good.
    """

    def seekable(self) -> bool:
        return False


def open_streams() -> None:
    """Standard streams over descriptors 0-2, made once in the fork server and inherited."""
    stdin = io.FileIO(0, "r", closefd=False)
    stdin.name = "<stdin>"
    sys.stdin = io.TextIOWrapper(io.BufferedReader(stdin), encoding="utf-8")
    for fd, name in ((1, "stdout"), (2, "stderr")):
        raw = _Pipe(fd, "w", closefd=False)
        raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        stream.mode = "w"  # pyright: ignore[reportAttributeAccessIssue] (as Python's own start does)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.__stdin__ = sys.stdin  # pyright: ignore[reportAttributeAccessIssue]


def seed_generators(seed: int) -> None:
    """Seeds `random`, and numpy's global generator where it differs from the inherited seed 0."""
    random.seed(seed)
    if seed:
        np.random.seed(np.random.SeedSequence(seed).generate_state(4))


def make_module() -> types.ModuleType:
    """A fresh `__main__` for one program or session."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    return module


def _split(source: str, filename: str, echo: bool) -> tuple[types.CodeType, types.CodeType | None]:
    tree = ast.parse(source, filename)
    last = None
    if echo and tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = tree.body.pop()
        assert isinstance(expression, ast.Expr)
        last = compile(ast.Expression(expression.value), filename, "eval", dont_inherit=True)
    return compile(tree, filename, "exec", dont_inherit=True), last


def _user_frames(error: traceback.TracebackException) -> None:
    """Drops frames of libraries and of this runner, also in chained exceptions."""
    pending, seen = [error], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        frames = [frame for frame in one.stack if _is_users(frame.filename)]
        one.stack = traceback.StackSummary.from_list(frames[-TRACEBACK_FRAMES:])
        pending += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
        pending += getattr(one, "exceptions", None) or []


def _is_users(filename: str) -> bool:
    return filename.startswith(_USER_FILES) and not filename.startswith(_OUR_FILES)


def _describe(error: BaseException) -> tuple[str, int]:
    """Trimmed traceback and the line of the innermost frame of the program itself."""
    detail = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    line = 0
    for frame in detail.stack:
        if frame.filename.startswith("<code") and frame.lineno:
            line = frame.lineno
    if isinstance(error, SyntaxError) and (error.filename or "").startswith("<code"):
        line = error.lineno or 0
    _user_frames(detail)
    return "".join(detail.format()), line


def _report(error: BaseException) -> dict[str, object]:
    report: dict[str, object] = {
        "type": type(error).__name__[:_CHARS_CUT],
        "memory": isinstance(error, MemoryError),
        "exit": 1,
    }
    if isinstance(error, SystemExit):
        code = error.code
        report["exit"] = code & 0xFF if isinstance(code, int) else 0 if code is None else 1
        if code is not None and not isinstance(code, int):
            with contextlib.suppress(BaseException):  # a program may have taken sys.stderr away
                sys.stderr.write(f"{code}\n")
        return report
    try:
        text, report["line"] = _describe(error)
    except BaseException:  # a hostile __str__, or no memory left for the traceback
        text = f"{report['type']}\n"
    with contextlib.suppress(BaseException):
        sys.stderr.write(text)
    return report


def run(source: str, module: types.ModuleType, filename: str, echo: bool) -> dict[str, object]:
    """Runs `source` in `module`. Keys: exit, and value or type, line, memory."""
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        body, last = _split(source, filename, echo)
        exec(body, module.__dict__)
        report: dict[str, object] = {"exit": 0}
        if last is not None:
            value = eval(last, module.__dict__)
            if value is not None:
                report["value"] = repr(value)
        return report
    except BaseException as error:
        return _report(error)


def _quietly(action: Callable[[], object]) -> dict[str, object] | None:
    try:
        action()
    except BaseException as error:
        return _report(error)
    return None


def finish(report: dict[str, object]) -> dict[str, object]:
    """What an interpreter does at its end: joins threads, runs atexit handlers, flushes."""
    if report["exit"] == 0 and threading.active_count() > 1:
        report = _quietly(threading._shutdown) or report  # pyright: ignore
    _quietly(atexit._run_exitfuncs)
    flush()
    _flush_files()
    return report


def flush() -> None:
    """Flushes the program's streams, whatever it made of them."""
    for name in ("stdout", "__stdout__", "stderr", "__stderr__"):
        with contextlib.suppress(BaseException):
            vars(sys)[name].flush()


def _flush_files() -> None:
    """Flushes files that the program has left open, such as its own wrapper of descriptor 1.

    An interpreter's end does so by freeing them. What the warm interpreter had is not listed.
    """
    with contextlib.suppress(BaseException):
        for one in [o for o in gc.get_objects() if type(o) in _FILES]:
            with contextlib.suppress(BaseException):
                one.flush()


def write_files(files: dict[str, bytes]) -> None:
    """Puts the request's files under /tmp; names were checked by the front end."""
    for name, content in files.items():
        path = os.path.join("/tmp", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def read_files(names: Sequence[str]) -> dict[str, object]:
    """Plain files below /tmp that the program left, for its report: base64 by name, and what is too large."""
    files: dict[str, str] = {}
    too_large: list[str] = []
    room = FETCH_BYTES
    for name in dict.fromkeys(names):
        with contextlib.suppress(BaseException):
            # A pipe would block its reader for ever.
            fd = os.open(os.path.join("/tmp", name), os.O_RDONLY | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    continue
                content = file.read(room + 1)
            if len(content) > room:
                too_large.append(name)
                continue
            files[name] = base64.b64encode(content).decode()
            room -= len(content)
    return {"files": files, "files_too_large": too_large}
