"""Options of the compiler for the learner's programs alone, where what is good for them is not for the decoder."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxtool.parallel.axis_rules import Sharding

Options = tuple[tuple[str, str], ...]

# By a device's kind. Of the 128 MiB of a v6e's on-chip memory, what one operation may take: a gradient
# block is 4 % shorter by the compiler's cycles than with the 64 MiB of `core.libtpu_flags`, and steps of decoding,
# which keep those, would be 10 % longer with 80 (docs/plans.md).
_OF: dict[str, Options] = {"TPU v6 lite": (("xla_tpu_scoped_vmem_limit_kib", "98304"),)}
_JITTED: dict[Any, Callable[[Options], Any]] = {}


def options_for(sharding: Sharding) -> Options:
    """Of programs on these devices, which may be described and not there."""
    return _OF.get(sharding.mesh.devices.flat[0].device_kind, ())


def learner_jit(*, static: Sequence[str], donated: Sequence[str] = ()) -> Callable[[Any], Any]:
    """`jax.jit` of a function that `for_devices` gives the options of its devices."""

    def decorate(function: Any) -> Any:
        names: dict[str, Any] = {
            "static_argnames": tuple(static),
            "donate_argnames": tuple(donated),
        }
        plain = jax.jit(function, **names)

        @functools.cache  # so that a second call compiles nothing
        def with_options(options: Options) -> Any:
            return jax.jit(function, compiler_options=dict(options), **names)

        _JITTED[plain] = with_options
        return plain

    return decorate


def for_devices(jitted: Any, sharding: Sharding) -> Any:
    """What `learner_jit` made, with the options of these devices; without any, the function itself."""
    options = options_for(sharding)
    return _JITTED[jitted](options) if options else jitted
