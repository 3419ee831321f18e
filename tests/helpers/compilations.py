"""Listens for what XLA compiles: nothing may, after the warm-up."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by one with each program that is compiled inside the block."""
    compiled: list[str] = []
    is_listening = True

    def listen(event: str, duration: float, **_: object) -> None:
        del duration
        if is_listening and "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        is_listening = False
