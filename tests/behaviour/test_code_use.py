"""ReTool's Figure 3 and ToRL's ratios, by hand."""

import pytest
from helpers.behaviour_answers import CODE_ANSWERS as ANSWERS
from helpers.behaviour_answers import TWO_LINES, answered, ran, searched

from jaxtool.behaviour import code_use
from jaxtool.behaviour.answers import right, wrong


def test_length_with_and_without_the_tools_tokens():
    """Policy tokens 30, 10, 20, 20; of the tool 10, 0, 5, 5. The lost one counts nowhere."""
    assert code_use.policy_tokens(ANSWERS) == 80 / 4
    assert code_use.response_tokens(ANSWERS) == 100 / 4


def test_code_ratio_and_accuracy_with_and_without_code():
    assert code_use.code_ratio(ANSWERS) == 3 / 4
    assert code_use.accuracy(code_use.with_code(ANSWERS)) == pytest.approx(1 / 3)
    assert code_use.accuracy(code_use.without_code(ANSWERS)) == 1.0


def test_a_search_is_no_code_and_an_empty_program_is():
    assert code_use.code_ratio([answered(searched("capital"))]) == 0.0
    assert code_use.code_ratio([answered(ran(""))]) == 1.0


def test_lines_leave_out_blanks_and_comments():
    assert code_use.lines_of(TWO_LINES) == 2
    assert code_use.lines_of("") == 0
    assert code_use.lines_per_answer(ANSWERS) == (3 + 1 + 1) / 3
    assert code_use.lines_per_program(ANSWERS) == 5 / 4


def test_pass_ratio_of_all_of_right_and_of_wrong_answers():
    assert code_use.ok_programs(ANSWERS) == 2
    assert code_use.pass_ratio(ANSWERS) == 2 / 4
    assert code_use.pass_ratio(right(ANSWERS)) == 1 / 2
    assert code_use.pass_ratio(wrong(ANSWERS)) == 1 / 2


def test_last_pass_ratio_asks_for_the_last_program_alone():
    """The right answer's first program fails and its last runs."""
    assert code_use.last_pass_ratio(right(ANSWERS)) == 1.0
    assert code_use.last_pass_ratio(wrong(ANSWERS)) == 1 / 2


def test_executed_ratio_counts_what_came_after_the_limit():
    assert code_use.executed_ratio(ANSWERS) == 4 / (4 + 2)


def test_without_programs_there_is_nothing_to_say():
    plain = [answered(), answered(ran("x"), is_lost=True)]
    for measure in (
        code_use.lines_per_answer,
        code_use.lines_per_program,
        code_use.pass_ratio,
        code_use.last_pass_ratio,
        code_use.executed_ratio,
    ):
        assert measure(plain) is None
    assert code_use.accuracy([]) is None
