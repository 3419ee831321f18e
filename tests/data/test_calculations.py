"""Calculations in words: right answers, disjoint splits, one level per question."""

import pytest

from jaxtool.data.calculations import CalculationTask


def expression(problem):
    return problem.question.removeprefix("What is ").removesuffix("?")


def test_answers_are_those_of_the_expression():
    for problem in CalculationTask().problems("train", 300, 0):
        tokens = expression(problem).split()
        total, sign = int(tokens[0]), 1
        if tokens[1] == "*":
            assert int(tokens[0]) * int(tokens[2]) == int(problem.answer)
            continue
        for operator, term in zip(tokens[1::2], tokens[2::2], strict=True):
            sign = 1 if operator == "+" else -1
            total += sign * int(term)
        assert total == int(problem.answer), problem


def test_splits_are_disjoint_and_a_question_has_one_level():
    found: dict[str, tuple[str, str]] = {}
    for split in ("train", "validation", "test"):
        for problem in CalculationTask().problems(split, 400, 1):
            place = (split, problem.level)
            assert found.setdefault(problem.question, place) == place


def test_levels_come_in_their_shares():
    problems = CalculationTask().problems("test", 50, 2)
    counts = {
        level: sum(p.level == level for p in problems) for level in {p.level for p in problems}
    }
    assert counts == {"one_digit_sum": 10, "chain_sum": 15, "product": 25}
    with pytest.raises(ValueError, match="must sum to 1"):
        CalculationTask(product=0.9)
