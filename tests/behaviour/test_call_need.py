"""Over-use and under-use, by hand."""

import pytest
from helpers.behaviour_answers import answered, ran

from jaxtool.behaviour.call_need import calls_needed, over_use, under_use, use_against_need
from jaxtool.data.arithmetic import LEVELS
from jaxtool.data.facts import LEVELS as FACT_LEVELS


def test_over_use_and_under_use_by_hand():
    """Made 2, 0, 1 where 0, 1, 1 are needed: 2 too many and 1 too few in 3 answers."""
    assert over_use([2, 0, 1], [0, 1, 1]) == 2 / 3
    assert under_use([2, 0, 1], [0, 1, 1]) == 1 / 3


def test_no_answers_and_other_lengths_are_refused():
    with pytest.raises(ValueError, match="no answers"):
        over_use([], [])
    with pytest.raises(ValueError, match="shorter"):
        over_use([1, 2], [1])


def test_calls_that_each_level_takes():
    assert [calls_needed(level) for level in LEVELS] == [0, 0, 0, 1, 2]
    assert [calls_needed(level) for level in FACT_LEVELS] == [0, 1, 1, 2, 1, 2, 1]


def test_nobody_knows_the_need_of_other_levels():
    with pytest.raises(ValueError, match="level 'aime24': the fewest calls are known of"):
        calls_needed("aime24")
    assert use_against_need([answered(level="hard"), answered(level="aime24")]) is None
    assert use_against_need([answered(level="hard", is_lost=True)]) is None


def test_use_against_need_leaves_out_lost_answers():
    found = use_against_need(
        [
            answered(ran("x"), ran("y"), level="hard"),
            answered(level="chained"),
            answered(level="aime24", is_lost=True),
        ]
    )
    assert found == {"needed": 1.5, "over_use": 0.5, "under_use": 1.0}
