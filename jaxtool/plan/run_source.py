"""What a new run learns from: problems with the judge that can read their answers, or demonstrations; and how long they are."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxtool.core.types import Problem
from jaxtool.data.layout_guess import guess_layout
from jaxtool.data.layouts import PRESETS
from jaxtool.data.named_sets import training_data
from jaxtool.data.problems import ProblemFile
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.judges.base import Judge
from jaxtool.judges.case_files import judge_named
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.references import check_references
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.plan.wish import Wish
from jaxtool.renderers.conversations import read_conversations
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import Renderer
from jaxtool.train.plain_config import judge_for
from jaxtool.train.recipes import Recipe

_BORDER_TOKENS = 32  # a prompt may have more than its parts have
_QUESTION_MARK = "*user question:*"  # of ReTool-SFT, see DemonstrationFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSource:
    """What a run learns from."""

    path: str
    layout: str = ""
    test_path: str | None = None
    problems: Sequence[Problem] = ()  # training and validation
    rows: int  # to train on
    validation: int = 0
    judge: Judge | None = None
    judging: str = ""
    lengths: Sequence[int] = ()  # tokens of demonstrations
    question_after: str | None = None


def problem_source(wish: Wish, recipe: Recipe) -> RunSource:
    """The problem file, read, and the judge that can read its answers."""
    task = problem_file(wish.data, wish.layout)
    training = task.problems("train", None, 0)
    validation = task.problems("validation", None, 0)
    both = [*training, *validation]
    usual: Judge = ExactMatch() if recipe.tool == "search" else Mathematics(reports_lenient=True)
    if wish.judge is not None:
        judge = judge_named(wish.judge)
        said = check_references(judge, both)
    else:
        judge = judge_for(usual, both)
        said = check_references(judge, both)
    layout = task.layout
    assert isinstance(layout, str)
    return RunSource(
        path=task.path,
        layout=layout,
        test_path=task.test_path,
        problems=both,
        rows=len(training),
        validation=len(validation),
        judge=judge,
        judging=said,
    )


def problem_file(text: str, layout: str | None) -> ProblemFile:
    """The problems of --data: `NAME[=FILE]` as everywhere, or a FILE with --layout or one that is recognised.

    Raises:
      ValueError: a layout is named twice, or none is recognised.
    """
    name, has_file, _ = text.partition("=")
    if name in PRESETS and not Path(text).is_file():
        if layout is not None:
            raise ValueError(f"--data {text} names the layout already: leave --layout {layout} out")
        return training_data(text)
    if has_file and not Path(text).is_file():
        return training_data(text)  # says that there is no such layout
    return ProblemFile(path=text, layout=guess_layout(text) if layout is None else layout)


def demonstration_source(wish: Wish, renderer: Renderer, tokenizer: Tokenizer) -> RunSource:
    """The file of demonstrations with the tokens of each."""
    try:
        asked = [row.question for row in read_conversations(wish.data)]
        mark = _QUESTION_MARK if asked and all(_QUESTION_MARK in one for one in asked) else None
        file = DemonstrationFile(path=wish.data, question_after=mark)
        lengths = file.lengths(renderer=renderer, tokenizer=tokenizer)
    except ValueError as error:
        raise ValueError(f"--recipe sft learns from demonstrations: {error}") from None
    return RunSource(path=wish.data, rows=len(lengths), lengths=lengths, question_after=mark)


def prompt_lengths(
    problems: Sequence[Problem], renderer: Renderer, tokenizer: Tokenizer
) -> list[int]:
    """Tokens of every prompt: exact where one may be the longest, elsewhere the question's and the template's.

    A chat template takes a millisecond, and files have 100,000 questions.
    """
    sizes = [len(tokenizer.encode_plain(problem.question)) for problem in problems]
    first = len(renderer.prompt_ids(tokenizer, problems[0])) - sizes[0]
    lengths = [first + size for size in sizes]
    border = max(lengths) - _BORDER_TOKENS
    for i, problem in enumerate(problems):
        if lengths[i] >= border:
            lengths[i] = len(renderer.prompt_ids(tokenizer, problem))
    return lengths
