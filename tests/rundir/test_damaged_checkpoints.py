"""A disk that fails: damaged checkpoints are passed over, half-written ones and policies never count."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxtool.core import files
from jaxtool.model.config import ModelConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir import checkpoints as checkpoints_module
from jaxtool.rundir.checkpoints import Checkpoints, SavedPolicy, is_policy, save_policy

MODEL = ModelConfig(
    vocab_size=16, d_model=8, d_ff=16, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=4
)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def state_of(step):
    values = jnp.asarray(np.random.default_rng(step).normal(size=(40, 50)), jnp.float32)
    return {"weights": values, "count": jnp.int32(step)}


def write(folder, *steps):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), {"store": {"p": [step, None]}, "t": (1, 2)})
    return folder / "checkpoints"


def restore(folder):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore_newest(state_of(0))


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(step):
    file = largest_file(step)
    os.truncate(file, file.stat().st_size // 2)


def lose(step):
    largest_file(step).unlink()


def flip_a_bit(step):
    file = largest_file(step)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def junk(step):
    for file in step.rglob("*"):
        if file.is_file():
            file.write_bytes(os.urandom(64))


def change_the_json(step):
    file = step / "meta" / "metadata"
    file.write_text(file.read_text().replace("null", "7"))


def empty_the_json(step):
    (step / "meta" / "metadata").write_text("")


DAMAGES = (cut, lose, flip_a_bit, junk, change_the_json, empty_the_json)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_message(tmp_path, capsys, damage):
    damage(write(tmp_path, 2, 4) / "4")
    step, state, meta = restore(tmp_path)
    assert (step, meta) == (2, {"store": {"p": [2, None]}, "t": [1, 2]})
    np.testing.assert_array_equal(state["weights"], state_of(2)["weights"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "the checkpoint of step 4 is damaged" in line
    assert "resumes from that of step 2" in line
    # The run writes step 4 again, and the next start takes it.
    write(tmp_path, 4)
    assert restore(tmp_path)[0] == 4
    assert (tmp_path / "checkpoints_damaged" / "4").is_dir()


def test_no_whole_checkpoint_is_refused_in_one_line(tmp_path):
    folder = write(tmp_path, 2, 4)
    cut(folder / "2")
    flip_a_bit(folder / "4")
    with pytest.raises(
        ValueError, match=r"no checkpoint in \S+ can be read \(step 4: .*; step 2: "
    ) as caught:
        restore(tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4"]  # nothing is moved or deleted


def test_whole_checkpoints_are_taken_as_they_are(tmp_path, capsys):
    assert restore(tmp_path)[0] == 0
    write(tmp_path, 2, 4)
    assert restore(tmp_path)[0] == 4
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "checkpoints_damaged").exists()


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so_in_one_line(tmp_path, monkeypatch):
    write(tmp_path, 2)

    def full(*_, **__):
        raise NO_SPACE

    with monkeypatch.context() as patched:
        patched.setattr(ocp.StandardCheckpointHandler, "async_save", full)
        patched.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(OSError, match="No space left") as caught:
            write(tmp_path, 4)
    assert "\n" not in str(caught.value)
    assert "the same command resumes" in str(caught.value)
    assert restore(tmp_path)[0] == 2


@pytest.fixture(scope="module")
def policy():
    return RandomInit(config=MODEL).load(single_device(), 0)


@pytest.mark.parametrize("where", ["params", "config", "rename"])
def test_a_half_written_policy_is_no_policy(tmp_path, monkeypatch, policy, where):
    model, params = policy

    def full(*_, **__):
        raise NO_SPACE

    def half(self, directory, *_, **__):
        directory.mkdir()
        (directory / "manifest.ocdbt").write_bytes(b"half")
        raise NO_SPACE

    with monkeypatch.context() as patched:
        if where == "params":
            patched.setattr(ocp.StandardCheckpointer, "save", half)
        elif where == "config":
            patched.setattr(checkpoints_module, "write_text", full)
        else:
            patched.setattr(files.os, "rename", full)
        with pytest.raises(OSError, match="No space left") as caught:
            save_policy(tmp_path / "policy", params, model)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()
    assert list(tmp_path.iterdir()) == []
    save_policy(tmp_path / "policy", params, model)
    assert is_policy(tmp_path / "policy")


def test_a_policy_is_replaced_as_a_whole(tmp_path, monkeypatch, policy):
    model, params = policy
    save_policy(tmp_path / "policy", params, model)
    with monkeypatch.context() as patched:
        patched.setattr(
            checkpoints_module, "write_text", lambda *_: (_ for _ in ()).throw(NO_SPACE)
        )
        with pytest.raises(OSError, match="No space left"):
            save_policy(tmp_path / "policy", params, model)
    more = jax.tree.map(lambda x: x + 1, params)
    _, kept = SavedPolicy(path=str(tmp_path / "policy")).load(single_device(), 0)
    np.testing.assert_array_equal(jax.tree.leaves(kept)[0], jax.tree.leaves(params)[0])
    (tmp_path / "policy.unfinished").mkdir()  # of a start that was killed
    (tmp_path / "policy.unfinished" / "junk").write_text("")
    save_policy(tmp_path / "policy", more, model)
    _, new = SavedPolicy(path=str(tmp_path / "policy")).load(single_device(), 0)
    np.testing.assert_array_equal(jax.tree.leaves(new)[0], jax.tree.leaves(more)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
