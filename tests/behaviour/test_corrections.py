"""Self-correction, by hand."""

import pytest
from helpers.behaviour_answers import answered, ran, searched

from jaxtool.behaviour.corrections import corrections, is_version, overlap


def test_overlap_by_hand():
    """print ( x ) and print ( y ): 3 of 4 and 4 lexemes."""
    assert overlap("print(x)", "print(y)") == 0.75
    assert overlap("print(x)", "print(x)") == 1.0
    assert overlap("a a b", "a c") == pytest.approx(2 * 1 / 5)
    assert overlap("", "") == 0.0


def test_a_version_differs_and_shares_half():
    assert is_version("print(greedy(7))", "def greedy(n):\n    return n\nprint(greedy(7))")
    assert not is_version("print(x)", "print(x)")
    assert not is_version("print(x)", "import sympy\nfor n in range(9):\n    total += n")


def test_each_failed_program_is_counted_once():
    """Failed: 1 repaired, 1 recovered by another program, 1 followed by its like, 2 without a successor."""
    found = corrections(
        [
            answered(ran("print(x)", "error"), searched("between"), ran("print(7)")),
            answered(ran("print(x)", "error"), ran("for n in range(9):\n    total += n * n")),
            answered(
                ran("f(1)", "error", error="NameError"), ran("f(2)", "error", error="NameError")
            ),
            answered(ran("fine"), ran("while 1: pass", "cpu_limit")),
            answered(ran("x", "error"), is_lost=True),
        ]
    )
    assert (found.failed, found.recovered, found.repaired) == (5, 2, 1)
    assert (found.same_error, found.given_up) == (1, 2)
    assert found.recovered_rate == 2 / 5
    assert found.self_correction_rate == 1 / 5


def test_another_error_is_not_the_same_and_the_same_program_again_is_no_repair():
    found = corrections(
        [
            answered(ran("a", "error", error="A"), ran("a", "error", error="B"), ran("a")),
        ]
    )
    assert (found.failed, found.same_error, found.recovered, found.repaired) == (2, 0, 1, 0)


def test_without_failures_there_is_no_rate():
    found = corrections([answered(ran("x")), answered()])
    assert found.failed == 0
    assert found.recovered_rate is None
    assert found.self_correction_rate is None


def test_long_programs_are_compared_by_their_beginning():
    assert overlap("a " * 1_000_000, "a " * 1_000_000 + "b") == 1.0
