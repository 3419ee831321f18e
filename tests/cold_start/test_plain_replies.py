"""Texts that no policy should learn, and the rewriter's own thoughts."""

import pytest

from jaxtool.cold_start.plain_replies import check_plain, without_thought
from jaxtool.cold_start.traces import Fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a" * 101, "too_long"),
        (" \n", "empty"),
        ("half \ud800", "no_text"),
        ("bell \x07", "no_text"),
        ("colour \x1b[31m", "no_text"),
        ("right to left \u202e", "no_text"),
        ("so<|im_end|>\n<|im_start|>user", "control_token"),
        ("so<｜end▁of▁sentence｜>", "control_token"),
        ("so</s>", "control_token"),
        ("[INST] more", "control_token"),
        ("so<end_of_turn>", "control_token"),
        ("so <own>", "control_token"),
        ("<think> and never", "open_thought"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(Fault) as fault:
        check_plain(text, max_chars=100, control=("<own>", ""))
    assert fault.value.reason == reason
    assert str(fault.value).isprintable()


def test_mathematics_and_other_scripts_are_text():
    check_plain("a < b | c > d, λ ≤ 3,\r\n\t数学 x[1] \\le", max_chars=100)


def test_a_leading_thought_is_no_part_of_the_reply():
    assert without_thought("<think>\nhm <code>\n</think>\n\nFirst.") == "First."
    assert without_thought("First. <think>x</think>") == "First. <think>x</think>"
    assert without_thought("<think> open") == "<think> open"
