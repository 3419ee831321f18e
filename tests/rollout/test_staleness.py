"""Staleness of tokens against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import ledger

from jaxtool.core.types import Origin, ToolStatus
from jaxtool.rollout.staleness import check_staleness, staleness_metrics, token_staleness


def with_versions(text, versions):
    made = ledger(text, calls=[ToolStatus.OK] * text.count("tp"))
    at = np.flatnonzero(made.origins == Origin.POLICY)
    out = np.full(len(made.ids), -1, np.int32)
    out[at] = versions
    return dataclasses.replace(made, policy_versions=out)


def test_the_age_of_each_policy_token():
    """Step 5: versions 4 4 5 and 5 are 1, 1, 0 and 0 updates behind; prompts and tools have no age."""
    trajectories = [with_versions("Qpptp", [4, 4, 5]), with_versions("Qp", [5])]
    assert token_staleness(trajectories, 5).tolist() == [1, 1, 0, 0]
    assert staleness_metrics(trajectories, 5) == {
        "staleness/mean_updates": 0.5,
        "staleness/max_updates": 1.0,
        "staleness/older_tokens_fraction": 0.5,
    }
    assert staleness_metrics([], 5) == {}


def test_the_bound_is_checked_for_every_token():
    trajectories = [with_versions("Qp", [5]), with_versions("Qpptp", [3, 4, 5])]
    check_staleness(trajectories, 5, 2)
    with pytest.raises(RuntimeError, match="0 to 2 updates behind step 5, allowed are 0 to 1"):
        check_staleness(trajectories, 5, 1)
    with pytest.raises(RuntimeError, match="-1 to -1 updates behind step 4"):
        check_staleness(trajectories, 4, 2)
