"""What a loop does about numbers that are not finite: counts skipped updates, and ends the run.

The program of an update skips it where its loss or its gradient is not finite (`learn.state`). Here such
steps are counted, and after some in a row the run ends with the batch kept. Sampled log-probs that are
not finite end it at once: nothing can be learned from them. Not covered: weights; `rundir.checkpoints`
neither saves nor loads any that are not finite.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.core.types import Group, trajectories_of
from jaxtool.parallel import hosts

_FOLDER = "non_finite"  # in the work directory
_COUNT = "/skipped_updates"
_FIGURES = ("/loss", "/loss_nats", "/grad_norm")


class SkippedUpdates:
    """The skipped updates of one process; ends the run that has too many steps with one in a row.

    Args:
      limit: steps in a row that end the run.
      steps: of the run. A short run may not skip all of its steps but the first, whatever the limit.
      settings: names and values of the learning rates, for the message.
    """

    def __init__(self, workdir: Path, *, limit: int, steps: int, settings: str):
        self._workdir, self._settings = workdir, settings
        self._limit = max(1, min(limit, steps - 1))
        self._waiting: tuple[int, Mapping[str, Any], TrainBatch] | None = None
        self._last: tuple[int, Mapping[str, Any], TrainBatch] | None = None  # skipped one
        self._in_a_row = 0
        self._count = 0.0

    @property
    def is_over(self) -> bool:
        """Whether `check` raises."""
        return self._in_a_row >= self._limit

    def observe(self, step: int, metrics: Mapping[str, Any], batch: TrainBatch) -> None:
        """Looks at the step before, whose figures are there by now: the devices go on meanwhile.

        Args:
          metrics: of the step's updates, on the devices or not.
          batch: on the host.
        """
        self._look()
        self._waiting = (step, metrics, batch)

    def settle(self) -> float:
        """Looks at the last step as well; returns the updates skipped since the last call."""
        self._look()
        count, self._count = self._count, 0.0
        return count

    def check(self) -> None:
        """Raises RuntimeError after too many steps in a row; the last batch is kept first."""
        if not self.is_over or self._last is None:
            return
        step, metrics, batch = self._last
        columns = {name: x for name, x in vars(batch).items() if x is not None}
        kept = _keep(self._workdir, step, columns)
        raise RuntimeError(
            f"step {step}: {self._in_a_row} steps in a row skipped an update, because its loss or gradient "
            f"was not finite ({_figures(metrics)}). The usual cause is a learning rate that is too high "
            f"({self._settings}): lower it and start over in another --workdir. "
            f"The batch is kept in {kept}; nothing that is not finite was saved"
        )

    def _look(self) -> None:
        if self._waiting is None:
            return
        (step, metrics, _), last = self._waiting, self._waiting
        self._waiting = None
        skipped = [float(x) for name, x in metrics.items() if name.endswith(_COUNT)]
        if not any(skipped):
            # A step without an update says nothing.
            self._in_a_row = 0 if skipped else self._in_a_row
            return
        self._count += sum(skipped)
        self._in_a_row += 1
        self._last = last
        print(
            f"warning: step {step}: {sum(skipped):g} updates skipped, not finite: {_figures(metrics)}",
            file=sys.stderr,
            flush=True,
        )


def check_sampled(groups: Sequence[Group], where: str, workdir: Path | None = None) -> None:
    """Refuses samples of which the decoder gave log-probs that are not finite.

    Args:
      where: begins the message.
      workdir: keeps the tokens and log-probs of the first of them.

    Raises:
      RuntimeError: naming how many, and the first token.
    """
    trajectories = trajectories_of(groups)
    broken = [t for t in trajectories if not np.isfinite(t.behaviour_logprobs).all()]
    if not broken:
        return
    first = broken[0]
    at = int(np.argmin(np.isfinite(first.behaviour_logprobs)))
    kept = ""
    if workdir is not None:
        columns = {
            "tokens": first.ids,
            "origins": first.origins,
            "behaviour_logprobs": first.behaviour_logprobs,
        }
        kept = f" Its tokens are kept in {_keep(workdir, where.replace(' ', '_'), columns)}."
    raise RuntimeError(
        f"{where}: the decoder gave log-probs that are not finite in {len(broken)} of "
        f"{len(trajectories)} answers, first {first.behaviour_logprobs[at]} at token {at} of problem "
        f"{first.problem.problem_id}, sample {first.sample}.{kept} The policy's numbers overflow: it was "
        "trained with too high a learning rate, or needs a compute_dtype of more range"
    )


def _figures(metrics: Mapping[str, Any]) -> str:
    values = {name: float(value) for name, value in metrics.items() if name.endswith(_FIGURES)}
    broken = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not broken:  # metrics are those of the first update
        return "a later update of the batch"
    return ", ".join(f"{name}={value:g}" for name, value in broken.items())


def _keep(workdir: Path, step: int | str, columns: Mapping[str, Any]) -> Path:
    """Writes arrays for inspection with numpy.load; the first host does."""
    name = f"step_{step}" if isinstance(step, int) else step
    path = workdir / _FOLDER / f"{name}.npz"
    if hosts.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: np.asarray(x) for name, x in columns.items()}
        np.savez(path, **arrays)
    return path
