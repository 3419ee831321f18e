"""Choices that were strings in earlier gin files, each with the object or function of today.

The loader refuses an old one with its new spelling. A row is a "Class.field" that is gone, or a
"Class.field = 'value'" of a field that is still there.
"""

_LEARN = "jaxtool.learn"
_ADVANTAGES = f"GrpoConfig.advantage = @{_LEARN}.advantage_choices"
_AGGREGATIONS = f"GrpoConfig.aggregation = @{_LEARN}.aggregation_choices"
_RULE = f"OptimizerConfig.rule = @{_LEARN}.optimizer"
_ESTIMATOR = "GrpoConfig.kl_estimator = @jaxtool.algos.kl"

OLD_CHOICES: dict[str, str] = {
    "GrpoConfig.advantage = 'grpo'": f"{_ADVANTAGES}.GroupNormalized()",
    "GrpoConfig.advantage = 'no_std'": f"{_ADVANTAGES}.NoStd()",
    "GrpoConfig.advantage = 'leave_one_out'": f"{_ADVANTAGES}.LeaveOneOut()",
    "GrpoConfig.advantage = 'reinforce_plus_plus'": f"{_ADVANTAGES}.ReinforcePlusPlus()",
    "GrpoConfig.shaping_limit": (
        f"GrpoConfig.shaping = @{_LEARN}.advantage_choices.ClippedShaping() with ClippedShaping.limit"
    ),
    "GrpoConfig.shaping_floor": (
        f"GrpoConfig.shaping = @{_LEARN}.advantage_choices.ClippedShaping() with ClippedShaping.floor"
    ),
    "GrpoConfig.aggregation = 'token_mean'": f"{_AGGREGATIONS}.TokenMean()",
    "GrpoConfig.aggregation = 'sequence_mean'": f"{_AGGREGATIONS}.SequenceMean()",
    "GrpoConfig.aggregation = 'sequence_sum'": f"{_AGGREGATIONS}.SequenceSum()",
    "GrpoConfig.aggregation = 'sequence_constant_mean'": f"{_AGGREGATIONS}.SequenceConstantMean()",
    "GrpoConfig.constant_tokens": "SequenceConstantMean.tokens",
    "GrpoConfig.kl_estimator = 'k1'": f"{_ESTIMATOR}.kl_k1",
    "GrpoConfig.kl_estimator = 'k2'": f"{_ESTIMATOR}.kl_k2",
    "GrpoConfig.kl_estimator = 'k3'": f"{_ESTIMATOR}.kl_k3",
    "OptimizerConfig.name": f"{_RULE}.AdamW() or AdamW8bit(), Adafactor(), Muon()",
    "OptimizerConfig.muon_learning_rate": "Muon.matrix_learning_rate",
    "OptimizerConfig.b1": "AdamW.b1, AdamW8bit.b1 or Muon.b1",
    "OptimizerConfig.b2": "AdamW.b2, AdamW8bit.b2 or Muon.b2",
    "OptimizerConfig.decay = 'constant'": "OptimizerConfig.decay = None",
    "OptimizerConfig.decay = 'cosine'": (
        f"OptimizerConfig.decay = @{_LEARN}.optimizer.Cosine() with Cosine.total_steps"
    ),
    "OptimizerConfig.total_steps": "Cosine.total_steps",
    "OptimizerConfig.end_fraction": "Cosine.end_fraction",
    "OtcGrpoReward.decay = 'cosine'": "OtcGrpoReward.decay = @jaxtool.rewards.decay.cosine",
    "OtcGrpoReward.decay = 'linear'": "OtcGrpoReward.decay = @jaxtool.rewards.decay.linear",
    "OtcGrpoReward.decay = 'exponential'": "OtcGrpoReward.decay = @jaxtool.rewards.decay.exponential",
    "OtcPpoReward.decay = 'cosine'": "OtcPpoReward.decay = @jaxtool.rewards.decay.cosine",
    "OtcPpoReward.decay = 'linear'": "OtcPpoReward.decay = @jaxtool.rewards.decay.linear",
    "OtcPpoReward.decay = 'exponential'": "OtcPpoReward.decay = @jaxtool.rewards.decay.exponential",
}
