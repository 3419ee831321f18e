"""Figures of a test as trackers get them: `test/accuracy_fraction/greedy/otc_grpo`. Undefined ones are left out."""

from collections.abc import Mapping
from typing import Any

# Names of figures, and those of metrics.
NAMES = {
    "accuracy": "accuracy_fraction",
    "tool_calls": "calls_per_answer",
    "tool_productivity": "productivity_ratio",
}


def of_evaluations(variants: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Of each variant and way of sampling.

    Args:
      variants: {variant: {way: figures, as `Evaluation.as_json` gives them}}.
    """
    return {
        f"test/{title}/{way}/{variant}": value
        for variant, ways in variants.items()
        for way, part in ways.items()
        for figure, title in NAMES.items()
        if (value := part.get(figure)) is not None
    }


def of_study(found: Mapping[str, Any]) -> dict[str, float]:
    """The same of a study: means over seeds.

    Args:
      found: what `results.results` gives.
    """
    return of_evaluations(
        {
            name: {
                way: {figure: part[way][figure]["mean"] for figure in NAMES}
                for way in ("greedy", "sampled")
            }
            for name, part in found["variants"].items()
        }
    )
