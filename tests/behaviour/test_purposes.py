"""Purposes of programs: every rule on its example, hostile programs, counts."""

import warnings

import pytest
from helpers.behaviour_answers import answered, ran, searched

from jaxtool.behaviour.program_features import HAS, MAX_CHARS, features
from jaxtool.behaviour.purposes import (
    OTHER,
    PURPOSES,
    RULES,
    UNPARSED,
    purpose_of,
    purpose_shares,
)


@pytest.mark.parametrize("number", range(len(RULES)))
def test_every_rule_decides_its_example(number):
    rule = RULES[number]
    found = features(rule.example)
    assert found is not None
    assert next(r for r in RULES if r.holds(found)) is rule


def test_rules_ask_for_features_that_there_are():
    asked = {name for rule in RULES for name in (*rule.any_of, *rule.all_of)}
    assert {name for name in asked if name.startswith("has:")} <= set(HAS)
    assert all(name.startswith(("has:", "call:", "import:")) for name in asked)


@pytest.mark.parametrize(
    ("program", "purpose"),
    [
        ("import sympy\nprint(sympy.factorint(360))", "calculation"),
        (
            "from sympy import isprime\nprint([n for n in range(50) if isprime(n)])",
            "enumeration and search",
        ),
        (
            "from itertools import permutations\nprint(len(list(permutations('abc'))))",
            "enumeration and search",
        ),
        ("total = 0\nfor n in range(10):\n    total += n\nprint(total)", "calculation"),
        ("for n in range(10):\n    if n % 3 == 0:\n        print(n)", "enumeration and search"),
        ("assert 2 + 2 == 4", "verification"),
        ("a = 2\nprint(f'equal: {a * a == 4}')", "verification"),
        ("a = 2\nif a * a == 4:\n    print('right')", "verification"),
        ("if __name__ == '__main__':\n    print(6 * 7)", "calculation"),
        ("print(max(n * (9 - n) for n in range(9)))", "enumeration and search"),
        ("print(max(range(9), key=lambda n: n % 4))", "enumeration and search"),
        ("from math import comb\nprint(comb(10, 3))", "calculation"),
        ("import numpy as np\nprint(np.linalg.solve(np.eye(2), [1, 2]))", "calculation"),
        ("x = 3\nx == 3", "verification"),
        ("print(all(n * n >= n for n in range(9)))", "verification"),
        ("def f(n):\n    return n\n\nclass A: pass", "definitions"),
        ("'''what it does'''\nimport math", "definitions"),
        ("import numpy.random\nprint(numpy.random.normal())", "simulation"),
        ("import random as r, math\nprint(r.random())", "simulation"),
        ("x", "printing"),
        ("x = 1", OTHER),
        ("", OTHER),
        ("for", UNPARSED),
    ],
)
def test_purposes_by_hand(program, purpose):
    assert purpose_of(program) == purpose
    assert purpose in PURPOSES


HOSTILE = {
    "minus": "-" * 19_999 + "1",
    "not": "not " * 4_999 + "1",
    "brackets": "(" * 20_000,
    "closed brackets": "(" * 190 + "1" + ")" * 190,
    "attributes": "a" + ".a" * 9_999,
    "sums": "1" + "+1" * 9_999,
    "lambdas": "lambda:" * 2_857 + "1",
    "conditions": "1 if 1 else " * 1_600 + "1",
    "blocks": "".join(" " * i + "for a in b:\n" for i in range(90)) + " " * 90 + "pass",
    "digits": "1" * 5_000,
    "nul": "print(1)\0",
    "surrogate": "print('\ud800')",
    "strings": "f'{" * 60,
    "too long": "x\n" * MAX_CHARS,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_have_a_purpose(name):
    assert purpose_of(HOSTILE[name]) in PURPOSES


def test_a_programs_bad_escapes_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert purpose_of("print('\\d' + '\\q' * 2)") == "calculation"


def test_shares_count_programs_the_most_frequent_first():
    found = purpose_shares(
        [
            answered(ran("print(2 * 3)"), ran("print(2 * 4)", "error")),
            answered(ran("assert True"), searched("print(1)")),
            answered(ran("x = 1"), is_lost=True),
        ]
    )
    assert list(found.items()) == [("calculation", 2 / 3), ("verification", 1 / 3)]
    assert purpose_shares([answered()]) == {}
