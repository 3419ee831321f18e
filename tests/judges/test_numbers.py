"""Extraction and the number path; every trap here has been seen in a public recipe."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.judges.answer_format import AnswerFormat, last_boxed
from jaxtool.judges.numbers import equal_numbers, parse_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{3}", "3"),
        (r"first \boxed{3} then \boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{ 5 } and more", "5"),
        (r"\boxed{3} but \boxed{4", None),  # cut off by the length limit: no final answer
        ("the answer is 3, maybe 5", None),
        (r"\boxed{", None),
        ("\\boxed{5\\", None),
        ("", None),
    ],
)
def test_last_box_with_balanced_braces(text: str, expected: str | None):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<answer>\boxed{5}</answer>", "5"),
        ("<answer> 42 </answer>", "42"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        (r"\boxed{9} <answer>2</answer>", "2"),
        (r"<answer>The answer is \boxed{2}.</answer>", "2"),
        (r"no tag \boxed{2}", "2"),
        (r"<answer>\boxed{2}", "2"),  # never closed: the box still counts
        ("<answer>2", None),
        (r"<answer>\boxed{2</answer>", None),
        ("<answer></answer>", None),
        (r"\boxed{}", None),
        (r"<answer>\boxed{ }</answer>", None),
        ("</answer> 7", None),
        ("it is 7", None),
    ],
)
def test_extract_answer(text: str, expected: str | None):
    assert AnswerFormat().extract(text) == expected


def test_the_tag_is_a_setting():
    text = "<final>3</final> <answer>4</answer>"
    assert AnswerFormat(open="<final>", close="</final>").extract(text) == "3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", 1234),
        ("1{,}234,567", 1234567),
        ("033", 33),
        ("-4", -4),
        ("−4", -4),
        ("+5", 5),
        ("3.0", 3),
        ("3.", 3),
        (".5", Fraction(1, 2)),
        ("2,000.50", Fraction(4001, 2)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("1/-2", Fraction(-1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\tfrac12", Fraction(1, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        ("$70", 70),
        (r"\$1,000", 1000),
        (" 12 ", 12),
        ("1e3", 1000),
        (r"1.5 \times 10^{3}", 1500),
        (r"2\cdot10^-1", Fraction(1, 5)),
    ],
)
def test_plain_numbers(text: str, value: Fraction | int):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,23", "12,34,567", "1/0", r"\frac{1}{0}", "10%", "5 cm", "1+1", "2^3", "--4", "1 or 2",
     "1e99999", "1e301", "9" * 1001, "(1,234)", "3, 4", "nan", "inf", "٣"],
)  # fmt: skip
def test_not_plain_numbers(text: str):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("candidate", "reference", "verdict"),
    [
        ("033", "33", True),
        ("3", "3.0", True),
        ("0.5", r"\frac{1}{2}", True),
        ("4", "5", False),
        ("0.3333", "1/3", False),
        (r"x^2+1", r" x^2+1 ", True),  # the same text
        ("123*456", "56088", False),  # the question is no answer
        (r"\frac{10+2}{2}", "6", False),
        ("5 or 6", "5", False),
        ("5!", "120", False),
        ("x=5", "5", None),
        (r"5\text{ cm}", "5", None),
        ("3.1416", r"\pi", None),
        ("(x+1)^2", "x^2+2x+1", None),
    ],
)
def test_equal_numbers(candidate: str, reference: str, verdict: bool | None):
    assert equal_numbers(candidate, reference) is verdict


@given(value=st.fractions(max_denominator=10**6))
def test_every_way_to_write_a_fraction_reads_the_same(value: Fraction):
    sign = "-" if value < 0 else ""
    p, q = abs(value.numerator), value.denominator
    for text in (f"{sign}{p}/{q}", f"{sign}{p:,}/{q}", rf"{sign}\frac{{{p}}}{{{q}}}"):
        assert parse_number(text) == value


@given(text=st.text(alphabet="0123456789.,+-/\\{}frace^$ x!boxed<>answer", max_size=40))
def test_any_text_is_read_without_an_exception(text: str):
    parse_number(text)
    equal_numbers(text, "3")
    AnswerFormat().extract(text)


@given(content=st.text(alphabet="ab{}\\", max_size=20))
def test_what_is_extracted_is_balanced(content: str):
    boxed = last_boxed("\\boxed{" + content + "}")
    if boxed is not None:
        plain = boxed.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert plain.count("{") == plain.count("}")
