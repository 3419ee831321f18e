"""Layouts: where the rows of a data set keep question and answer, as data; the published ones by name.

A layout is a few paths into a row (`row_path`) and, where the text there holds more than is wanted, a
pattern whose one group is wanted. Not covered: files (`rows`), problems made of rows (`problems`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxtool.data.row_path import RowPath, row_path

# What is done with a question that stands twice with different answers. "drop": it is left out. "keep": rows that
# ask the same with other answers, or on another level, are problems of their own: in PopQA two people may have
# one name.
Conflicts = Literal["refuse", "drop", "keep"]
# What a list under the answer's path means.
AnswerList = Literal["any", "one"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a row keeps its question, its answer and its level."""

    question: str | tuple[str, ...] = "question"  # paths; several are joined as sentences
    question_pattern: str | None = None  # searched in the question's text; group 1 is the question
    question_end: str = ""  # put behind a question that does not end in it, "?" in Search-R1
    answer: str = "answer"  # a path to a text, a number, or a list of them
    answer_pattern: str | None = None  # searched in the answer's text; group 1 is the answer
    # "any": each entry of a list is right. "one": a list must have one entry, because further ones
    # would be parts of the answer.
    answer_list: AnswerList = "any"
    has_json_answers: bool = False  # the answer's text is itself a JSON list of acceptable answers
    aliases: str | tuple[str, ...] = ()  # paths to further acceptable answers
    level: str | None = None  # a path; None: the level is the file's name
    conflicts: Conflicts = "refuse"  # of one question with two answers, see `Conflicts`

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError(
                "Layout.question must not be empty: name a path, as question = 'problem'"
            )
        for path in self.paths:
            row_path(path)
        _check_choice("conflicts", self.conflicts, get_args(Conflicts))
        _check_choice("answer_list", self.answer_list, get_args(AnswerList))
        _check_pattern("question_pattern", self.question_pattern, "the question")
        _check_pattern("answer_pattern", self.answer_pattern, "the answer")

    @property
    def questions(self) -> tuple[RowPath, ...]:
        return _paths(self.question)

    @property
    def alias_paths(self) -> tuple[RowPath, ...]:
        return _paths(self.aliases)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path, as it was written."""
        level = () if self.level is None else (self.level,)
        return (*_texts(self.question), self.answer, *_texts(self.aliases), *level)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the row itself that are read: all that a table has to give."""
        return tuple(dict.fromkeys(row_path(path).column for path in self.paths))


def _texts(paths: str | tuple[str, ...]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else paths


def _paths(paths: str | tuple[str, ...]) -> tuple[RowPath, ...]:
    return tuple(map(row_path, _texts(paths)))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Layout.{name}={value!r} must be one of {', '.join(map(repr, choices))}")


def _check_pattern(name: str, pattern: str | None, what: str) -> None:
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"Layout.{name}={pattern!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            f"Layout.{name}={pattern!r} needs exactly one group, {what}, and has {groups}"
        )


def _balanced(depth: int) -> str:
    """Text whose braces are balanced, down to this depth."""
    inner = r"(?:[^{}]|\\[{}])*"
    for _ in range(depth):
        inner = rf"(?:[^{{}}]|\\[{{}}]|\{{{inner}\}})*"
    return inner


# The last \boxed{...} of a solution, with braces nested four deep.
LAST_BOXED = rf"(?s).*\\boxed\s*\{{({_balanced(4)})\}}"

