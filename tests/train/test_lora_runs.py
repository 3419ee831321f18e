"""Runs that train an adapter: killed and resumed equals uninterrupted, and what they leave behind."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.small_runs import MODEL, CountingTool, cold_start, rl_config, train
from helpers.tiny_models import random_params
from test_ppo_run import rows_of
from test_sft_loop import Demonstrations, config_of

from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import Muon, OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.model.lora import LoraConfig
from jaxtool.model.peft import load_peft
from jaxtool.model.sources import RandomInit
from jaxtool.model.weight_layout import leaves
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy

LORA = LoraConfig(rank=2, alpha=8.0)
GRPO = GrpoConfig(micro_batch_rows=4, lm_head_chunk=32)
VARIANTS = {
    "grpo": {"lora": LORA, "grpo": dataclasses.replace(GRPO, kl_coef=0.01)},
    "ppo": {
        "lora": dataclasses.replace(LORA, frozen_dtype="bfloat16", targets=("q", "o", "down")),
        "grpo": dataclasses.replace(GRPO, reward_kl_coef=0.01),
        "critic": CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-2), warmup_batches=1),
    },
}


def at(params, name: str) -> np.ndarray:
    for part in name.split("/"):
        params = params[part]
    return np.asarray(params)


def policy_of(workdir):
    return SavedPolicy(path=str(workdir / "policy")).load(single_device(), 0)[1]


def assert_policy_is_base_and_adapter(workdir, base) -> None:
    """WORKDIR/policy is W + scale · A B of WORKDIR/adapter, which is not zero."""
    policy, adapter = policy_of(workdir), load_peft(workdir / "adapter", MODEL)
    largest = 0.0
    for leaf in leaves(MODEL):
        for layer in leaf.layers():
            before, after = (at(tree, leaf.name) for tree in (base, policy))
            if layer is not None:
                before, after = before[layer], after[layer]
            np.testing.assert_allclose(
                adapter.added_to(leaf, layer, before), after, rtol=1e-5, atol=1e-6
            )
            largest = max(largest, float(np.max(np.abs(after - before))))
    assert largest > 1e-3


@pytest.mark.parametrize("name", ["grpo", pytest.param("ppo", marks=pytest.mark.nightly)])
def test_rl_killed_and_resumed_equals_uninterrupted(name, tmp_path, capsys):
    config = rl_config(tmp_path, **VARIANTS[name])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tool = CountingTool()
    train(config, workdir=whole, seed=1, tool=tool)
    assert "trained: an adapter of rank 2 on q, " in capsys.readouterr().out
    broken = CountingTool(fails_at=int(0.9 * tool.calls), error=KeyError("killed here"))
    with pytest.raises(KeyError, match="killed here"):
        train(config, workdir=parts, seed=1, tool=broken)
    assert (parts / "checkpoints" / "2").exists()
    train(config, workdir=parts, seed=1, tool=CountingTool())
    rows = rows_of(whole)
    assert rows == rows_of(parts)
    assert all(row["mismatch/max_abs_logprob_nats"] <= 1e-4 for row in rows)
    assert rows[-1]["policy/grad_norm"] > 0
    for x, y in zip(*map(jax.tree.leaves, (policy_of(whole), policy_of(parts))), strict=True):
        np.testing.assert_array_equal(x, y)
    _, base = RandomInit(config=MODEL).load(single_device(), 1)
    if name == "grpo":
        assert rows[0]["policy/kl_k3_nats"] == pytest.approx(0.0, abs=1e-6)
        assert rows[-1]["policy/kl_k3_nats"] > 1e-5
    else:
        base = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), base)
        assert all(row["critic/loss"] > 0 for row in rows)
    assert_policy_is_base_and_adapter(whole, base)
    # The base is not in the checkpoints: adapter and moments are a twentieth of its bytes.
    files = [file for file in (parts / "checkpoints").rglob("*") if file.is_file()]
    assert not any("embedding" in str(file) for file in files)


@pytest.mark.nightly
def test_cold_start_killed_and_resumed_and_another_base_is_refused(tmp_path):
    first = tmp_path / "first"
    params = random_params(MODEL)
    save_policy(first, params, MODEL)
    whole, again = tmp_path / "whole", tmp_path / "again"

    def run(workdir, broken_at=()):
        config = config_of(tmp_path, Demonstrations(list(broken_at)), lora=LORA)
        cold_start(config, workdir=workdir, seed=1, init_from=first)

    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(again, [3])
    save_policy(first, params | {"final_norm": params["final_norm"] + 1e-3}, MODEL)
    with pytest.raises(ValueError, match=r"policy that this run began with has changed \(bit sum"):
        run(again)
    save_policy(first, params, MODEL)
    run(again)
    assert rows_of(again) == rows_of(whole)
    losses = [row["sft/loss_nats"] for row in rows_of(whole)]
    assert losses[-1] < losses[0]
    assert_policy_is_base_and_adapter(again, params)


def test_what_a_bfloat16_model_learned_over_a_bfloat16_base_is_saved_as_it_was_sampled(tmp_path):
    """Half of the bytes, and the numbers that decoder and learner multiplied by, bit by bit."""
    model = dataclasses.replace(MODEL, compute_dtype="bfloat16")
    lora = dataclasses.replace(LORA, frozen_dtype="bfloat16")
    config = config_of(tmp_path, Demonstrations(), lora=lora, policy=RandomInit(config=model))
    cold_start(config, workdir=tmp_path / "run", seed=1)
    saved = SavedPolicy(path=str(tmp_path / "run" / "policy"))
    _, whole = saved.load(single_device(), 0)
    _, half = saved.load(single_device(), 0, "bfloat16")
    for x, y in zip(*map(jax.tree.leaves, (whole, half)), strict=True):
        assert (x.dtype, y.dtype) == ("float32", "bfloat16")
        np.testing.assert_array_equal(x, y.astype("float32"))
    adapter = load_peft(tmp_path / "run" / "adapter", MODEL)
    _, base = RandomInit(config=model).load(single_device(), 1, "bfloat16")
    [leaf] = [leaf for leaf in leaves(MODEL) if leaf.name == "layers/mlp/up/kernel"]
    kernel = adapter.added_to(leaf, 0, at(base, leaf.name)[0].astype(np.float32))
    assert np.any(kernel != at(base, leaf.name)[0])
    np.testing.assert_allclose(at(half, leaf.name)[0].astype("float32"), kernel, rtol=2**-8)


def test_muon_is_refused_at_the_door(tmp_path):
    optimizer = OptimizerConfig(rule=Muon())
    for build in (
        lambda: rl_config(tmp_path, lora=LORA, optimizer=optimizer),
        lambda: rl_config(tmp_path, lora=LORA, critic=CriticConfig(optimizer=optimizer)),
        lambda: config_of(tmp_path, Demonstrations(), lora=LORA, optimizer=optimizer),
    ):
        with pytest.raises(ValueError, match="Muon orthogonalises whole kernels"):
            build()
