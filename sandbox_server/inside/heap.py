"""Makes the fork server's heap cheap to share: nothing in it is written by those who only read it.

A forked child copies each page that it writes to, and under nested paging a copied page costs more
than the arithmetic of most programs. So after the warm-up every object is made immortal (reading an
object no longer writes its reference count), free blocks inside old pages are used up (new objects
lie together on new pages), and what is left is merged into huge pages. Runs once, before the first
child exists. Halves the pages that a sympy call copies.
"""

import contextlib
import ctypes
import gc
import os
import sys
import types
from collections.abc import Iterator

from sandbox_server.inside import linux

_HUGE_PAGE = 2 << 20
_POOL = 16 << 10  # obmalloc's unit: one size of block
_LARGEST_BLOCK = 512
_BYTES_OVERHEAD = sys.getsizeof(b"")
_FRESH_RUN = 8  # neighbours in a row: a pool that nobody used before
_MOST_FILLERS = 20_000  # of one size
_CHANGING = (types.FrameType, types.GeneratorType, types.CoroutineType)

_fillers: list[list[bytes]] = []


def _immortal_count() -> int:
    """Reference count that marks an object as immortal, 0 where Python has none (before 3.12)."""
    count = ctypes.c_uint64.from_address(id(None)).value
    return count if count == 0xFFFFFFFF else 0


def _reachable() -> Iterator[int]:
    """Addresses of all objects that the collector or one of its objects knows."""
    seen: set[int] = set()
    generation = gc.get_objects()
    while generation:
        following: list[object] = []
        for one in generation:
            if id(one) not in seen and not isinstance(one, _CHANGING):
                seen.add(id(one))
                following += gc.get_referents(one)
        generation = following
    yield from seen


def immortalise() -> int:
    """Makes all objects immortal; how many there were. Nothing is done before Python 3.12.

    Comes before `gc.freeze`: frozen objects are no longer listed.
    """
    immortal = _immortal_count()
    if not immortal:
        return 0
    count = 0
    for address in _reachable():
        cell = ctypes.c_uint64.from_address(address)
        if cell.value < immortal:
            cell.value = immortal
            count += 1
    return count


def use_up_free_blocks() -> int:
    """Takes each free block inside a used page out of circulation; how many there were."""
    for size in range(16, _LARGEST_BLOCK + 1, 16):
        payload = size - _BYTES_OVERHEAD
        if payload < 2:  # bytes of length 0 and 1 are shared
            continue
        taken: list[bytes] = []
        run, last = 0, 0
        while len(taken) < _MOST_FILLERS and run < _FRESH_RUN:
            taken.append(bytes(payload))
            here = id(taken[-1])
            is_first = here % _POOL < 64  # behind the header of a pool
            run = run + 1 if here == last + size and run else int(is_first)
            last = here
        _fillers.append(taken)
    return sum(map(len, _fillers))


def _read_proc(procfs: int, name: str) -> str:
    fd = os.open(f"self/{name}", os.O_RDONLY, dir_fd=procfs)
    with os.fdopen(fd, "r", encoding="utf-8", errors="replace") as file:
        return file.read()


def _merge_into_huge_pages(procfs: int) -> None:
    collapse = linux.LIBC.madvise
    collapse.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in _read_proc(procfs, "maps").splitlines():
        fields = line.split()
        is_anonymous = len(fields) < 6 or fields[5] == "[heap]"
        if not is_anonymous or not fields[1].startswith("rw"):
            continue
        start, stop = (int(part, 16) for part in fields[0].split("-"))
        start, stop = -(-start // _HUGE_PAGE) * _HUGE_PAGE, stop // _HUGE_PAGE * _HUGE_PAGE
        for address in range(start, stop, _HUGE_PAGE):
            collapse(address, _HUGE_PAGE, linux.MADV_COLLAPSE)  # refused before Linux 6.1: no harm


def settle(procfs: int) -> tuple[int, int]:
    """Does all of the above. Bytes of data and of address space of this process."""
    gc.collect()
    immortalise()
    use_up_free_blocks()
    gc.freeze()
    _merge_into_huge_pages(procfs)
    sizes = {}
    for line in _read_proc(procfs, "status").splitlines():
        key, _, value = line.partition(":")
        with contextlib.suppress(ValueError, IndexError):
            sizes[key] = int(value.split()[0]) * 1024
    return sizes["VmData"], sizes["VmSize"]
