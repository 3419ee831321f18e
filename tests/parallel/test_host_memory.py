"""Arrays that wait in the host's memory come back bit for bit, with their layout; the device's memory is free."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxtool.parallel.host_memory import (
    HOST,
    OnHost,
    check_has_host_memory,
    to_device_memory,
    to_host_memory,
)
from jaxtool.parallel.mesh import MeshConfig, make_mesh


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def state_of(mesh):
    """As an optimizer's state: sharded moments, some of them over one axis only, and a count."""
    rows, columns = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("fsdp", "tensor"), (None, "tensor"))
    )
    make = jax.jit(
        lambda key: (jax.random.normal(key, (8, 6)), jnp.arange(8, dtype=jnp.int8), jnp.int32(7)),
        out_shardings=(
            rows,
            NamedSharding(mesh, PartitionSpec("tensor")),
            NamedSharding(mesh, PartitionSpec()),
        ),
    )
    moments, quantised, count = make(jax.random.key(0))
    half = jax.device_put(np.linspace(-1, 1, 12).reshape(2, 6).astype(jnp.bfloat16), columns)
    return {"mu": moments, "nu": (half, quantised), "count": count}


def test_arrays_come_back_with_bits_and_layout(mesh):
    state = state_of(mesh)
    wanted = jax.tree.map(np.asarray, state)
    layouts = jax.tree.map(lambda x: x.sharding, state)
    away = to_host_memory(state)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    waiting = jax.tree.leaves(away)
    assert len(waiting) == 4
    assert all(isinstance(x, OnHost) for x in waiting)
    kinds = {shard.sharding.memory_kind for x in waiting for shard in x.shards}
    assert kinds == {HOST}
    back = to_device_memory(away)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, back), wanted)
    assert jax.tree.map(lambda x: x.sharding, back) == layouts
    assert back["mu"].dtype == jnp.float32
    assert back["nu"][0].dtype == jnp.bfloat16


def test_a_program_for_the_arrays_serves_them_when_they_are_back(mesh):
    """Another name of the same layout would compile anew in the middle of a run."""
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state))
    state = state_of(mesh)
    step(state)
    step(to_device_memory(to_host_memory(state)))
    assert step._cache_size() == 1


def test_what_is_on_the_device_already_stays(mesh):
    state = state_of(mesh)
    assert to_device_memory(state) is not None
    assert jax.tree.leaves(to_device_memory(state))[0] is jax.tree.leaves(state)[0]


def test_devices_without_such_memory_are_named(mesh, monkeypatch):
    check_has_host_memory(mesh, "RlConfig.offloads_learner=True")
    monkeypatch.setattr("jaxtool.parallel.host_memory.HOST", "attic")
    with pytest.raises(
        ValueError, match=r"offloads_learner=True needs .* attic memory; cpu devices have device, "
    ):
        check_has_host_memory(mesh, "RlConfig.offloads_learner=True")
