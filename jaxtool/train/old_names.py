"""Names of gin files that have changed, each with the name of today: an old one is refused with it.

A row is a module, a "Class", a "Class.field" or a "Class.field = 'value'". The loader looks a name up
only where it finds nothing under it, so that a user's own module may use the same word.
"""

from jaxtool.config.syntax import OldNames
from jaxtool.train.old_choices import OLD_CHOICES

_MODULES = {
    "jaxtool.data.qa_layouts": "jaxtool.data.layouts",
    "jaxtool.data.cold_start": "jaxtool.renderers.demonstrations",
    "jaxtool.data.protocol": "jaxtool.renderers.renderer",
    "jaxtool.rewards.n_store": "jaxtool.rewards.fewest_calls",
    "jaxtool.rewards.price": "jaxtool.rewards.call_cost",
    "jaxtool.learn.policy_losses": "jaxtool.learn.loss_choices",
    "jaxtool.learn.corrections": "jaxtool.learn.off_policy_choices",
    "jaxtool.tools.memo": "jaxtool.tools.result_cache",
    "jaxtool.tools.watch": "jaxtool.tools.health",
    "jaxtool.algos.token_logprobs": "jaxtool.model.token_logprobs",
    "jaxtool.run.rl_loop": "jaxtool.train.rl_config for RlConfig and Schedule",
    "jaxtool.run.rl_loop.RlConfig": "jaxtool.train.rl_config.RlConfig",
    "jaxtool.run.rl_loop.Schedule": "jaxtool.train.rl_config.Schedule",
    "jaxtool.run.sft_loop": "jaxtool.train.sft_loop",
    "jaxtool.run.sft_loop.SftRunConfig": "jaxtool.train.sft_loop.SftRunConfig",
    "jaxtool.run.sources": "jaxtool.train.sources",
    "jaxtool.run.evaluate": "jaxtool.train.evaluation",
    "jaxtool.run.lora_run": "jaxtool.train.lora_run",
    "jaxtool.run.actor": "jaxtool.train.rollout_worker",
    "jaxtool.run.experience": "jaxtool.train.rollout_batch",
    "jaxtool.run.checkpoints": "jaxtool.rundir.checkpoints",
    "jaxtool.run.metrics": "jaxtool.rundir.metrics",
    "jaxtool.run.workdir": "jaxtool.rundir.workdir",
    "jaxtool.run.trajectory_log": "jaxtool.rundir.trajectory_log",
    "jaxtool.run.gin_config": "jaxtool.config.loader",
    "jaxtool.run.report": "jaxtool.report.page",
    "jaxtool.run.compare": "jaxtool.study.compare",
    "jaxtool.run.study": "jaxtool.study.runner",
    "jaxtool.run.study_arms": "jaxtool.study.variants",
    "jaxtool.run.study_suite": "jaxtool.study.suite",
}

_CLASSES = {
    "Twin": "DecoderNumerics",
    "Price": "CallCost",
    "ToolWatchConfig": "ToolHealthConfig",
    "JsonlTask": "ProblemFile",
    "JsonlFormat": "Layout",
}

# Layouts that were functions; they are names now.
_LAYOUTS = {
    f"{old}_format": f"ProblemFile.layout = '{new}'"
    for old, new in {
        **{name: name for name in ("gsm8k", "svamp", "asdiv", "mawps", "rlla")},
        **{name: name for name in ("flashrag", "nq", "triviaqa", "popqa", "hotpotqa", "musique")},
        **{"bamboogle": "bamboogle", "two_wiki": "2wiki", "math": "math500", "aime": "aime24"},
    }.items()
}

_FIELDS = {
    "EngineConfig.slots": "EngineConfig.decode_rows",
    "EngineConfig.rows": "EngineConfig.cache_rows",
    "EngineConfig.min_slots": "EngineConfig.min_decode_rows",
    "EngineConfig.most_slots": "EngineConfig.most_decode_rows",
    "EngineConfig.twin": "EngineConfig.numerics",
    "RlConfig.protocol": "RlConfig.renderer",
    "RlConfig.price": "RlConfig.call_cost",
    "DemonstrationStream.protocol": "DemonstrationStream.renderer",
    "GrpoConfig.corrections": "GrpoConfig.off_policy",
    "GrpoConfig.anchor": "GrpoConfig.old_policy",
    "GrpoConfig.block_rows": "GrpoConfig.micro_batch_rows",
    "GrpoConfig.logprob_chunk": "GrpoConfig.lm_head_chunk",
    "SftConfig.block_rows": "SftConfig.micro_batch_rows",
    "SftConfig.logprob_chunk": "SftConfig.lm_head_chunk",
    "Sandbox.watch": "Sandbox.health",
    "SandboxClientConfig.memo_entries": "SandboxClientConfig.result_cache_entries",
    "LoraConfig.base_dtype": "LoraConfig.frozen_dtype",
    "AxisRules.state_embed": "AxisRules.optimizer_embed",
}

_VALUES = {
    "RolloutConfig.schedule = 'slots'": "RolloutConfig.schedule = 'continuous'",
}

OLD_NAMES = OldNames(_MODULES | _CLASSES | _LAYOUTS | _FIELDS | _VALUES | OLD_CHOICES)
