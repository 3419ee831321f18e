"""Variants compared after as many sampled tokens, those of the stages that they started from included.

Steps are no measure of cost: a variant that saves calls also samples shorter answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.study.figures import mean_stderr, tokens_until
from jaxtool.study.runner import Study
from jaxtool.study.suite import Variant
from jaxtool.train.rl_config import RlConfig

Curves = Mapping[str, Sequence[tuple[int, float]]]  # values of "accuracy" and "calls" by step


def matched_tokens(study: Study, curves: Mapping[str, Sequence[Curves]]) -> dict[str, Any]:
    """{variant: [{"tokens", "accuracy", "calls"}]} of variants with rollouts at each of `Suite.token_budgets`.

    The figures are those of the latest policy that was validated within the budget, means over seeds;
    there are none where a seed's variant ended with fewer tokens.

    Args:
      curves: sampled validation of each variant and seed, by step.
    """
    found = {}
    for variant in study.variants:
        line = study.rollout_line(variant)
        if not line or any(one.name not in curves for one in line):
            continue
        seeds = [_points(study, line, index, curves) for index in range(len(study.seeds))]
        found[variant.name] = [
            {"tokens": budget}
            | {
                part: mean_stderr([_within(points[part], end, budget) for points, end in seeds])
                for part in ("accuracy", "calls")
            }
            for budget in study.suite.token_budgets
        ]
    return found


def _points(
    study: Study, line: Sequence[Variant], index: int, curves: Mapping[str, Sequence[Curves]]
) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """(tokens so far, value) of every validation, and the tokens of the whole line."""
    points: dict[str, list[tuple[float, float]]] = {"accuracy": [], "calls": []}
    before = 0.0
    for variant in line:
        rows = read_metrics(study.run_dir(variant.name, study.seeds[index]) / METRICS_NAME)
        config = study.config(variant)
        assert isinstance(config, RlConfig)
        answers = config.schedule.problems_per_step * config.schedule.samples
        for part, seen in points.items():
            seen += [
                (before + tokens_until(rows, answers, step), value)
                for step, value in curves[variant.name][index][part]
            ]
        before += tokens_until(rows, answers, len(rows))
    return points, before


def _within(points: Sequence[tuple[float, float]], end: float, budget: int) -> float | None:
    """The latest value within the budget; None if the line ended before or nothing was validated yet."""
    if end < budget:
        return None
    return next((value for tokens, value in reversed(points) if tokens <= budget), None)
