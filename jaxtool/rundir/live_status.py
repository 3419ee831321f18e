"""What a run does now, as a small file in its directory: written by the run, read by `experiments.top`.

`live.json` is replaced whole, so a reader sees one moment. It stays when the run ends, however it ends: whether the run
still lives is for its lock to say. Not covered: what a step was like (`metrics.jsonl`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtool.core.durations import format_duration
from jaxtool.core.files import write_text

LIVE = "live.json"
# Phases of a step. In ROLLOUTS and VALIDATION answers come back.
WEIGHTS, DATA, ROLLOUTS, JUDGE, UPDATE = "weights", "data", "rollouts", "judge", "update"
VALIDATION, CHECKPOINT, COMPILE = "validation", "checkpoint", "compile"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveStatus:
    """One moment of a run, as its first host sees it."""

    written_at: float  # seconds since 1970
    every_s: float  # how often it is written; 0: at the ends of steps only
    step: int  # in the making, from 0; `steps` behind the last one
    steps: int  # of the run
    phase: str  # of the step: data, rollouts, judge, update, ...; "" for statistics and files
    phase_s: float  # since it began
    step_s: float  # since the step began
    answers_done: int = 0  # of this host, in rollouts and validations
    answers_asked: int = 0
    calls: int = 0  # that have come back in this step
    waiting: int = 0  # rows that wait for tools
    tokens_per_s: float = 0.0  # sampled, since the status before
    left_step_s: float | None = None  # an estimate; None: nothing to go by yet
    left_run_s: float | None = None
    warnings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # kind -> what is wrong


def left_in_rollouts(
    *, done: int, asked: int, came: int, phase_s: float, after_s: float
) -> float | None:
    """Seconds left in a step whose answers come back at the rate so far: (asked - done) phase_s / came + after_s.

    Args:
      done: answers that are there.
      came: those of them that came in this phase, in its `phase_s` seconds.
      after_s: what followed the rollouts in the step before.
    """
    return (asked - done) * phase_s / came + after_s if came else None


def left_in_run(
    *, steps_left: int, step_s: float | None, left_step_s: float | None
) -> float | None:
    """Seconds left in a run: those of this step and of `steps_left` more with `step_s` each, validations included."""
    if step_s is None:
        return None
    return steps_left * step_s + (step_s if left_step_s is None else left_step_s)


def status_line(status: LiveStatus) -> str:
    """`step 13/100  rollouts 1:30  answers 3012/8192  calls 2210  waiting 41  18.1k tok/s  left 31:10`."""
    parts = [f"step {min(status.step + 1, status.steps)}/{status.steps}"]
    parts.append(f"{status.phase or 'bookkeeping'} {format_duration(status.phase_s)}")
    if status.phase in (ROLLOUTS, VALIDATION):
        parts.append(f"answers {status.answers_done}/{status.answers_asked}")
        parts.append(f"calls {status.calls}")
        parts.append(f"waiting {status.waiting}")
        parts.append(f"{_thousands(status.tokens_per_s)} tok/s")
    if status.left_step_s is not None:
        parts.append(f"left {format_duration(status.left_step_s)}")
    return "  ".join(parts)


def write_live(workdir: Path, status: LiveStatus) -> None:
    """Replaces the file in one step. Raises OSError where the disk does."""
    write_text(workdir / LIVE, json.dumps(dataclasses.asdict(status), indent=1))


def read_live(workdir: Path) -> LiveStatus | None:
    """The run's last status; None where there is none, or none of this version."""
    try:
        record: Any = json.loads((workdir / LIVE).read_text(encoding="utf-8"))
        return LiveStatus(**record)
    except (OSError, ValueError, TypeError):
        return None


def _thousands(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"
