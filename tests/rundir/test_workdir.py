"""A run directory belongs to one configuration and one seed."""

import dataclasses

import pytest

from jaxtool.rundir.workdir import claim_workdir


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int


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
