"""What a file of problems holds, looked at before any weight is read: what `experiments.data check` prints.

Rows that cannot be read, repeats, contamination by test sets, answers and the judge that fits them, the longest
prompts, examples. Knows no jax and no model. Not covered: whether the answers are right.
"""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtool.core.types import Problem
from jaxtool.data.contamination import USUAL_N, Match, contaminated
from jaxtool.data.layouts import Layout, layout_of
from jaxtool.data.problem_rows import ProblemSet, SetReader, question_hash
from jaxtool.data.problems import EvaluationSets
from jaxtool.data.rows import read_rows, stem_of
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.judges.base import Judge
from jaxtool.judges.references import check_references, fitting_judge, kinds_of
from jaxtool.renderers.renderer import Renderer

_SHOWN = 5  # examples, faults, matches and prompts of each kind
_MOST_LEVELS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readable:
    """What of a file could be read."""

    found: ProblemSet
    unreadable: int
    faults: tuple[str, ...]  # the first of them, one line each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contamination:
    """What of one test set stands in the file."""

    name: str
    questions: int  # of the test set
    same: int  # that stand in the file word for word
    matches: tuple[Match, ...]  # that share n-grams with it, the largest share first
    n: int
    least_share: float

    def __str__(self) -> str:
        rule = (
            f"one {self.n}-gram of words in common is enough"
            if not self.least_share
            else f"{self.least_share:.0%} of a question's {self.n}-grams of words in common"
        )
        return (
            f"{self.name}: {len(self.matches)} of {self.questions} questions stand in the file ({rule}), "
            f"{self.same} of them word for word"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptLengths:
    """Tokens of the prompts, and the longest of them."""

    renderer: str
    median: int
    p99: int
    longest: tuple[tuple[int, str], ...]  # (tokens, problem_id), the longest first

    def __str__(self) -> str:
        first = ", ".join(f"{tokens} ({name})" for tokens, name in self.longest)
        return f"in {self.renderer}: median {self.median} tokens, 99 % up to {self.p99}; longest {first}"


def read_all(source: str, layout: str | Layout) -> Readable:
    """Every row of a file or hub set; those that cannot be read are counted, and the first are kept.

    Raises:
      FileNotFoundError, ValueError, OSError: the file itself cannot be read, or holds no row.
    """
    layout = layout_of(layout)
    reader, count, faults = SetReader(layout, stem_of(source)), 0, []
    for row in read_rows(source, layout.columns):
        try:
            reader.add(row)
        except ValueError as error:
            count += 1
            if len(faults) < _SHOWN:
                faults.append(str(error))
    found = reader.result(source)
    if not found.rows:
        raise ValueError(f"{source}: the file holds no problem")
    readable = dataclasses.replace(found, rows=found.rows - count)
    return Readable(found=readable, unreadable=count, faults=tuple(faults))


def check_contamination(
    problems: Sequence[Problem],
    sets: EvaluationSets,
    *,
    n: int = USUAL_N,
    least_share: float = 0.0,
) -> Iterator[Contamination]:
    """What of each test set stands in the file, set by set."""
    hashes = {question_hash(problem.question) for problem in problems}
    for each, found in zip(sets.sets, sets.found, strict=True):
        yield Contamination(
            name=each.name,
            questions=len(found.problems),
            same=sum(question_hash(problem.question) in hashes for problem in found.problems),
            matches=tuple(contaminated(problems, found.problems, n=n, least_share=least_share)),
            n=n,
            least_share=least_share,
        )


def prompt_lengths(
    problems: Sequence[Problem], renderer: Renderer, tokenizer: Tokenizer
) -> PromptLengths:
    """Every prompt is rendered and tokenised as a run does it."""
    lengths = [(len(renderer.prompt_ids(tokenizer, p)), p.problem_id) for p in problems]
    ordered = sorted(lengths, key=lambda pair: (-pair[0], pair[1]))
    tokens = sorted(length for length, _ in lengths)
    return PromptLengths(
        renderer=renderer.name,
        median=int(statistics.median(tokens)),
        p99=tokens[min(len(tokens) - 1, int(0.99 * len(tokens)))],
        longest=tuple(ordered[:_SHOWN]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The reference answers, and who can judge them."""

    kinds: dict[str, int]  # by kind, the most frequent first
    several: int  # problems with more than one acceptable answer
    fitting: str | None  # name of the judge that fits; None: none does
    judge: str | None  # what the chosen judge says, one line; None: none was chosen
    is_refused: bool  # the chosen judge cannot judge them

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
        return f"{kinds}; {self.several:,} problems have several acceptable ones"


def check_answers(problems: Sequence[Problem], judge: Judge | None) -> Answers:
    """Kinds of answers and the judge that fits; what a chosen judge says of them."""
    fitting = fitting_judge(problems)
    said, is_refused = None, False
    if judge is not None:
        try:
            said = check_references(judge, problems)
        except ValueError as error:
            said, is_refused = str(error), True
    return Answers(
        kinds=kinds_of(problems),
        several=sum(len(problem.references) > 1 for problem in problems),
        fitting=None if fitting is None else f"{type(fitting).__module__}.{type(fitting).__name__}",
        judge=said,
        is_refused=is_refused,
    )


def levels_of(problems: Sequence[Problem]) -> dict[str, int]:
    """Problems by level, the most frequent ten."""
    return dict(Counter(problem.level for problem in problems).most_common(_MOST_LEVELS))


def examples_of(problems: Sequence[Problem]) -> list[Problem]:
    """Five problems, evenly spaced through the file."""
    step = max(1, len(problems) // _SHOWN)
    return list(problems[::step][:_SHOWN])


def contamination_row(found: Contamination) -> dict[str, Any]:
    """As JSON."""
    return {
        "set": found.name,
        "questions": found.questions,
        "contaminated": len(found.matches),
        "same_question": found.same,
        "n": found.n,
        "least_share": found.least_share,
        "examples": [
            {"test": m.test.question, "found": m.found.question, "share": m.share}
            for m in found.matches[:_SHOWN]
        ],
    }
