"""Numbers that say a run is unwell, against limits: a warning once per kind, until the number is back.

Not covered: what ends a run (`jaxtool.tools.health`, `jaxtool.train.skipped_updates`).
"""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Literal, NamedTuple

from jaxtool.core.ranges import check_range

Kind = Literal[
    "calls_died_out",
    "failed_calls",
    "lost_answers",
    "mismatch",
    "late_programs",
    "clipping",
    "equal_groups",
    "gradient_spike",
]
_USUAL_STEPS, _FEWEST_USUAL = (
    16,
    8,
)  # whose median is the usual gradient, and how many there must be


@dataclasses.dataclass(frozen=True, kw_only=True)
class HealthLimits:
    """Where a warning begins. No number of the training depends on them."""

    # One call in 100 answers: below it a batch of 128 has about one call, and the reward cannot teach when to call.
    min_calls_per_answer: float = 0.01
    # Calls with an error. Under plain GRPO 10 to 15 % of the calls of right answers go on failing (rStar2-Agent,
    # 2508.20722): half of them is a wrong prompt, a missing package or a tool that does not work.
    max_failed_calls_fraction: float = 0.5
    # Of the answers, lost to tools or judge. ToolHealthConfig ends a run at 0.05; those that are lost are those that
    # call, so less than that biases what is learned.
    max_lost_answers_fraction: float = 0.02
    # k3 of sampler and learner, about d²/2 for a difference of d nats at each token. In float32 it is below 1e-10.
    # d = 0.1 at every token, the most of bfloat16 and int8 (docs/reproducibility.md), gives 0.005: twice that is another
    # program, another temperature or weights that were not copied. On-policy runs only.
    max_mismatch_kl_nats: float = 0.01
    # Programs that were compiled within a step: each may cost a minute, and a shape was forgotten.
    max_late_programs: int = 0
    # Of the policy's tokens: the learning rate or the updates per batch are too high. GSPO clips a hundred times as many
    # tokens as GRPO and learns (2507.18071, 5.2): raise it there if it warns.
    max_clipped_fraction: float = 0.3
    # Groups whose rewards are all equal have no gradient: with 9 of 10 the batch is a tenth of what was paid for.
    max_equal_groups_fraction: float = 0.9
    # Of a gradient's norm over the median of the 16 steps before. The clip (OptimizerConfig.max_grad_norm) keeps such a step
    # from moving the policy further than others; its batch is worth a look. Warns at once.
    max_gradient_ratio: float = 10.0
    # Beyond a limit before a warning: one batch is noise. Late programs warn at once.
    steps_in_a_row: int = 3

    def __post_init__(self) -> None:
        fractions = [field.name for field in dataclasses.fields(self) if "fraction" in field.name]
        check_range(self, *fractions, least=0, most=1)
        check_range(self, "min_calls_per_answer", "max_mismatch_kl_nats", least=0)
        check_range(self, "max_late_programs", least=0)
        check_range(self, "steps_in_a_row", "max_gradient_ratio", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How a run is watched. No number of the training depends on it."""

    # Seconds between lines within a step, and between two states of live.json; 0: neither, live.json at the ends of steps.
    line_every_s: float = 30.0
    limits: HealthLimits = dataclasses.field(default_factory=HealthLimits)

    def __post_init__(self) -> None:
        check_range(self, "line_every_s", least=0)


class Reading(NamedTuple):
    """One number of a step against its limit."""

    metric: str
    value: float
    limit: str  # field of HealthLimits
    bound: float
    is_beyond: bool


_TEXTS: dict[Kind, str] = {
    "calls_died_out": "calls died out",
    "failed_calls": "calls fail",
    "lost_answers": "answers are lost",
    "mismatch": "sampler and learner differ",
    "late_programs": "programs are compiled within a step",
    "clipping": "the clip removes much of the gradient",
    "equal_groups": "most groups have equal rewards",
    "gradient_spike": "the gradient is far larger than usual",
}
_AT_ONCE: tuple[Kind, ...] = ("late_programs", "gradient_spike")


def readings(
    row: Mapping[str, float],
    limits: HealthLimits,
    late_before: float = 0.0,
    usual_gradient: float = 0.0,
) -> dict[Kind, Reading]:
    """Each kind whose metric is in the row.

    Args:
      late_before: `timing/late_programs_total` of the step before.
      usual_gradient: norm of the steps before; 0: nobody knows yet.
    """
    found: dict[Kind, Reading] = {}

    def read(kind: Kind, metric: str, limit: str, *, of_rest: bool = False, less: float = 0.0):
        if metric in row:
            value, bound = row[metric] - less, getattr(limits, limit)
            value = 1 - value if of_rest else value
            is_beyond = value < bound if limit.startswith("min_") else value > bound
            found[kind] = Reading(metric, value, limit, bound, is_beyond)

    read("calls_died_out", "tools/calls_per_answer", "min_calls_per_answer")
    read("failed_calls", "tools/ok_fraction", "max_failed_calls_fraction", of_rest=True)
    read("lost_answers", "tools/infrastructure_failed_fraction", "max_lost_answers_fraction")
    read("mismatch", "mismatch/kl_k3_nats", "max_mismatch_kl_nats")
    read("late_programs", "timing/late_programs_total", "max_late_programs", less=late_before)
    read("clipping", "policy/clipped_fraction", "max_clipped_fraction")
    equal = "max_equal_groups_fraction"
    read("equal_groups", "reward/learnable_group_fraction", equal, of_rest=True)
    norm = row.get("policy/grad_norm", math.nan)
    if usual_gradient and math.isfinite(norm):
        ratio, bound = norm / usual_gradient, limits.max_gradient_ratio
        found["gradient_spike"] = Reading(
            "policy/grad_norm", ratio, "max_gradient_ratio", bound, ratio > bound
        )
    return found


class Health:
    """Reads the rows of one process, step by step.

    Args:
      leaves_out: kinds that say nothing of this run.
      late_before: `timing/late_programs_total` before its first step.
    """

    def __init__(
        self,
        limits: HealthLimits,
        leaves_out: frozenset[Kind] = frozenset(),
        late_before: float = 0.0,
    ):
        self._limits, self._leaves_out, self._late = limits, leaves_out, late_before
        self._in_a_row: dict[Kind, int] = {}
        self._gradients: collections.deque[float] = collections.deque(maxlen=_USUAL_STEPS)
        self.warnings: dict[Kind, str] = {}  # that have not recovered

    def observe(self, step: int, row: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """The metrics to add to the row, and lines to print: new warnings, and those that recovered."""
        found = readings(row, self._limits, self._late, self._usual_gradient())
        if math.isfinite(norm := row.get("policy/grad_norm", math.nan)):
            self._gradients.append(norm)
        self._late = row.get("timing/late_programs_total", self._late)
        metrics: dict[str, float] = {}
        lines: list[str] = []
        for kind, reading in found.items():
            if kind in self._leaves_out:
                continue
            metrics[f"health/beyond_count/{kind}"] = float(reading.is_beyond)
            self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1 if reading.is_beyond else 0
            wanted = 1 if kind in _AT_ONCE else self._limits.steps_in_a_row
            if self._in_a_row[kind] >= wanted and kind not in self.warnings:
                self.warnings[kind] = _text(kind, reading)
                lines.append(f"warning: step {step}: {self.warnings[kind]}")
            elif not reading.is_beyond and kind in self.warnings:
                del self.warnings[kind]
                lines.append(f"step {step}: well again: {_text(kind, reading)}")
        return metrics, lines

    def _usual_gradient(self) -> float:
        """Median norm of the latest steps of this process; 0 where there are too few."""
        enough = len(self._gradients) >= _FEWEST_USUAL
        return statistics.median(self._gradients) if enough else 0.0


def _text(kind: Kind, reading: Reading) -> str:
    if kind == "late_programs":
        number = f"{reading.metric} has grown by {reading.value:g}"
    elif kind == "gradient_spike":
        number = f"{reading.metric} is {reading.value:.3g} times its median of the steps before"
    elif kind in ("failed_calls", "equal_groups"):
        number = f"1 - {reading.metric} is {reading.value:.3g}"
    else:
        number = f"{reading.metric} is {reading.value:.3g}"
    return f"{_TEXTS[kind]}: {number}, HealthLimits.{reading.limit}={reading.bound:g}"
