"""Judges groups of samples: the answer format of the renderer, and the run's judge behind it."""

import dataclasses
import time
from collections.abc import Sequence

from jaxtool.core.types import (
    FinishReason,
    Group,
    Sample,
    Trajectory,
    Verdict,
    samples_of,
    with_samples,
)
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.judges.base import Case, OpenJudge


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judging:
    """How a run judges: everything that asks for an answer, or for a verdict, asks this."""

    format: AnswerFormat
    judge: OpenJudge

    def judged(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with a verdict for each sample. Only text of the policy is looked at.

        A sample that could not be judged, as the judge's own infrastructure failed, becomes a masked one.
        """
        samples = samples_of(groups)
        cases = [self.case(sample.trajectory) for sample in samples]
        started = time.monotonic()
        verdicts = self.judge.judge(cases)
        samples = [_timed(sample, started, time.monotonic()) for sample in samples]
        return with_samples(groups, map(_judged, samples, cases, verdicts))

    def case(self, trajectory: Trajectory) -> Case:
        """What the judge is asked about a trajectory."""
        text = self.format.answer_text(trajectory)
        return Case(problem=trajectory.problem, answer=self.format.extract(text), response=text)


def _judged(sample: Sample, case: Case, verdict: Verdict | None) -> Sample:
    if verdict is None:
        lost = dataclasses.replace(
            sample.trajectory, finish_reason=FinishReason.INFRASTRUCTURE, lost_to="judge"
        )
        return dataclasses.replace(sample, trajectory=lost)
    verdict = dataclasses.replace(verdict, answer=case.answer)
    return dataclasses.replace(sample, verdict=verdict)


def _timed(sample: Sample, started_s: float, stopped_s: float) -> Sample:
    """With the span in which the whole set was judged."""
    if sample.times is None:
        return sample
    return dataclasses.replace(
        sample, times=sample.times.with_spans([("judge", started_s, stopped_s)])
    )
