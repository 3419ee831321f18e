"""Accuracy over calls as a picture (OTC-PO, 2504.14870, figure 1): calls of an answer to the right, accuracy up.

One point a policy, with an interval on both axes; asked with several call budgets a policy is a curve. Up and to the
left is better. Every source of figures has its way to points: answers of an evaluation, figures with standard errors,
means over seeds. Pure functions.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtool.report.page import Curve, Series
from jaxtool.rollout.answer_intervals import Figure, interval, resample
from jaxtool.rollout.answer_table import table_of
from jaxtool.rundir.answer_records import AnswerRecord
from jaxtool.study.intervals import t_interval
from jaxtool.train.evaluation import Evaluation

TITLE = "Accuracy over calls"
Ends = tuple[float, float]  # what a figure cannot pass
_SHARE: Ends = (0.0, 1.0)
_COUNT: Ends = (0.0, math.inf)
_NORMAL = 1.96  # standard errors of an interval of 95 %, of many questions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spot:
    """One point."""

    name: str  # of the policy; points of one name are joined
    calls: Figure  # an answer
    accuracy: Figure  # a share
    label: str = ""  # such as "up to 2 calls"


def accuracy_over_calls(spots: Iterable[Spot], *, title: str = TITLE, note: str = "") -> Curve:
    """The picture, points of a policy in their order; the note says what the intervals are over."""
    by_name: dict[str, list[Spot]] = {}
    for spot in spots:
        by_name.setdefault(spot.name, []).append(spot)
    over = sorted(
        {figure.over for s in by_name.values() for p in s for figure in (p.calls, p.accuracy)}
    )
    said = (
        f"Bars are intervals of 95 % over {' or '.join(filter(None, over))}." if any(over) else ""
    )
    return Curve(
        title=title,
        x_label="calls an answer (TC)",
        y_label="accuracy",
        series=tuple(_series(name, own) for name, own in by_name.items()),
        note=" ".join(filter(None, (said, note))),
    )


def spot_of_answers(seeds: Sequence[Sequence[AnswerRecord]], *, name: str, label: str = "") -> Spot:
    """The point of a policy's answers under one condition; answers that were lost are in no figure.

    Of one seed the intervals are over questions and their answers, of several they are t-intervals over seeds.
    """
    found = [_figures(records) for records in seeds]
    if len(found) == 1:
        accuracy, calls = found[0]
        return Spot(name=name, label=label, accuracy=accuracy, calls=calls)
    return Spot(
        name=name,
        label=label,
        accuracy=_over_seeds([accuracy.value for accuracy, _ in found], _SHARE),
        calls=_over_seeds([calls.value for _, calls in found], _COUNT),
    )


def spot_of_figures(part: Mapping[str, Any], *, name: str, label: str = "") -> Spot:
    """The point of figures with standard errors over questions: an evaluation's "accuracy", "accuracy_stderr", ..."""
    return Spot(
        name=name,
        label=label,
        accuracy=_normal(part["accuracy"], part["accuracy_stderr"], _SHARE),
        calls=_normal(part["tool_calls"], part["tool_calls_stderr"], _COUNT),
    )


def pictures_of_evaluations(variants: Mapping[str, Mapping[str, Evaluation]]) -> tuple[Curve, ...]:
    """A picture for greedy and for sampled answers; evaluations that lost too many answers are in none.

    Args:
      variants: by name, then by way of sampling; ways such as "sampled_calls_2" are points of one curve.
    """
    by_sampling: dict[str, list[Spot]] = {}
    for name, ways in variants.items():
        for way, evaluation in ways.items():
            sampling, _, condition = way.partition("_")
            if not evaluation.is_refused:
                label = condition.replace("_", " ")
                spot = spot_of_figures(evaluation.overall, name=name, label=label)
                by_sampling.setdefault(sampling, []).append(spot)
    return tuple(
        accuracy_over_calls(spots, title=f"{TITLE}, {sampling}")
        for sampling, spots in by_sampling.items()
    )


def spot_of_means(part: Mapping[str, Any], *, name: str, label: str = "") -> Spot | None:
    """The point of means over seeds, as a study has them; None where a seed has no figure."""
    accuracy, calls = part["accuracy"], part["tool_calls"]
    if accuracy["mean"] is None or calls["mean"] is None:
        return None
    return Spot(
        name=name,
        label=label,
        accuracy=_over_seeds(accuracy["seeds"], _SHARE),
        calls=_over_seeds(calls["seeds"], _COUNT),
    )


def _figures(records: Sequence[AnswerRecord]) -> tuple[Figure, Figure]:
    table = table_of(records)
    drawn = resample(table)
    used = table.present > 0
    share = table.correct.sum(1)[used] / table.present[used]
    calls = drawn.sums("calls") / drawn.sums("answers")
    return (
        interval(float(share.mean()), drawn.means("correct"), drawn.over),
        interval(float(table.calls.sum()) / table.answers, calls, drawn.over),
    )


def _over_seeds(values: Sequence[float], ends: Ends) -> Figure:
    """The mean with its t-interval, cut at `ends`; of one seed a point without one."""
    if len(values) < 2:
        return Figure(value=values[0], low=values[0], high=values[0], over="")
    found = t_interval(values)
    return Figure(
        value=found.mean, low=max(found.low, ends[0]), high=min(found.high, ends[1]), over="seeds"
    )


def _normal(value: float, stderr: float, ends: Ends) -> Figure:
    """± 1.96 standard errors over questions, cut at `ends`."""
    low, high = value - _NORMAL * stderr, value + _NORMAL * stderr
    return Figure(value=value, low=max(low, ends[0]), high=min(high, ends[1]), over="questions")


def _series(name: str, spots: Sequence[Spot]) -> Series:
    def ends(figure: Figure) -> tuple[float, float] | None:
        return (figure.low, figure.high) if figure.over else None

    return Series(
        name=name,
        xs=[spot.calls.value for spot in spots],
        ys=[spot.accuracy.value for spot in spots],
        x_intervals=[ends(spot.calls) for spot in spots],
        y_intervals=[ends(spot.accuracy) for spot in spots],
        labels=[spot.label for spot in spots],
    )
