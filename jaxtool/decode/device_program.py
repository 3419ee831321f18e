"""One device program: a jitted function together with the shape that it is compiled for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceProgram:
    """A jitted function with the static arguments of one shape.

    The run calls it with arrays. Compile-ahead and a plan take its `arguments` instead: host arrays
    of zeros and what they were given for the rest, be it arrays or `jax.ShapeDtypeStruct`s.
    """

    name: str
    shape: tuple[int | str, ...]  # with the name tells this program from all others of an engine
    function: Any  # jitted
    statics: dict[str, Any]
    arguments: Callable[[], tuple[Any, ...]]

    @property
    def key(self) -> tuple[int | str, ...]:
        return (self.name, *self.shape)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **self.statics)

    def trace(self) -> jax.stages.Traced:
        return self.function.trace(*self.arguments(), **self.statics)

    def compile(self) -> jax.stages.Compiled:
        """Fills the caches that a call looks into, so that the call compiles nothing."""
        return self.function.lower(*self.arguments(), **self.statics).compile()
