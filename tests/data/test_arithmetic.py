"""Splits that never share a question, answers without eval, demonstrations that are exact."""

import random

import numpy as np
import pytest

from jaxtool.core.types import Origin
from jaxtool.data import arithmetic
from jaxtool.data.arithmetic import LEVELS, MENTAL_LEVELS, ArithmeticTask, questions, value
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.demonstrations import ArithmeticDemonstrations
from jaxtool.renderers.ledgers import split_response
from jaxtool.renderers.renderer import load_renderer

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("level", MENTAL_LEVELS)
def test_splits_are_disjoint_and_cover_the_level(level):
    pools = [set(arithmetic._pool(level, split)) for split in SPLITS]
    assert all(pools)
    assert sum(map(len, pools)) == len(set.union(*pools)) == len(arithmetic._enumerate(level))


def test_hard_splits_are_disjoint():
    drawn = []
    for split in SPLITS:
        source = questions("hard", split, random.Random(0))
        drawn.append({next(source) for _ in range(500)})
    assert all(drawn)
    assert not drawn[0] & drawn[1]
    assert not drawn[0] & drawn[2]
    assert not drawn[1] & drawn[2]


def test_levels_are_interleaved():
    """Every quarter of a list has each of its levels: a run that stops early has seen all of them."""
    levels = [problem.level for problem in ArithmeticTask().problems("train", 400, 0)]
    for start in range(0, 400, 100):
        assert set(levels[start : start + 100]) == set(levels)


def test_problems_keep_the_shares_of_the_levels():
    task = ArithmeticTask(one_digit=0.2, two_and_one_digit=0.25, two_digit=0.25, hard=0.3)
    problems = task.problems("train", 40, seed=0)
    counts = [sum(p.level == level for p in problems) for level in LEVELS]
    assert counts == [8, 10, 10, 12, 0]
    assert problems == task.problems("train", 40, seed=0)
    assert problems != task.problems("train", 40, seed=1)
    with pytest.raises(ValueError, match="must sum to 1"):
        ArithmeticTask(hard=0.5)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("3+4", 7),
        ("3-40", -37),
        ("123*456", 56088),
        ("pow(12,34,567)", pow(12, 34, 567)),
        ("sum(range(10,110))", 5950),
        ("f(100)", 900 * 800),  # 791900 mod 900 = 800, 357100 mod 900 = 700
    ],
)
def test_values_by_hand(question, answer):
    assert value(question) == answer


@pytest.mark.parametrize("question", ["", "3", "3/4", "3**4", "__import__('os')", "3+x", "3+4+5"])
def test_nothing_else_has_a_value(question):
    with pytest.raises(ValueError, match="no question of the arithmetic task"):
        value(question)


def test_the_lookup_of_the_sandbox_is_the_one_of_the_task():
    """No split shares a question, and each program printed by the first is a product of the second."""
    names = {}
    exec(arithmetic.LOOKUP_PRELUDE, names)
    tool = load_renderer("arithmetic_lookup").tool
    assert tool is not None
    assert tool.prelude == arithmetic.LOOKUP_PRELUDE
    for k in (100, 473, 999):
        assert names["f"](k) == arithmetic.lookup(k)
        assert arithmetic.steps_of(f"f({k})") == (f"f({k})", arithmetic.lookup(k))
        assert value(f"f({k})") == value(arithmetic.lookup(k))
    pools = [set(arithmetic._pool("chained", split)) for split in SPLITS]
    assert sum(map(len, pools)) == len(set.union(*pools)) == 900


def test_chained_demonstrations_look_up_and_then_calculate():
    task = ArithmeticTask(
        one_digit=0.0, two_and_one_digit=0.0, two_digit=0.0, hard=0.0, chained=1.0
    )
    made = ArithmeticDemonstrations(task=task, calls_when_chained=(0.0, 0.0, 1.0)).take(
        1,
        seed=0,
        index=0,
        renderer=load_renderer("arithmetic_lookup"),
        tokenizer=arithmetic.arithmetic_tokenizer(),
    )[0]
    first, second = arithmetic.steps_of(made.problem.question)
    assert made.response_text.count("<code>") == 3
    assert made.response_text.index(f"print({first})") < made.response_text.index(
        f"print({second})"
    )
    assert made.final_text.endswith(f"\\boxed{{{value(first)}}}</answer>")


def test_demonstrations_are_a_pure_function_of_seed_and_index():
    renderer, tokenizer = load_renderer("arithmetic_tools"), arithmetic.arithmetic_tokenizer()

    def ids(seed, index):
        made = ArithmeticDemonstrations().take(
            12, seed=seed, index=index, renderer=renderer, tokenizer=tokenizer
        )
        for t in made:
            t.check()
            tool = decode(tokenizer, t.ids[t.origins == Origin.TOOL])
            assert tool.count("<interpreter>") == t.response_text.count("<interpreter>")
            prompt = int(np.sum(t.origins == Origin.PROMPT))
            assert decode(tokenizer, t.ids[prompt:]) == t.response_text
        return [t.ids.tolist() for t in made]

    assert ids(0, 3) == ids(0, 3)
    assert ids(0, 3) != ids(0, 4)
    assert ids(0, 3) != ids(1, 3)


def test_only_interpreter_spans_after_a_closing_code_tag_are_the_tools():
    renderer = load_renderer("arithmetic_tools")
    span = "\n<interpreter>\n4\n</interpreter>\n"
    response = f"a<interpreter>9</interpreter><code>2+2</code>{span}b{span}<code>"
    pieces = split_response(response, renderer)
    assert "".join(text for text, _ in pieces) == response
    assert [text for text, origin in pieces if origin is Origin.TOOL] == [span]
    assert split_response(response, load_renderer("arithmetic_text")) == [(response, Origin.POLICY)]
