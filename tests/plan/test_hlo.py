"""Collectives and cycles of compiled text: loops followed, fused chains counted once, sizes by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.plan.flops import count_flops
from jaxtool.plan.hlo import collectives, estimated_cycles

# A loop of 5 rounds; inside it one all-gather that two fusions of a chain print, and a reduce-scatter.
TEXT = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%chain.start (p: bf16[2,128]) -> (bf16[2,128], bf16[16,128]) {
  %p = bf16[2,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[16,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
  ROOT %custom-call.1 = (bf16[2,128]{1,0}, bf16[16,128]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%chain.go (p: bf16[2,128]) -> bf16[16,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[16,128]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}

%body (c: (s32[], bf16[2,128])) -> (s32[], bf16[2,128]) {
  %c = (s32[]{:T(128)}, bf16[2,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[2,128]{1,0} get-tuple-element(%c), index=1
  %fusion.1 = (bf16[2,128]{1,0}, bf16[16,128]{1,0}) fusion(%x), kind=kCustom, calls=%chain.start, backend_config={"estimated_cycles":"100"}
  %fusion.2 = bf16[16,128]{1,0} fusion(%x), kind=kCustom, calls=%chain.go, backend_config={"estimated_cycles":"10"}
  %reduce-scatter.1 = f32[4,128]{1,0} reduce-scatter(%x), channel_id=8, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = (s32[], bf16[2,128]) tuple(%c, %x)
}

%condition (c: (s32[], bf16[2,128])) -> pred[] {
  %c = (s32[]{:T(128)}, bf16[2,128]{1,0}) parameter(0)
  %constant.5 = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.5), direction=LT
}

ENTRY %main (p: bf16[2,128]) -> bf16[2,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  %while.1 = (s32[]{:T(128)}, bf16[2,128]{1,0:T(8,128)(2,1)}) while(%p), condition=%condition, body=%body
  %all-reduce.1 = (f32[10]{0}, f32[6]{0}) all-reduce(%p, %p), channel_id=9, replica_groups={{0,1},{2,3}}, to_apply=%add
  %collective-permute-start.1 = (bf16[2,128]{1,0}, bf16[2,128]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=10, source_target_pairs={{0,1},{1,0}}
  %collective-permute-done.1 = bf16[2,128]{1,0} collective-permute-done(%collective-permute-start.1)
  ROOT %copy.1 = bf16[2,128]{1,0} copy(%p), backend_config={"estimated_cycles":"1000"}
}
"""


def test_collectives_by_hand():
    found = {c.kind: c for c in collectives(TEXT)}
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter", "collective-permute"}
    gather = found["all-gather"]  # 16 x 128 x 2 bytes, 7 of 8 parts sent, 5 rounds, 4 hops
    assert (gather.count, gather.sent_bytes, gather.hops) == (5, 5 * 4096 * 7 / 8, 20)
    scatter = found["reduce-scatter"]  # of 4 x (4 x 128 x 4 bytes) three quarters are sent
    assert (scatter.count, scatter.sent_bytes) == (5, 5 * 4 * 2048 * 3 / 4)
    reduce = found["all-reduce"]  # 16 numbers of 4 bytes in groups of two: half of them, twice
    assert (reduce.count, reduce.sent_bytes, reduce.hops) == (1, 64, 2)
    permute = found["collective-permute"]  # the pair of buffers is one array; -done is not another
    assert (permute.count, permute.sent_bytes, permute.hops) == (1, 512, 1)


def test_an_all_reduce_of_which_a_slice_is_kept_sends_half():
    """libtpu's fusion: 3 of 4 parts of 32 bytes are sent once, over half of the ring."""
    text = """\
%all-reduce-scatter.1.clone (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  %all-reduce.1 = f32[8]{0} all-reduce(%p), channel_id=3, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice.1 = f32[2]{0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={2}
}

ENTRY %main (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  ROOT %fusion.1 = f32[2]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1.clone
}
"""
    (found,) = collectives(text)
    assert (found.kind, found.count, found.sent_bytes, found.hops) == ("reduce-scatter", 1, 24, 2)


def test_cycles_of_a_loop_count_every_round():
    assert estimated_cycles(TEXT) == 5 * 110 + 1000


def test_what_follows_a_kernel_in_its_computation_counts():
    """Splash attention's own metadata has lines of its own, which begin with braces."""
    text = """\
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %kernel.1 = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q_dq\\": 1024}"
}}, metadata={op_name="splash"}
  %copy.1 = f32[8]{0} copy(%kernel.1), backend_config={"estimated_cycles":"30"}
  ROOT %all-reduce.1 = f32[8]{0} all-reduce(%copy.1), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}, execution_thread="main"
"""
    assert estimated_cycles(text) == 30
    assert [found.kind for found in collectives(text)] == ["all-reduce"]


def test_text_without_collectives_or_cycles_gives_nothing():
    text = jax.jit(lambda x: x + 1).lower(jnp.zeros(3)).compile().as_text()
    assert collectives(text) == []
    assert estimated_cycles(text) == 0


def test_what_xla_prints_for_a_loop_on_eight_devices():
    """A product whose contracted axis is cut needs one all-reduce a round."""
    mesh = make_mesh(MeshConfig(fsdp=1, tensor=8))
    cut = jax.NamedSharding(mesh, jax.P(None, "tensor"))

    def step(x, w):
        def body(x, _):
            y = jax.lax.with_sharding_constraint(x @ w, jax.NamedSharding(mesh, jax.P()))
            return jax.lax.with_sharding_constraint(y, cut), None

        return jax.lax.scan(body, x, None, length=6)[0]

    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=cut)
    w = jax.ShapeDtypeStruct(
        (64, 64), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P("tensor", None))
    )
    [found] = collectives(jax.jit(step).lower(x, w).compile().as_text())
    assert (found.kind, found.count) == ("all-reduce", 6)
    assert found.sent_bytes == 6 * 2 * 7 / 8 * 16 * 64 * 4


def test_flops_of_a_shard_map_are_those_of_all_devices():
    mesh = make_mesh(MeshConfig(fsdp=8, tensor=1))
    rows = jax.P("fsdp", None)
    product = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows)
    traced = jax.make_jaxpr(product)(jnp.zeros((16, 4)), jnp.zeros((4, 5)))
    assert count_flops(traced) == 2 * 16 * 4 * 5


def test_flops_of_products_loops_branches_and_recomputation():
    w = jnp.zeros((8, 16))

    def product(x):
        return jnp.tanh(x @ w)  # 2 x 4 x 8 x 16 FLOPs

    x = jnp.zeros((4, 8))
    one = 2 * 4 * 8 * 16

    def flops(f, **trips):
        return count_flops(jax.make_jaxpr(f)(x), **trips)

    assert flops(product) == one
    assert flops(lambda x: jax.lax.scan(lambda c, _: (c, product(c)), x, None, length=3)) == 3 * one
    loop = lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c + product(c)[:, :8], x)  # noqa: E731
    assert flops(loop, while_trips=7) == 7 * one
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, product, lambda x: jnp.zeros((4, 16)), x)  # noqa: E731
    assert flops(branch) == one
    loss = lambda x: jnp.sum(product(x))  # noqa: E731
    assert flops(jax.grad(loss)) == 2 * one  # forward, and back to x
    assert flops(jax.grad(jax.checkpoint(loss))) == pytest.approx(3 * one)
