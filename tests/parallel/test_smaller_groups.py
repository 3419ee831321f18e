"""A learner whose groups are smaller than the decoder's: rows of its own over `context`, heads over `tensor` alone."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.small_runs import CountingTool, rl_config, train
from jax.sharding import Mesh, PartitionSpec

from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import AxisRules, Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh, moves_shards
from jaxtool.parallel.mesh import AXES, MeshConfig, make_mesh
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.trajectory_log import read_trajectories
from jaxtool.train.devices import make_shardings

PAIRS = AxisRules(batch=("data", "fsdp", "context"), queries=(), length=("tensor",))
OVER_BOTH = decode(PAIRS, "context x tensor")
SEVENTEEN = dataclasses.replace(
    OVER_BOTH, vocab=()
)  # words of the small runs: no pair shares them out


def test_the_decoder_shares_out_what_both_axes_have():
    assert OVER_BOTH.batch == ("data", "fsdp")
    assert OVER_BOTH.spec("embed", "mlp") == PartitionSpec(None, ("context", "tensor"))
    assert OVER_BOTH.spec("batch", "kv_heads") == PartitionSpec(
        ("data", "fsdp"), ("context", "tensor")
    )
    # What the learner keeps whole, because it does not divide, is whole in the decoder.
    assert decode(dataclasses.replace(PAIRS, kv_heads=()), "context x tensor").kv_heads == ()
    assert decode().spec("embed", "mlp") == PartitionSpec(None, ("tensor",))


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


def eight_rows(config, **changed):
    grpo = dataclasses.replace(config.grpo, micro_batch_rows=8)
    engine = dataclasses.replace(config.engine, decode_rows=8, prefill_rows=8)
    return dataclasses.replace(config, grpo=grpo, engine=engine, **changed)


def hosts_of(count, of_each):
    """Devices of several hosts, as a mesh sees them."""
    return np.array([Device(i, i // of_each) for i in range(count)], object)


def mesh_of(devices, shape):
    return SimpleNamespace(
        devices=devices.reshape(shape),
        shape=dict(zip(AXES, shape, strict=True)),
        axis_types=(jax.sharding.AxisType.Auto,) * 4,
    )


def test_a_group_stays_on_its_host_or_is_refused():
    """2 hosts of 4: pairs of the learner are halves of a host's group."""
    near = mesh_of(hosts_of(8, 4), (1, 2, 2, 2))
    assert not moves_shards(near, OVER_BOTH)
    assert not moves_shards(near, decode())
    # Devices of both hosts in turns: a pair's halves are apart.
    apart = mesh_of(hosts_of(8, 4).reshape(2, 4).T.reshape(-1), (1, 2, 2, 2))
    assert moves_shards(apart, OVER_BOTH)
    wide = mesh_of(hosts_of(8, 2), (1, 2, 2, 2))
    message = r"MeshConfig.context=2 x MeshConfig.tensor=2 does not divide the 2 devices of a host"
    with pytest.raises(ValueError, match=message):
        decode_mesh(wide, OVER_BOTH)
    odd = dataclasses.replace(OVER_BOTH, batch=("data", "context"))
    with pytest.raises(ValueError, match=r"rows are sharded over \('data', 'context'\)"):
        moves_shards(near, odd)


def test_one_process_decodes_on_its_mesh_with_the_rules_of_the_run(tmp_path):
    config = eight_rows(rl_config(tmp_path), axes=PAIRS, decoder_axes=SEVENTEEN)
    mesh = make_mesh(MeshConfig(fsdp=4, context=2))
    learner, decoder = make_shardings(config, config.policy.model_config(), mesh)
    assert isinstance(mesh, Mesh)
    assert learner == Sharding(mesh, PAIRS)
    assert decoder == Sharding(mesh, SEVENTEEN)


def test_a_run_in_smaller_groups_has_the_tokens_of_the_plain_one(tmp_path):
    """Rows over all eight devices in the learner, heads over two of them in the decoder, beside eight and eight."""
    base = rl_config(tmp_path)
    schedule = dataclasses.replace(base.schedule, steps=2, log_trajectories_every=1)
    plain = eight_rows(base, schedule=schedule, mesh=MeshConfig(fsdp=8))
    assert isinstance(plain.policy, RandomInit)
    pairs = dataclasses.replace(
        plain, mesh=MeshConfig(fsdp=4, context=2), axes=PAIRS, decoder_axes=SEVENTEEN
    )
    texts, policies = [], []
    for name, config in (("plain", plain), ("pairs", pairs)):
        train(config, workdir=tmp_path / name, seed=1, tool=CountingTool())
        seen = read_trajectories(tmp_path / name / "trajectories.jsonl")
        texts.append([[token.text for token in view.tokens] for view in seen])
        source = SavedPolicy(path=str(tmp_path / name / "policy"))
        policies.append(source.load(Sharding(make_mesh(MeshConfig(fsdp=8))), 0)[1])
    assert texts[0] == texts[1]
    assert texts[0]
    for x, y in zip(*map(jax.tree.leaves, policies), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
