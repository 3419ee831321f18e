"""Judges groups of samples: the answer format of the renderer, and the run's judge behind it."""

import dataclasses
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
        verdicts = self.judge.judge(cases)
        return with_samples(groups, map(_judged, samples, cases, verdicts))

    def case(self, trajectory: Trajectory) -> Case:
        """What the judge is asked about a trajectory."""
        text = self.format.answer_text(trajectory)
        return Case(problem=trajectory.problem, answer=self.format.extract(text), response=text)


def _judged(sample: Sample, case: Case, verdict: Verdict | None) -> Sample:
    if verdict is None:
        lost = dataclasses.replace(sample.trajectory, finish_reason=FinishReason.INFRASTRUCTURE)
        return dataclasses.replace(sample, trajectory=lost)
    verdict = dataclasses.replace(verdict, answer=case.answer)
    return dataclasses.replace(sample, verdict=verdict)
