"""A run directory belongs to one configuration and one seed."""

import dataclasses
from collections.abc import Callable

import pytest

from jaxtool.algos.kl import kl_k1, kl_k3
from jaxtool.rundir.workdir import claim_workdir


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int


@dataclasses.dataclass(frozen=True)
class Chosen:
    of: tuple[Config, ...]
    estimator: Callable[..., object]


def test_a_chosen_function_is_recorded_by_its_name_which_every_process_shares(tmp_path):
    claim_workdir(tmp_path, Chosen((Config(3),), kl_k3), 0, None)
    text = (tmp_path / "run_config.txt").read_text()
    assert "estimator=jaxtool.algos.kl.kl_k3" in text
    assert " at 0x" not in text
    with pytest.raises(ValueError, match=r"there: estimator=\S+kl_k3\),?; now: estimator=\S+kl_k1"):
        claim_workdir(tmp_path, Chosen((Config(3),), kl_k1), 0, None)


def test_the_same_run_may_claim_it_again_and_no_other(tmp_path):
    workdir = tmp_path / "a" / "b"
    claim_workdir(workdir, Config(3), 0, None)
    claim_workdir(workdir, Config(3), 0, None)
    for config, seed, init_from, named in (
        (Config(4), 0, None, r"there: Config\(steps=3\); now: Config\(steps=4\)"),
        (Config(3), 1, None, "there: seed = 0; now: seed = 1"),
        (Config(3), 0, tmp_path, "there: init_from = None; now: init_from = "),
    ):
        with pytest.raises(ValueError, match=named) as caught:
            claim_workdir(workdir, config, seed, init_from)
        assert "choose another --workdir" in str(caught.value)
