"""The fork server's heap: objects become immortal, and children copy fewer pages for it."""

import subprocess
import sys

import pytest

from sandbox_server.front.fork_server import ENVIRONMENT, command

has_immortal_objects = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="objects are never immortal before Python 3.12"
)

_FAULTS = """
import gc, os
from sandbox_server.inside import heap

class Node:
    def __init__(self, value):
        self.value = value

nodes = [Node(str(i) * 3) for i in range(20_000)]

def faults():
    pid = os.fork()
    if pid == 0:
        for node in nodes:
            node.value
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_minflt

gc.collect()
gc.disable()
before = faults()
heap.immortalise()
print(before, faults())
"""

_BLOCKS = """
from sandbox_server.inside import heap

old = [bytes(100) for _ in range(20_000)]
pools = {id(one) // heap._POOL for one in old}
del old[::2]
holes_taken = heap.use_up_free_blocks()
new = [bytes(100) for _ in range(500)]
reused = sum(id(one) // heap._POOL in pools for one in new)
print(holes_taken, reused)
"""


def _run(source: str) -> list[int]:
    root = command({})[6]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({root!r})\n{source}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@has_immortal_objects
def test_reading_immortal_objects_copies_no_pages():
    before, after = _run(_FAULTS)
    assert after < before / 2


def test_new_objects_do_not_lie_among_old_ones():
    holes_taken, reused = _run(_BLOCKS)
    assert holes_taken > 10_000
    assert reused == 0


@has_immortal_objects
def test_every_kind_of_object_becomes_immortal_and_still_works():
    source = """
from sandbox_server.inside import heap
import sys

class Key: ...
table = {Key: ["a", (1, 2.5)], "word": {3, 4}}
heap.immortalise()
found = [table, table[Key], table[Key][1], Key, table["word"]]
print(sum(sys.getrefcount(one) == sys.getrefcount(None) for one in found))
table["word"].add(5); table[Key].append("b"); del table["word"]
print(len(table), len(table[Key]))
"""
    assert _run(source) == [5, 1, 3]


def test_before_immortal_objects_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    from sandbox_server.inside import heap

    monkeypatch.setattr(heap, "_immortal_count", lambda: 0)
    monkeypatch.setattr(heap, "_reachable", pytest.fail)
    assert heap.immortalise() == 0
