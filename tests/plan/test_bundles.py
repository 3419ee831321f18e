"""Cycles of a grid step from the bundles that libtpu prints: by hand, and of the kernel over a cache."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from jaxtool.model.kv_cache import LayerCache
from jaxtool.model.pallas_attention import KERNEL, flash_cached_attention
from jaxtool.plan.bundles import StepCycles, cycles_of, step_cycles
from jaxtool.plan.flops import kernel_calls

# A loop over the grid from 0x2 to 0x1f. One region from 0x4 on is skipped up to 0x14, where the delay slots
# of the branch (0x4 to 0x8) are issued all the same; inside it is another, which is skipped with it.
TEXT = """\
= control target key start
LB: loop body
= control target key end
     0x0   :  { %1 = sbr.rel (%p0) target = $region9 }
     0x1   :  { %s1 = smov.u32 0 } /* Start region 1 */
     0x2 LB: > { %s2 = sphi %s1, %s9 }
     0x3   : > { %p1 = scmp.ge.s32.totalorder %s2, 4 }
     0x4   : > { %40 = sbr.rel (%p1) target = $region5 }
     0x8   :  {} /* Start region 2 */
     0x9   : > { %41 = sbr.rel (%p2) target = $region4 }
     0xf PF: > { %v1 = vadd.f32 %v0, %v0 } /* Start/End empty region 4 :: Start region 6 */
    0x14 PF: > { %s3 = sadd.s32 1, %s2 } /* Start/End empty region 5 :: End region 6 */
    0x1f   : > { %47 = sbr.rel (!%p8) target = $region1 }
    0x20   :  { %3676 = vsyncpa [#allocation11], 1 } /* Start/End empty region 9 */
"""


def test_cycles_by_hand():
    """30 bundles from 0x2 to 0x1f; of the 16 between 0x4 and 0x14, 5 are issued in any case."""
    assert step_cycles(TEXT) == StepCycles(active=30, skipped=30 - 11)


def test_loops_inside_a_step_are_not_guessed():
    assert step_cycles(TEXT.replace("0xf PF: >", "0xf LB: >>")) is None
    assert step_cycles(TEXT.replace("0xf PF: >", "0xf LB: >")) is None
    assert step_cycles("") is None


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="not installed: pip install 'libtpu>=0.0.50' flatbuffers",
)
@pytest.mark.parametrize("cache", ["bfloat16", "int8"])
def test_the_kernel_over_a_cache_keeps_its_cycles(cache):
    """2048 positions of two heads on v6e: 972 cycles in bfloat16, where its reads need 2238, and 1128 in int8."""
    shape = jax.ShapeDtypeStruct
    values = shape((24, 2, 18432, 128), cache)
    scale = shape((24, 2, 18432), jnp.float32) if cache == "int8" else None
    traced = jax.make_jaxpr(flash_cached_attention)(
        shape((24, 1, 10, 128), jnp.bfloat16),
        LayerCache(values, values, scale, scale),
        shape((24, 1), jnp.int32),
    )
    found = cycles_of(kernel_calls(traced), "v6e:2x2")[KERNEL]
    assert 600 < found.active < 1250
    assert 50 < found.skipped < 300
