"""What a host itself has: interpreter, packages, memory, disk, clock, limits. Nothing here needs jax or a network."""

import ctypes
import datetime
import errno
import importlib.metadata
import os
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from jaxtool.cluster.findings import Finding
from jaxtool.core.bucket_names import check_local
from jaxtool.core.locks import hold

_GIB = 2**30
_MIB = 2**20
_PYTHON = ((3, 11), (3, 12))
_LEAST_MEMORY_GIB, _GOOD_MEMORY_GIB = 2.0, 8.0  # the quickstart uses 2 GiB
_LEAST_DISK_GIB = 2.0
_SLOW_DISK_MIB_PER_S = 50.0  # a checkpoint of 1.5B with its optimizer, 18 GiB, takes six minutes
_PROBE_MIB = 64
# A sandbox server of 256 programs holds about four files each; a file for each connection comes on top.
_LEAST_FILES, _GOOD_FILES = 1024, 4096
_UNSYNCHRONISED = 0x0040  # STA_UNSYNC of adjtimex(2)
_TIMEX_BYTES = 208  # struct timex of 64-bit Linux
_MAX_ERROR_AT, _STATUS_AT = 24, 40  # its maxerror in microseconds, and its status


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Finding:
    """The interpreter is one of those that jaxtool is tested with."""
    text = ".".join(map(str, version[:3]))
    if tuple(version[:2]) in _PYTHON:
        return Finding(name="python", status="ok", text=text)
    status = "fail" if tuple(version[:2]) < _PYTHON[0] else "warn"
    known = " and ".join(f"{major}.{minor}" for major, minor in _PYTHON)
    remedy = f"jaxtool is tested with {known}: make a virtual environment with one of them"
    return Finding(name="python", status=status, text=text, remedy=remedy)


def check_versions(
    extra: str,
    requirements: Sequence[str] | None = None,
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> Finding:
    """Every package of an extra is installed, in a version that setup.py allows; jax and jaxlib are of one release.

    Args:
      extra: "cpu", "tpu" or "cuda".
      requirements: lines such as 'jax>=0.10; extra == "cpu"'; None: those of the installed jaxtool.
      version_of: gives a package's version, or raises PackageNotFoundError.
    """
    install = f"pip install -e '.[{extra}]'"
    if requirements is None:
        requirements = importlib.metadata.requires("jaxtool") or ()
    wrong: list[str] = []
    found: dict[str, str] = {}
    for line in dict.fromkeys(requirements):
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        try:
            found[wanted.name] = version_of(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        if not wanted.specifier.contains(found[wanted.name], prereleases=True):
            wrong.append(f"{wanted.name} is {found[wanted.name]}, not {wanted.specifier}")
    if not found and not wrong:
        raise ValueError(f"the installed jaxtool has no extra {extra!r}")
    for name in ("jaxlib", *(["libtpu"] if extra == "tpu" else [])):
        try:
            found[name] = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
    pair = [found.get(name, "").split(".")[:2] for name in ("jax", "jaxlib")]
    if all(map(any, pair)) and pair[0] != pair[1]:
        wrong.append(f"jax {found['jax']} and jaxlib {found['jaxlib']} are of two releases")
    if wrong:
        text = "; ".join(dict.fromkeys(wrong))
        return Finding(name="versions", status="fail", text=text, remedy=install)
    shown = ", ".join(f"{n} {found[n]}" for n in ("jax", "jaxlib", "libtpu") if n in found)
    text = f"{len(found)} packages of [{extra}] as setup.py wants them; {shown}"
    return Finding(name="versions", status="ok", text=text)


def check_memory(available_gib: float | None = None) -> Finding:
    """Memory of the host that a process may still take, the control group's limit included."""
    gib = available_memory_gib() if available_gib is None else available_gib
    text = f"{gib:.1f} GiB are free"
    if gib >= _GOOD_MEMORY_GIB:
        return Finding(name="memory", status="ok", text=text)
    status = "fail" if gib < _LEAST_MEMORY_GIB else "warn"
    remedy = f"end other programs, or take a host with {_GOOD_MEMORY_GIB:g} GiB or more free"
    return Finding(name="memory", status=status, text=text, remedy=remedy)


def available_memory_gib(root: Path = Path("/")) -> float:
    """The smaller of what the kernel calls available and what the control group has left."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    least = int(fields["MemAvailable"]) * 1024
    group = root / "sys/fs/cgroup"
    if (limit := group / "memory.max").is_file() and (text := limit.read_text().strip()) != "max":
        least = min(least, int(text) - int((group / "memory.current").read_text()))
    return least / _GIB


def check_disk(folder: Path, needs_gib: float) -> Finding:
    """Room, speed, locks and renames of the file system on which a work directory is or would be.

    Writes and deletes 64 MiB there.

    Args:
      folder: need not exist; the nearest folder above it that does is looked at.
      needs_gib: of checkpoints, policies and logs.

    Raises:
      ValueError: the folder is in a bucket.
      OSError: nothing can be written there.
    """
    check_local(folder, "--workdir")
    above = folder.absolute()
    while not above.is_dir():
        above = above.parent
    free = shutil.disk_usage(above).free / _GIB
    with tempfile.TemporaryDirectory(prefix=".jaxtool-doctor-", dir=above) as made:
        speed = _write_speed(Path(made)) if free > _LEAST_DISK_GIB else None
        lacks = _lacks(Path(made))
    text = f"{above}: {free:.0f} GiB free" + (f", writes {speed:.0f} MiB/s" if speed else "")
    problems = [
        (free < _LEAST_DISK_GIB, "fail", f"no run fits: make room, {needs_gib:g} GiB or more"),
        ("renames" in lacks, "fail", "policies are saved by renames: see docs/pods.md on mounts"),
        (free < needs_gib, "warn", f"make room: --needs_gib is {needs_gib:g}"),
        (speed is not None and speed < _SLOW_DISK_MIB_PER_S, "warn", "name a quicker disk"),
        ("locks" in lacks, "warn", "start no second run in it: nothing would hinder it"),
    ]
    text += f"; it has no {' and no '.join(lacks)}" if lacks else ""
    for is_wrong, status, remedy in problems:
        if is_wrong:
            assert status in ("warn", "fail")
            return Finding(name="disk", status=status, text=text, remedy=remedy)
    return Finding(name="disk", status="ok", text=text)


def _write_speed(folder: Path) -> float:
    """MiB/s of a file that is on the disk when the time is taken."""
    content = secrets.token_bytes(_MIB)  # zeros may be written to nowhere
    started = time.monotonic()
    with open(folder / "speed", "wb") as file:
        for _ in range(_PROBE_MIB):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return _PROBE_MIB / (time.monotonic() - started)


def _lacks(folder: Path) -> list[str]:
    """What the file system cannot do of what a run asks of it: locks, renames of directories."""
    lacks = []
    try:
        with hold(folder / "lock"):
            pass
    except OSError:
        lacks.append("locks")
    try:
        (folder / "one").mkdir()
        (folder / "one" / "file").write_text("x")
        os.rename(folder / "one", folder / "two")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        lacks.append("renames")
    return lacks


def check_clock(
    now: float | None = None, newest: float | None = None, state: tuple[bool, float] | None = None
) -> Finding:
    """The clock is kept in step, and not behind the files of this checkout.

    Args:
      now: seconds since the epoch.
      newest: when the newest source file was written.
      state: whether the kernel's clock is kept in step, and its largest error in seconds.
    """
    now = time.time() if now is None else now
    sources = Path(__file__).parents[1].rglob("*.py")
    newest = max(file.stat().st_mtime for file in sources) if newest is None else newest
    text = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    remedy = "timedatectl set-ntp true, or start chrony"
    if now < newest - 60:
        behind = f"{text} is {newest - now:.0f} s before the newest file of jaxtool was written"
        return Finding(name="clock", status="fail", text=behind, remedy=remedy)
    try:
        in_step, error_s = kernel_clock() if state is None else state
    except OSError as problem:
        text = f"{text}; the kernel does not say whether it is kept in step ({problem})"
        return Finding(name="clock", status="warn", text=text, remedy=remedy)
    if not in_step:
        text = f"{text}, and nothing keeps it in step"
        return Finding(name="clock", status="warn", text=text, remedy=remedy)
    return Finding(name="clock", status="ok", text=f"{text}, within {1000 * error_s:.0f} ms")


def kernel_clock() -> tuple[bool, float]:
    """Whether the clock is kept in step, and its largest error in seconds: adjtimex(2), which changes nothing here."""
    buffer = (ctypes.c_byte * _TIMEX_BYTES)()
    library = ctypes.CDLL(None, use_errno=True)
    if library.adjtimex(ctypes.byref(buffer)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    content = bytes(buffer)
    error_us = int.from_bytes(content[_MAX_ERROR_AT : _MAX_ERROR_AT + 8], "little")
    status = int.from_bytes(content[_STATUS_AT : _STATUS_AT + 4], "little")
    return not status & _UNSYNCHRONISED, error_us / 1e6


def check_limits(files: int | None = None) -> Finding:
    """Open files that this process may have; a run takes one for each program in the sandbox and each connection."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if files is None else files
    is_endless = soft == resource.RLIM_INFINITY
    text = "no limit of open files" if is_endless else f"{soft} open files"
    if is_endless or soft >= _GOOD_FILES:
        return Finding(name="limits", status="ok", text=text)
    status = "fail" if soft < _LEAST_FILES else "warn"
    remedy = "ulimit -n 65536, before the run and in its service"
    return Finding(name="limits", status=status, text=text, remedy=remedy)
