"""Calculations in words: right answers, disjoint splits, one level per question."""

import numpy as np
import pytest
from helpers.chat_of_letters import ChatOfLetters

from jaxtool.core.types import Origin
from jaxtool.data.calculations import CalculationTask
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.demonstrations import CalculationDemonstrations
from jaxtool.renderers.renderer import load_renderer


def test_answers_are_those_of_the_expression():
    for problem in CalculationTask().problems("train", 300, 0):
        tokens = problem.question.split()
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


def answered(problem):
    return f"{problem.question} = {problem.answer}. The answer is \\boxed{{{problem.answer}}}."


def written(renderer, **chances):
    return CalculationDemonstrations(**chances).take(
        40, seed=0, index=1, renderer=load_renderer(renderer), tokenizer=ChatOfLetters()
    )


def test_demonstrations_call_as_often_as_their_level_says():
    """Easy ones never, the others twice; the program is the question's, and the end token is learned."""
    made = written("two_shot_code", calls_when_easy=(1, 0, 0), calls_when_hard=(0, 0, 1))
    for one in made:
        one.check()
        question, answer = one.problem.question, one.problem.answer
        calls = 0 if one.problem.level == "one_digit_sum" else 2
        call = f"<code>\n```python\nprint({question})\n```\n</code>"
        seen = f"\n<interpreter>\n{answer}\n</interpreter>\n"
        assert one.response_text == calls * (call + seen) + answered(one.problem)
        assert decode(ChatOfLetters(), one.ids[one.origins == Origin.TOOL]) == calls * seen
        assert one.ids[-1] == 256
        assert one.origins[-1] == Origin.POLICY
        assert np.sum(one.ids == 256) == 1
    assert {one.problem.level for one in made} == {"one_digit_sum", "chain_sum", "product"}


def test_demonstrations_without_a_tool_answer_at_once():
    for one in written("two_shot_text"):
        assert one.response_text == answered(one.problem)
        assert not np.any(one.origins == Origin.TOOL)


def test_chances_that_are_none_are_refused_by_name():
    with pytest.raises(ValueError, match="calls_when_hard must be three chances"):
        CalculationDemonstrations(calls_when_hard=(0.5, 0.6, 0.0))


def test_the_prompts_of_the_study_differ_only_in_the_tool():
    """Same questions, and answers end alike."""
    code, text = (
        load_renderer(name).prompt_text(ChatOfLetters(), "2 + 3")
        for name in ("two_shot_code", "two_shot_text")
    )
    for prompt in (code, text):
        assert prompt.endswith("[user]What is 2 + 3?[assistant]")
        assert prompt.count("37 * 24 = 888. The answer is \\boxed{888}.") == 1
    assert "<code>" in code
    assert "<code>" not in text
