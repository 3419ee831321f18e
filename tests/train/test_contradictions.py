"""Settings of a run that undo each other are refused when the configuration is built."""

import dataclasses

import pytest

from jaxtool.config import loader
from jaxtool.decode.sampling import Sampling
from jaxtool.learn.advantage_choices import ClippedShaping, LeaveOneOut
from jaxtool.learn.aggregation_choices import SequenceConstantMean, SequenceMean, TokenMean
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.loss_choices import Gspo
from jaxtool.learn.ppo import CriticConfig
from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward
from jaxtool.rewards.terms import LengthPenalty, OverlongPunishment, RewardTerms, SumReward
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.selection import Selection
from jaxtool.train.rl_config import RlConfig, grpo_of, reward_of

RUN = loader.REPOSITORY_ROOT / "gin_configs" / "runs" / "quickstart_grpo.gin"


@pytest.fixture(scope="module")
def config() -> RlConfig:
    """The quickstart's GRPO run: 96 tokens and 3 calls a response."""
    return loader.load(RlConfig, files=[RUN])


CONTRADICTIONS = {
    "a critic and a baseline of groups": (
        {"critic": CriticConfig(), "grpo": GrpoConfig(advantage=LeaveOneOut())},
        r"GrpoConfig\.advantage=LeaveOneOut\(\) does nothing with RlConfig\.critic.*leave one",
    ),
    "a critic and a bound of shaping": (
        {"critic": CriticConfig(), "grpo": GrpoConfig(shaping=ClippedShaping(limit=0.5))},
        r"GrpoConfig\.shaping=ClippedShaping\(limit=0\.5, floor=0\.0\) does nothing with RlConfig\.critic",
    ),
    "a critic and a floor of shaping": (
        {"critic": CriticConfig(), "grpo": GrpoConfig(shaping=ClippedShaping(floor=0.1))},
        r"GrpoConfig\.shaping=ClippedShaping\(limit=0\.7, floor=0\.1\) does nothing with RlConfig\.critic",
    ),
    "a critic and a reward that shapes": (
        {"critic": CriticConfig(), "reward": CallShapingReward()},
        r"RlConfig\.reward=CallShapingReward .* choose another reward, or no critic",
    ),
    "a critic and a sum whose outcome shapes": (
        {"critic": CriticConfig(), "reward": SumReward(outcome=CallShapingReward(), terms=())},
        r"RlConfig\.reward=CallShapingReward",
    ),
    "a KL and a nucleus": (
        {"grpo": GrpoConfig(kl_coef=0.03), "sampling": Sampling(top_p=0.7)},
        r"GrpoConfig\.kl_coef=0\.03 beside Sampling\.top_p=0\.7: .* is no KL\. Leave out",
    ),
    "a KL in the reward and the best tokens": (
        {"grpo": GrpoConfig(reward_kl_coef=0.1), "sampling": Sampling(top_k=20, min_p=0.1)},
        r"GrpoConfig\.reward_kl_coef=0\.1 beside Sampling\.top_k=20, Sampling\.min_p=0\.1",
    ),
    "tool-free samples and no tool": (
        {
            "selection": Selection(tool_free_samples=2),
            "rollout": RolloutConfig(max_response_tokens=96, max_tool_calls=0),
        },
        r"Selection\.tool_free_samples=2 beside RolloutConfig\.max_tool_calls=0: .* leave",
    ),
    "GSPO and a mean over tokens": (
        {"grpo": GrpoConfig(loss=Gspo(), aggregation=TokenMean())},
        r"GrpoConfig\.aggregation=TokenMean .* set aggregation = @SequenceMean\(\)",
    ),
    "another constant than the budget": (
        {"grpo": GrpoConfig(aggregation=SequenceConstantMean(tokens=128))},
        r"SequenceConstantMean\.tokens=128 is not .*max_response_tokens=96: leave it out",
    ),
    "another budget of tokens": (
        {"terms": RewardTerms(overlong=OverlongPunishment(max_tokens=128))},
        r"OverlongPunishment\.max_tokens=128 .* RolloutConfig\.max_response_tokens=96",
    ),
    "another budget of calls": (
        {"reward": AdaTirReward(max_calls=4.0)},
        r"AdaTirReward\.max_calls=4\.0 .* RolloutConfig\.max_tool_calls=3",
    ),
    "calls to save in a run without calls": (
        {"reward": OtcPpoReward(), "rollout": RolloutConfig(max_tool_calls=0)},
        r"OtcPpoReward\.c would be RolloutConfig\.max_tool_calls=0",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_settings_that_undo_each_other_are_refused(config, name):
    fields, message = CONTRADICTIONS[name]
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(config, **fields)
    assert "\n" not in str(error.value)


HARMLESS = {
    "a critic alone": {"critic": CriticConfig()},
    "a critic and a scaled reward": {"critic": CriticConfig(), "reward": OtcGrpoReward()},
    "a baseline of groups without a critic": {"grpo": GrpoConfig(advantage=LeaveOneOut())},
    "shaping without a critic": {
        "reward": CallShapingReward(),
        "grpo": GrpoConfig(shaping=ClippedShaping(limit=0.5, floor=0.1)),
    },
    "GSPO and a mean over trajectories": {
        "grpo": GrpoConfig(loss=Gspo(), aggregation=SequenceMean())
    },
    "the budget, written out": {
        "grpo": GrpoConfig(aggregation=SequenceConstantMean(tokens=96)),
        "terms": RewardTerms(length=LengthPenalty(max_tokens=96)),
    },
    "another scale of calls": {"reward": OtcGrpoReward(c=9.0)},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_goes_together_is_not_refused(config, name):
    assert dataclasses.replace(config, **HARMLESS[name]) != config


def test_a_run_reads_its_own_budgets_and_its_record_builds_an_equal_one(config, tmp_path):
    """The configuration keeps None, so that another budget moves everything with it."""
    grpo = dataclasses.replace(config.grpo, aggregation=SequenceConstantMean())
    terms = RewardTerms(overlong=OverlongPunishment())
    config = dataclasses.replace(config, reward=OtcGrpoReward(), terms=terms, grpo=grpo)
    record = loader.write_operative_config(tmp_path, config)
    assert loader.load(RlConfig, files=[record]) == config
    params = ["RolloutConfig.max_response_tokens = 100", "RolloutConfig.max_tool_calls = 5"]
    for other, tokens, calls in (
        (config, 96, 3),
        (loader.load(RlConfig, files=[record], params=params), 100, 5),
    ):
        assert grpo_of(other).aggregation == SequenceConstantMean(tokens=tokens)
        assert reward_of(other) == SumReward(
            outcome=OtcGrpoReward(c=float(calls)),
            terms=(OverlongPunishment(max_tokens=tokens, cache_tokens=tokens // 5),),
        )


def test_the_place_of_both_settings_is_named():
    """A contradiction of two files is refused with the lines of both."""
    critic, rloo = (RUN.parents[1] / "algos" / name for name in ("retool_ppo.gin", "rloo.gin"))
    for overlays in ([critic, rloo], [rloo, critic]):
        with pytest.raises(loader.ConfigError) as error:
            loader.load(RlConfig, files=[RUN, *overlays])
        assert "algos/retool_ppo.gin:" in str(error.value)
        assert "algos/rloo.gin:7" in str(error.value)
