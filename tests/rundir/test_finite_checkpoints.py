"""No number that is not finite gets into a checkpoint or a policy, and none out of one."""

import jax.numpy as jnp
import pytest
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.core.trees import non_finite
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir import checkpoints as module
from jaxtool.rundir.checkpoints import Checkpoints, SavedPolicy, save_policy

MODEL = FAMILIES["qwen2"]


def broken(value: float):
    params = random_params(MODEL)
    return params | {"embedding": params["embedding"].at[2, 3].set(value)}


def test_arrays_are_named_and_whole_numbers_left_out():
    tree = {"a": jnp.array([1.0, jnp.nan]), "b": [jnp.array([1.0]), jnp.array(-jnp.inf)]}
    assert non_finite(tree | {"c": jnp.array([7], jnp.int8)}) == ["['a']", "['b'][1]"]
    assert non_finite({"c": jnp.array([7])}) == []


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_checkpoint_with_such_a_number_is_neither_written_nor_read(value, tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"state after 4 steps is not saved: 1 of .*embedding"):
            checkpoints.save(4, broken(value), {})
        assert checkpoints.restore_newest(random_params(MODEL))[0] == 0
        monkeypatch.setattr(module, "check_can_save", lambda tree, what: None)
        checkpoints.save(4, broken(value), {})
    wanted = r"no checkpoint in .*step 4: 1 of its arrays hold numbers .*embedding"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=wanted):
        checkpoints.restore_newest(random_params(MODEL))


def test_a_policy_with_such_a_number_is_neither_written_nor_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"the policy for .*is not saved: 1 of .*learning_rate"):
        save_policy(tmp_path / "policy", broken(jnp.nan), MODEL)
    assert not (tmp_path / "policy").exists()
    monkeypatch.setattr(module, "check_can_save", lambda tree, what: None)
    save_policy(tmp_path / "policy", broken(jnp.nan), MODEL)
    with pytest.raises(ValueError, match=r"policy .*: 1 arrays hold numbers .*embedding"):
        SavedPolicy(path=str(tmp_path / "policy")).load(single_device(), 0)
