"""What a quickstart says at its end, out of its figures alone. Pure functions.

OTC-GRPO is put beside three things: GRPO, the cold start that both began with, and the calls that the questions need.
A cut against GRPO alone would also count calls that GRPO added itself. Every sentence is computed, so it
is true of the run whatever its seed, processor and versions did.

Not covered: how the figures vary over seeds (benchmarks/quickstart_seeds.py).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtool.behaviour.call_need import calls_needed

SAMPLINGS = ("greedy", "sampled")
AGAINST = (("otc_grpo", "grpo"), ("otc_grpo", "cold_start"), ("grpo", "cold_start"))
NAMES = {"cold_start": "the cold start", "grpo": "GRPO", "otc_grpo": "OTC-GRPO"}
_PRICED = {
    "cheap_search": "OTC-GRPO with cheap searches",
    "cheap_python": "OTC-GRPO with cheap programs",
}
ONE_DRAW = (
    "This is one seed on one processor, and another ends elsewhere: docs/experiments.md, "
    "'The quickstart over seeds'."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """What a call is called."""

    one: str = "call"
    many: str = "calls"


CALL = Word()
_CLEAR = 2.0  # standard errors from which on a difference is called one


def key(new: str, old: str) -> str:
    """Name of a pair in results.json."""
    return f"{new.removesuffix('_grpo')}_against_{old}"


def needed(part: Mapping[str, Any]) -> float:
    """Calls an answer that the questions of an evaluation take, by the mix of their levels.

    Example: 120 hard answers of 400 need one call each: 0.30.
    """
    answers = {level: figures["answers"] for level, figures in part["levels"].items()}
    calls = sum(count * calls_needed(level) for level, count in answers.items())
    return calls / max(1, sum(answers.values()))


def statements(
    results: Mapping[str, Any], word: Word = CALL, one_draw: str = ONE_DRAW
) -> list[str]:
    """Lines for the console.

    Args:
      results: of a quickstart, with figures in every part.
      one_draw: the last line, which says how far the figures hold.
    """
    lines = []
    for new, old in AGAINST:
        for way in SAMPLINGS:
            text, note = change(results[key(new, old)][way], word)
            lines.append(f"{NAMES[new]} against {NAMES[old]}, {way}: {text}, {note}")
    lines += [_against_the_needed(results, way, word) for way in SAMPLINGS]
    return [*lines, one_draw]


def which_tool(results: Mapping[str, Any], level: str) -> list[str]:
    """Lines that say which tool each variant takes on a level that either of two answers."""
    lines = []
    for way in SAMPLINGS:
        parts = {}
        for variant, both in results["variants"].items():
            calls = both[way]["levels"].get(level, {}).get("tool_calls_by_tool", {})
            name = (NAMES | _PRICED)[variant]
            parts[name] = f"{calls.get('search', 0):.2f} and {calls.get('python', 0):.2f}"
        each = ", ".join(f"{name} {calls}" for name, calls in parts.items())
        lines.append(f"Searches and programs an answer of level {level}, {way}: {each}")
    return lines


def change(figures: Mapping[str, float | None], word: Word = CALL) -> tuple[str, str]:
    """(`83 % fewer calls`, `accuracy +0.0 ± 1.7 points`)."""
    gap, error = figures["accuracy_difference_points"], figures["accuracy_difference_points_stderr"]
    accuracy = f"accuracy {gap:+.1f} ± {error:.1f} points"
    if figures["questions_left_out"]:
        accuracy += f", on the {figures['questions']} questions of which both have the answer"
    return _calls(figures, word.many), accuracy


def _calls(figures: Mapping[str, float | None], calls: str) -> str:
    cut, gap = figures["calls_cut"], figures["calls_difference"]
    error = figures["calls_difference_stderr"]
    assert gap is not None
    assert error is not None
    if gap == 0:
        return f"as many {calls}" if cut is not None else f"no {calls} on either side"
    if cut is None:
        return f"{gap:.2f} {calls} where there were none"
    shown = f"{abs(100 * cut):.0f} % {'fewer' if cut > 0 else 'more'} {calls}"
    is_clear = abs(gap) > _CLEAR * error
    return shown if is_clear else f"{shown} (no clear difference: {gap:+.2f} ± {error:.2f})"


def _against_the_needed(results: Mapping[str, Any], way: str, word: Word) -> str:
    """The calls of each variant beside those that the questions need."""
    parts = {name: results["variants"][name][way] for name in NAMES}
    least = needed(parts["otc_grpo"])
    calls = parts["otc_grpo"]["tool_calls"]
    each = ", ".join(f"{NAMES[name]} {part['tool_calls']:.2f}" for name, part in parts.items())
    text = f"{word.many.capitalize()} an answer, {way}: {each}; the questions need {least:.2f}"
    if calls < least - 1e-9:
        return f"{text}, so OTC-GRPO answers some without the {word.one} that they need"
    return text
