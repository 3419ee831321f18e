"""Pages in the memory of the host: copied while the device goes on, and back bit for bit.

A page is copied on the device first (`paged_programs.take_page`), so its place there is free at once. The
copy then travels to pinned memory of the host in the background, and a few are on their way at a time. The
first pages of the row that comes back next are sent to the device while a window still runs.
Not covered: which pages move (`paged_cache`).
"""

import collections
from collections.abc import Hashable, Iterator
from typing import Any

import jax
from jax.sharding import NamedSharding

from jaxtool.decode.paged_programs import PageContent

HostPage = PageContent  # with arrays in the memory of the host


class HostPages:
    """Pages by the name of who they belong to."""

    def __init__(self, *, in_flight: int):
        """`in_flight`: copies that may be on the device at once, and as many on their way back."""
        self._in_flight = in_flight
        self._held: dict[Hashable, list[HostPage]] = {}
        self._moving: collections.deque[HostPage] = collections.deque()
        self._staged: dict[Hashable, list[PageContent]] = {}  # of one name, on the device

    def __contains__(self, name: Hashable) -> bool:
        return name in self._held

    def __len__(self) -> int:
        """Pages of all names."""
        return sum(len(pages) for pages in self._held.values())

    def add(self, name: Hashable, page: PageContent) -> None:
        """Sends a page of the device on its way, behind those that `name` has already."""
        if len(self._moving) >= self._in_flight:
            jax.block_until_ready(self._moving.popleft())
        moving = jax.tree.map(lambda x: jax.device_put(x, on_host(x.sharding)), page)
        self._moving.append(moving)
        self._held.setdefault(name, []).append(moving)

    def stage(self, name: Hashable, shapes: PageContent) -> None:
        """Sends the first pages of `name` to the device, in place of those of another."""
        if name not in self._staged:
            pages = self._held.get(name, [])[: self._in_flight]
            self._staged = {name: [on_device(page, shapes) for page in pages]}

    def bring(self, name: Hashable, shapes: PageContent) -> Iterator[PageContent]:
        """The pages of `name` on the device, one after the other; the host keeps its own."""
        staged = self._staged.pop(name, [])
        yield from staged
        for page in self._held.get(name, [])[len(staged) :]:
            yield on_device(page, shapes)

    def drop(self, name: Hashable) -> None:
        self._held.pop(name, None)
        self._staged.pop(name, None)


def on_device(page: HostPage, shapes: PageContent) -> PageContent:
    """A page of the host on its way to the device."""
    return jax.tree.map(lambda x, shape: jax.device_put(x, shape.sharding), page, shapes)


def on_host(sharding: Any) -> NamedSharding:
    """The same sharding in memory of the host: pinned, where the platform has that."""
    assert isinstance(sharding, NamedSharding)
    device = next(iter(sharding.device_set))
    kinds = {memory.kind for memory in device.addressable_memories()}
    for kind in ("pinned_host", "unpinned_host"):
        if kind in kinds:
            return sharding.with_memory_kind(kind)
    return sharding
