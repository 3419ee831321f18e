"""Where the answer stands; every trap here has been seen in a public recipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.judges.answer_format import AnswerFormat, last_boxed


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
        (r"\boxed {5}", "5"),
        (r"\boxed 5", "5"),
        (r"it is $\boxed 12.$", "12"),
        (r"\fbox{42}", "42"),
        (r"\framebox{204} minutes", "204"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{5} and then \boxed{", "5"),  # nothing is in it yet
        (r"\boxedness{5}", None),
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
        ("<answer >5</answer>", "5"),
        ("<answer>5</answer >", "5"),
        ("<answer>**73**</answer>", "73"),
        ("<answer>2**3</answer>", "2**3"),
        ("Final Answer: **73**", "73"),
        ("so\n\n✅ Final Answer: **73**", "73"),
        ("**Final Answer:** 73", "73"),
        ("**Answer**: 73\n", "73"),
        ("Answer: $13$", "$13$"),
        ("Answer: 12\nor not", None),  # not the last line
        ("the answer is 13", None),  # no colon
        ("an answer: 13", None),  # not at the start of a line
        (r"<answer>x+2} final answer is $x+1$</answer>", None),  # braces that do not match
        (r"<answer>\{1, 2\}</answer>", r"\{1, 2\}"),
        (r"Answer: 3 or \boxed{4}", "4"),
    ],
)
def test_extract_answer(text: str, expected: str | None):
    assert AnswerFormat().extract(text) == expected


def test_the_style_answer_tag_takes_the_tag_and_nothing_else():
    form = AnswerFormat(style="answer_tag")
    assert form.extract(r"<answer>\boxed{2}</answer>") == r"\boxed{2}"
    assert form.extract(r"\boxed{2}") is None
    assert form.extract("Answer: 2") is None
    assert form.extract("<answer>a } b</answer>") == "a } b"  # a program, say


def test_the_tag_is_a_setting():
    text = "<final>3</final> <answer>4</answer>"
    assert AnswerFormat(open="<final>", close="</final>").extract(text) == "3"


@given(text=st.text(alphabet="0123456789.,+-/\\{}frace^$ x!boxed<>answer", max_size=40))
def test_any_text_is_read_without_an_exception(text: str):
    AnswerFormat().extract(text)


@given(content=st.text(alphabet="ab{}\\", max_size=20))
def test_what_is_extracted_is_balanced(content: str):
    boxed = last_boxed("\\boxed{" + content + "}")
    if boxed is not None:
        plain = boxed.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert plain.count("{") == plain.count("}")
