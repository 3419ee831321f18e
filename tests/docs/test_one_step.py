"""The page that a newcomer reads first runs, learns, and says the truth about sampler and learner."""

import jax
import numpy as np
import pytest

from docs import one_step
from jaxtool.core.types import Origin
from jaxtool.model.transformer import init_params


def test_behind_every_call_of_the_policy_stands_the_tools_token_and_no_other():
    params = init_params(one_step.MODEL, jax.random.key(0))
    ids, origins, behaviour = one_step.rollout(params, jax.random.key(3))
    is_call = (ids[:, :-1] == one_step.CALL) & (origins[:, :-1] == Origin.POLICY)
    assert is_call.any()
    np.testing.assert_array_equal(origins[:, 1:] == Origin.TOOL, is_call)
    assert (ids[origins == Origin.TOOL] == one_step.OUTPUT).all()
    assert ((behaviour < 0) == (origins == Origin.POLICY)).all()


@pytest.mark.nightly
def test_twenty_steps_learn_to_end_in_the_right_token(capsys):
    rewards = one_step.main(20)
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5])
    gaps = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(gaps) == 20
    assert max(gaps) < 1e-4  # rounding: one forward pass serves both
