"""Which settings a run may be resumed with other values of, and what the loop says about them.

What lies in such a setting may change with it. Everything else is refused with both values (`rundir.run_start`). docs/runs.md has the table; a test compares.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtool.config.settings import Change, Setting
from jaxtool.learn.optimizer import Cosine, OptimizerConfig
from jaxtool.parallel import hosts
from jaxtool.rundir.run_start import RunStart
from jaxtool.train.rl_config import RlConfig

# How long a run is, and with it the learning rate. From the resumed step on numbers are those of the new values.
LENGTH = (
    *("Schedule.steps", "SftRunConfig.steps", "Cosine.total_steps"),
    "OptimizerConfig.warmup_steps",
)
# What is looked at and kept. No number of the training depends on it.
LOGS = (
    *("Schedule.checkpoint_every", "Schedule.eval_every", "Schedule.eval_problems"),
    *("Schedule.eval_samples", "Schedule.eval_sampling"),
    *("Schedule.eval_max_lost_fraction", "Schedule.log_trajectories_every"),
    *("Schedule.log_trajectories", "Schedule.stop_after_skipped"),
    *("SftRunConfig.checkpoint_every", "SftRunConfig.log_every"),
    *("Schedule.checkpoint_minutes", "SftRunConfig.checkpoint_minutes", "Schedule.keep_answers"),
    *("SftRunConfig.stop_after_skipped", "SftRunConfig.keep_policies"),
    *("RlConfig.keep_policies", "KeepPolicies.*"),
    *("RlConfig.watch", "WatchConfig.*", "HealthLimits.*"),
)
# Where servers are and with how much patience they are asked. What a program may use stays.
SERVERS = (
    *("Sandbox.addresses", "Sandbox.isolation", "ToolHealthConfig.*", "Search.addresses"),
    *("Search.start_timeout_s", "SandboxClientConfig.attempts", "SandboxClientConfig.backoff_s"),
    *("SandboxClientConfig.queue_allowance_s", "SandboxClientConfig.max_concurrency"),
    *("SandboxClientConfig.token_file", "SandboxClientConfig.tls_ca_file"),
    *("SandboxClientConfig.tls_certificate_file", "SandboxClientConfig.tls_key_file"),
    *("SearchClientConfig.attempts", "SearchClientConfig.backoff_s"),
    *("SearchClientConfig.queue_allowance_s", "SearchClientConfig.max_concurrency"),
    *("SearchClientConfig.request_timeout_s", "SearchClientConfig.token_file"),
)
# Devices and the shapes of programs: the same mathematics, added up in another order.
LAYOUT = (
    *("Schedule.share_by", "MeshConfig.*", "AxisRules.*", "RlConfig.decoder_axes"),
    *("RlConfig.unloads_decoder", "RlConfig.offloads_learner"),
    *("EngineConfig.decode_rows", "DecoderNumerics.sums"),
    *("EngineConfig.cache_rows", "EngineConfig.min_decode_rows", "EngineConfig.window_steps"),
    *("EngineConfig.refill_below", "EngineConfig.min_view", "EngineConfig.prefill_rows"),
    *("EngineConfig.prefill_chunk", "EngineConfig.min_prompt_bucket"),
    *("EngineConfig.forced_tokens", "EngineConfig.append_rows", "EngineConfig.memory_gib"),
    *("EngineConfig.memory_share", "EngineConfig.planned_share", "EngineConfig.most_decode_rows"),
    *("EngineConfig.pages", "PagesConfig.*"),
    *("EngineConfig.drafts", "DraftsConfig.*"),
    *("GrpoConfig.micro_batch_rows", "GrpoConfig.lm_head_chunk", "SftConfig.micro_batch_rows"),
    *("SftConfig.last_block_rows", "SftConfig.lm_head_chunk"),
)
MAY_CHANGE = frozenset((*LENGTH, *LOGS, *SERVERS, *LAYOUT))


def say_changes(
    start: RunStart, optimizers: Mapping[str, OptimizerConfig], *, update: int, last_update: int
) -> None:
    """Prints which settings are others than before a resume, and what that does to the learning rate.

    Args:
      optimizers: by path, such as {"optimizer": ...}.
      update: optimizer steps made so far, none skipped.
      last_update: those that the run ends with.
    """
    if hosts.is_first():
        for line in resume_lines(
            start.changes, start.before, optimizers, update=update, last_update=last_update
        ):
            print(line, flush=True)


def resume_lines(
    changed: Sequence[Change],
    before: Mapping[str, Setting],
    optimizers: Mapping[str, OptimizerConfig],
    *,
    update: int,
    last_update: int,
) -> list[str]:
    """What `say_changes` prints; `before` are the settings until now, by path."""
    lines = [f"changed: {one}{_rounding(one)}" for one in changed]
    if not any(one.name in LENGTH for one in changed):
        return lines
    for path, optimizer in optimizers.items():
        lines += _rate_lines(path, optimizer, _earlier(optimizer, before, path), update)
        lines += _end_lines(path, optimizer, last_update)
    return lines


def optimizers_of(config: RlConfig) -> dict[str, OptimizerConfig]:
    """The optimizers of an RL run by their paths."""
    critic = {"critic.optimizer": config.critic.optimizer} if config.critic is not None else {}
    return {"optimizer": config.optimizer} | critic


def _rounding(change: Change) -> str:
    names = (change.name, f"{change.name.partition('.')[0]}.*")
    return "; numbers are equal up to rounding from here" if set(names) & set(LAYOUT) else ""


def _earlier(
    now: OptimizerConfig, before: Mapping[str, Setting], path: str
) -> OptimizerConfig | None:
    """The optimizer of `before`: another warm-up or another end of the cosine. None where it is the same."""
    fields: dict[str, int | Cosine] = {}
    warmup = before.get(f"{path}.warmup_steps")
    total = before.get(f"{path}.decay.total_steps")
    if warmup is not None:
        fields["warmup_steps"] = int(warmup.value)
    if now.decay is not None and total is not None:
        fields["decay"] = dataclasses.replace(now.decay, total_steps=int(total.value))
    earlier = dataclasses.replace(now, **fields)
    return None if earlier == now else earlier


def _rate_lines(
    path: str, now: OptimizerConfig, earlier: OptimizerConfig | None, update: int
) -> list[str]:
    if earlier is None:
        return []
    rate, was = (_rate(one, update) for one in (now, earlier))
    along = "" if now.decay is None else f", along a cosine to update {now.decay.total_steps}"
    return [
        f"{path}: the learning rate of update {update} is {rate:.3g}{along}; by the schedule until now "
        f"it was {was:.3g}"
    ]


def _end_lines(path: str, now: OptimizerConfig, last_update: int) -> list[str]:
    if now.decay is None or now.decay.total_steps >= last_update:
        return []
    end = now.learning_rate * now.decay.end_fraction
    return [
        f"{path}: its cosine ends at update {now.decay.total_steps} of {last_update}; the learning rate "
        f"stays at {end:.3g} from there. Cosine.total_steps may be raised"
    ]


def _rate(optimizer: OptimizerConfig, update: int) -> float:
    return float(np.asarray(optimizer.schedule(optimizer.learning_rate)(update)))