_FLASHRAG = Layout(answer="golden_answers", question_end="?", conflicts="keep")
_VERL = Layout(question="prompt[-1].content", answer="reward_model.ground_truth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A layout that has a name, and where its rows are published."""

    layout: Layout
    about: str  # whose rows, in a few words
    train: str | None = None  # hub name of rows to train on, as `rows` reads it
    test: str | None = None  # and of those to test on


PRESETS: Mapping[str, Preset] = {
    "plain": Preset(layout=Layout(), about="`question` and `answer`"),
    "dapo_math_17k": Preset(
        # Each question stands about a hundred times, between an instruction and a reminder of how to write the
        # answer, which are the renderer's to give.
        layout=dataclasses.replace(
            _VERL,
            question_pattern=(
                r"(?s)\A(?:Solve the following math problem step by step\.[^\n]*\n+)?(.+?)"
                r"(?:\n+Remember to put your answer[^\n]*)?\s*\Z"
            ),
            conflicts="drop",
        ),
        about="DAPO's 17,000 problems (2503.14476); ReTool trains on them",
        train="BytedTsinghua-SIA/DAPO-Math-17k@train",
    ),
    "torl": Preset(
        layout=_VERL,
        about="ToRL's 28,740 problems (2503.23383, section 3.1), which OTC uses as well",
    ),
    "gsm8k": Preset(
        layout=Layout(answer_pattern=r"####\s*(\S.*?)\s*\Z"),
        about="worked solutions that end in `#### 72`",
        train="openai/gsm8k:main@train",
        test="openai/gsm8k:main@test",
    ),
    "math500": Preset(
        layout=Layout(question="problem", level="level"),
        about="MATH-500: answers in LaTeX, levels 1 to 5",
        test="HuggingFaceH4/MATH-500@test",
    ),
    "aime24": Preset(
        layout=Layout(question="problem"), about="30 problems", test="HuggingFaceH4/aime_2024@train"
    ),
    "aime25": Preset(
        layout=Layout(question="problem"), about="30 problems", test="math-ai/aime25@test"
    ),
    "aime26": Preset(
        layout=Layout(question="problem"), about="30 problems", test="MathArena/aime_2026@train"
    ),
    "amc23": Preset(layout=Layout(), about="40 problems", test="math-ai/amc23@test"),
    "olympiadbench": Preset(
        layout=Layout(
            answer="final_answer",
            answer_list="one",
            answer_pattern=r"(?s)\A\s*\$*\s*(.*?)\s*\$*\s*\Z",
            level="subfield?",
        ),
        about="the 674 open mathematical problems in English without pictures (2402.14008)",
        test="Hothan/OlympiadBench:OE_TO_maths_en_COMP@train",
    ),
    "minerva": Preset(
        layout=Layout(), about="272 problems (2206.14858)", test="math-ai/minervamath@test"
    ),
    "svamp": Preset(
        layout=Layout(question=("Body", "Question"), answer="Answer"),
        about="a body and a question, a number",
        train="ChilleD/SVAMP@train",
        test="ChilleD/SVAMP@test",
    ),
    "asdiv": Preset(
        layout=Layout(question=("body", "question"), answer_pattern=r"\A(.+?)(?:\s*\([^()]*\))?\Z"),
        about="an answer with its unit in brackets, which is dropped",
        test="EleutherAI/asdiv@validation",
    ),
    "mawps": Preset(layout=Layout(question="input", answer="target"), about="`input`, `target`"),
    "retool_sft": Preset(
        layout=Layout(
            question="messages[0].content",
            question_pattern=(
                r"(?s)\*user question:\*\s*(.+?)(?:\s*Remember to place the final answer.*)?\s*\Z"
            ),
            answer="messages[-1].content",
            answer_pattern=LAST_BOXED,
            conflicts="drop",
        ),
        about="ReTool's cold-start demonstrations as problems (2504.11536)",
        train="JoeYing/ReTool-SFT@train",
    ),
    # Deviation: ToolRL puts the instructions into the system turn; here they are the head of the question.
    "rlla": Preset(
        layout=Layout(
            question=("extra_info.instruction", "extra_info.input"),
            answer="reward_model.ground_truth",
            level="data_source",
        ),
        about="ToolRL's data: instructions with the tools, the dialogue so far, the turn wanted",
    ),
    # Search-R1 and OTC train and test on FlashRAG's copies, which have one layout for all seven sets. Each
    # original has its own.
    "flashrag": Preset(
        layout=_FLASHRAG,
        about="FlashRAG's copies of all seven search sets; Search-R1 ends questions in `?`",
        train="PeterJinGo/nq_hotpotqa_train@train",
        test="PeterJinGo/nq_hotpotqa_train@test",
    ),
    "search_r1": Preset(
        layout=dataclasses.replace(_FLASHRAG, level="data_source"),
        about="Search-R1's merged files: FlashRAG's rows; the level is the set that a row is of",
        train="PeterJinGo/nq_hotpotqa_train@train",
        test="PeterJinGo/nq_hotpotqa_train@test",
    ),
    "nq": Preset(
        layout=Layout(question_end="?"),
        about="NQ-open: no question marks, a list of answers",
        train="google-research-datasets/nq_open@train",
        test="google-research-datasets/nq_open@validation",
    ),
    "triviaqa": Preset(
        layout=Layout(answer="answer.value", aliases="answer.aliases?"),
        about="one answer and its aliases",
        train="mandarjoshi/trivia_qa:rc.nocontext@train",
        test="mandarjoshi/trivia_qa:rc.nocontext@validation",
    ),
    "popqa": Preset(
        layout=Layout(
            answer="possible_answers", has_json_answers=True, level="prop", conflicts="keep"
        ),
        about="answers as a JSON list in a text; the level is the relation",
        test="akariasai/PopQA@test",
    ),
    "hotpotqa": Preset(
        layout=Layout(level="type"),
        about="the level is the kind of question, bridge or comparison",
        train="hotpotqa/hotpot_qa:distractor@train",
        test="hotpotqa/hotpot_qa:distractor@validation",
    ),
    "2wiki": Preset(
        layout=Layout(aliases="answer_aliases?"), about="2WikiMultihopQA: a text or a list"
    ),
    "musique": Preset(
        layout=Layout(aliases="answer_aliases?"),
        about="one answer and its aliases, often none",
        test="dgslibisey/MuSiQue@validation",
    ),
    "bamboogle": Preset(
        layout=Layout(question="Question", answer="Answer"),
        about="125 questions",
        test="chiayewken/bamboogle@test",
    ),
}


def preset_named(name: str) -> Preset:
    """Raises ValueError where no preset has this name, with those that there are."""
    if name not in PRESETS:
        raise ValueError(f"there is no layout {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]


def layout_of(layout: str | Layout) -> Layout:
    """A layout itself, by its name, or written as `question=problem, answer=solution, ...`.

    Raises:
      ValueError: no layout has this name, or a field of it is wrong.
    """
    if isinstance(layout, Layout):
        return layout
    if "=" not in layout:
        return preset_named(layout).layout
    return _written_layout(layout)


def _written_layout(text: str) -> Layout:
    """`question=prompt[-1].content, answer=reward_model.ground_truth`; several paths are joined by `+`."""
    given: dict[str, str] = {}
    for part in re.split(r",\s*(?=\w+\s*=)", text.strip()):
        name, _, value = part.partition("=")
        given[name.strip()] = value.strip()
    known = ("question", "answer", "aliases", "level", "question_pattern", "answer_pattern")
    known += ("question_end", "answer_list", "conflicts")
    for name in given:
        if name not in known:
            raise ValueError(f"layout {text!r}: there is no {name!r}; there are {', '.join(known)}")
    values: dict[str, Any] = dict(given)
    for name in ("question", "aliases"):
        if name in given:
            values[name] = tuple(path.strip() for path in given[name].split("+"))
    return dataclasses.replace(Layout(), **values)
