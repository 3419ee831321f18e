"""One program of a plan before it is compiled, and the names of a run's programs."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxtool.decode.config import EngineConfig
from jaxtool.learn.compile_options import Options
from jaxtool.learn.programs import APPLY as APPLY
from jaxtool.learn.programs import CRITIC as CRITIC
from jaxtool.learn.programs import CRITIC_APPLY as CRITIC_APPLY
from jaxtool.learn.programs import LEARN as LEARN
from jaxtool.learn.programs import OLD as OLD
from jaxtool.learn.programs import VALUES as VALUES
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.plan.kernels import KernelSteps
from jaxtool.plan.paged_rows import PagedRows

PUBLISH, PUBLISH_ENDS = "publish a layer", "publish embedding and head"
PREFILL, PLACE = "prefill", "place prompts"
APPEND, WINDOW = "append tool output", "decode window"
MOVED_PAGES = "pages between device and host"  # no program of its own: copies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One program of the run, not compiled yet."""

    name: str
    shape: str  # what its shapes are, for people
    trace: Callable[[], Any]  # -> jax.stages.Traced
    num_devices: int  # that it runs on
    other_resident: tuple[str, ...]  # names of resident arrays that are no argument of it
    while_trips: int = 1
    touched_bytes: float | None = (
        None  # of HBM in one run, at least, kernels left out; None: arguments and outputs
    )
    over_cache: KernelSteps | None = (
        None  # of attention over the cache in one layer; None: no kernel does it
    )
    options: Options = ()  # of the compiler, for this program alone
    moved: tuple[int, float] = (0, 0.0)  # arrays that go to other devices afterwards; bytes of each


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPrograms:
    """Programs, and the bytes per device of what stays in memory between them."""

    programs: tuple[Program, ...]
    resident: dict[str, float]
    engine: EngineConfig | None  # with the number of decode rows filled in; None in a cold start
    # Bytes per device that go to the host's memory when rows decode, and come back for the update.
    resting: float = 0.0
    host: dict[str, int]  # axis sizes of the mesh that a host decodes on; none in a cold start
    paged: PagedRows | None = None  # with `EngineConfig.pages`: what a host's pool does in a step
    page_bytes: float = 0.0  # of a page on one device


def shard_bytes(tree: Any) -> float:
    """Bytes that one device holds of a tree of ShapeDtypeStructs with shardings."""
    return float(
        sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(tree)
        )
    )


def results(on: Sharding, program: Any, *args: Any, **statics: Any) -> Any:
    """Shapes of what a jitted function returns, with the shardings that the compiler chooses."""
    compiled = program.lower(*args, **statics).compile()

    def sharding(found: Any) -> Any:
        # A number that depends on no argument is placed on one device; jax moves it.
        return found if len(found.device_set) == on.mesh.size else on.named()

    return placed(compiled.out_info, jax.tree.map(sharding, compiled.output_shardings))


def placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )
