"""What a quickstart says at its end is true of its figures, whatever they are."""

import pytest

from jaxtool.study.closing import (
    AGAINST,
    ONE_DRAW,
    SAMPLINGS,
    Word,
    change,
    key,
    needed,
    statements,
    which_tool,
)

LEVELS = {"hard": {"answers": 120}, "one_digit": {"answers": 80}, "two_digit": {"answers": 200}}


def pair(cut, gap, error=0.01, points=0.0):
    return {
        "questions": 400,
        "questions_left_out": 0,
        "calls_cut": cut,
        "calls_difference": gap,
        "calls_difference_stderr": error,
        "accuracy_difference_points": points,
        "accuracy_difference_points_stderr": 1.7,
    }


def results(cold_start, grpo, otc):
    """Of a run with these calls an answer, greedy and sampled."""
    calls = {"cold_start": cold_start, "grpo": grpo, "otc_grpo": otc}
    part = {name: {"tool_calls": made, "levels": LEVELS} for name, made in calls.items()}
    found = {"variants": {name: dict.fromkeys(SAMPLINGS, p) for name, p in part.items()}}
    for new, old in AGAINST:
        cut = 1 - calls[new] / calls[old] if calls[old] else None
        found[key(new, old)] = dict.fromkeys(SAMPLINGS, pair(cut, calls[new] - calls[old]))
    return found


def test_names_of_pairs_are_those_of_the_file():
    assert [key(*pair) for pair in AGAINST] == [
        "otc_against_grpo",
        "otc_against_cold_start",
        "grpo_against_cold_start",
    ]


def test_calls_needed_by_hand():
    """120 of 400 need one call; with 40 chained ones of 440 another 80 calls."""
    assert needed({"levels": LEVELS}) == 0.3
    assert needed({"levels": LEVELS | {"chained": {"answers": 40}}}) == pytest.approx(200 / 440)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (pair(0.834, -1.48), "83 % fewer calls"),
        (pair(-0.25, 0.10), "25 % more calls"),
        (pair(0.24, -0.09, 0.05), "24 % fewer calls (no clear difference: -0.09 ± 0.05)"),
        (pair(0.0, 0.0), "as many calls"),
        (pair(None, 0.0), "no calls on either side"),
        (pair(None, 0.25), "0.25 calls where there were none"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_change_says_its_direction_and_whether_it_is_clear(figures, said):
    assert change(figures) == (said, "accuracy +0.0 ± 1.7 points")


def test_a_change_says_on_how_many_questions_it_rests():
    figures = pair(0.5, -0.5) | {"questions": 398, "questions_left_out": 2}
    assert change(figures)[1].endswith("points, on the 398 questions of which both have the answer")


def test_a_run_in_which_grpo_added_calls():
    """As at d90d9c7, greedy: .53, 1.78 and .30 calls where .30 are needed."""
    lines = statements(results(0.53, 1.78, 0.30))
    assert lines[0] == "OTC-GRPO against GRPO, greedy: 83 % fewer calls, accuracy +0.0 ± 1.7 points"
    assert lines[2].startswith("OTC-GRPO against the cold start, greedy: 43 % fewer calls")
    assert lines[4].startswith("GRPO against the cold start, greedy: 236 % more calls")
    assert lines[6] == (
        "Calls an answer, greedy: the cold start 0.53, GRPO 1.78, OTC-GRPO 0.30; the questions need 0.30"
    )
    assert lines[-1] == ONE_DRAW


def test_a_run_in_which_grpo_did_not_and_otc_lost_needed_calls():
    text = "\n".join(statements(results(0.400, 0.384, 0.25)))
    assert "GRPO against the cold start, greedy: 4 % fewer calls (no clear difference" in text
    assert "OTC-GRPO answers some without the call that they need" in text
    assert "83 %" not in text


def test_a_run_of_few_steps_without_a_call():
    text = "\n".join(statements(results(0.0, 0.0, 0.0)))
    assert "no calls on either side" in text
    assert "the questions need 0.30, so OTC-GRPO answers some" in text


def test_a_run_with_searches_speaks_of_searches():
    word = Word(one="search", many="searches")
    lines = statements(results(0.53, 1.78, 0.25), word, "one draw")
    assert lines[0].startswith("OTC-GRPO against GRPO, greedy: 86 % fewer searches")
    assert lines[6] == (
        "Searches an answer, greedy: the cold start 0.53, GRPO 1.78, OTC-GRPO 0.25; the questions need 0.30, so "
        "OTC-GRPO answers some without the search that they need"
    )
    assert lines[-1] == "one draw"
    assert "call" not in " ".join(lines)


def test_which_tool_each_variant_takes_where_either_will_do():
    def part(**calls):
        return {"levels": {"square": {"tool_calls_by_tool": calls}}}

    variants = {
        "otc_grpo": dict.fromkeys(SAMPLINGS, part(search=0.4, python=0.6)),
        "cheap_search": dict.fromkeys(SAMPLINGS, part(search=1.0)),
    }
    assert which_tool({"variants": variants}, "square")[0] == (
        "Searches and programs an answer of level square, greedy: OTC-GRPO 0.40 and 0.60, OTC-GRPO with cheap "
        "searches 1.00 and 0.00"
    )
