"""A cache that waits in the host's memory comes back bit for bit, sharded as before, and rows go on with it."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxtool.decode.device_copies import to_host_memory


@pytest.fixture
def tree():
    mesh = jax.make_mesh((4,), ("rows",), devices=jax.devices()[:4])
    rng = np.random.default_rng(0)
    values = {
        "k": rng.standard_normal((8, 2, 3)).astype(np.float32),
        "scale": rng.integers(-9, 9, 5).astype(np.int8),
    }
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    whole = NamedSharding(mesh, PartitionSpec())
    placed = {
        "k": jax.device_put(values["k"], rows),
        "scale": jax.device_put(values["scale"], whole),
    }
    return values, placed


def test_bits_and_shardings_come_back_and_the_devices_are_free_meanwhile(tree):
    values, placed = tree
    shardings = jax.tree.map(lambda x: x.sharding, placed)
    kept = to_host_memory(placed)
    assert all(x.is_deleted() for x in placed.values())
    assert kept.num_bytes == values["k"].nbytes + 4 * values["scale"].nbytes
    back = kept.to_devices()
    assert jax.tree.map(lambda x: x.sharding, back) == shardings
    for name, x in values.items():
        assert np.asarray(back[name]).tobytes() == x.tobytes()


def test_the_copy_outlives_a_program_that_takes_the_arrays_over(tree):
    values, placed = tree
    kept = to_host_memory(placed)
    clear = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    cleared = clear(kept.to_devices())
    assert not np.asarray(cleared["k"]).any()
    for name, x in kept.to_devices().items():
        assert np.asarray(x).tobytes() == values[name].tobytes()
