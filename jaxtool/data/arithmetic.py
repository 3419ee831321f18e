"""The learning task that fits a laptop: arithmetic of graded difficulty, with a known need for code.

Three levels a half-million-parameter policy can do in its head, one it cannot (products of
three-digit numbers, modular powers, long sums), for which only the interpreter helps: by design the
text-only policy scores about 0 there and the fewest calls on the mix is the share of that level.

A fifth level, "chained", is off by default. Its question is f(473), and f exists in the interpreter
alone (`LOOKUP_PRELUDE`, put before each program by the renderer `arithmetic_lookup`): it gives a hard
expression as text, and the answer is the value of that. The second program needs what the first one
printed, so two calls are the fewest. That holds for programs that print an expression, which is all
that demonstrations show; eval, exec and compile are gone, but a policy that wrote a parser of its
own could do with one call.

Every level is split into train, validation and test by a hash of the question, so no question of one
split is ever seen in another. A question is a Python expression; its answer is an integer.
"""

import dataclasses
import functools
import random
from collections.abc import Iterator

from jaxtool.core.ranges import check_range
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem
from jaxtool.data.level_mix import mixed_problems
from jaxtool.data.problems import Split, number_of, split_of
from jaxtool.data.tokenizer import VocabularyTokenizer

LEVELS = ("one_digit", "two_and_one_digit", "two_digit", "hard", "chained")
MENTAL_LEVELS = LEVELS[:3]
LOOKUP_PRELUDE = """\
def f(k):
    return f"{100 + k * 7919 % 900}*{100 + k * 3571 % 900}"
eval = exec = compile = None
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArithmeticTask:
    """Shares of the levels in every problem set drawn from the task."""

    one_digit: float = 0.20
    two_and_one_digit: float = 0.25
    two_digit: float = 0.25
    hard: float = 0.30
    chained: float = 0.0  # needs the renderer `arithmetic_lookup`

    def __post_init__(self) -> None:
        check_range(self, *(field.name for field in dataclasses.fields(self)), least=0, most=1)
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"the shares of the levels must sum to 1, got {self.shares}")

    @property
    def shares(self) -> tuple[float, ...]:
        return (self.one_digit, self.two_and_one_digit, self.two_digit, self.hard, self.chained)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems, levels in their shares, interleaved; repeats only if a level is small."""
        draw = random.Random(stream_seed(seed, "arithmetic", split))
        return mixed_problems(
            LEVELS,
            self.shares,
            number_of(count, "ArithmeticTask"),
            lambda level: questions(level, split, draw),
            make_problem,
            draw,
        )


def make_problem(question: str, level: str) -> Problem:
    return Problem(
        problem_id=f"arithmetic/{question}",
        question=question,
        answer=str(value(question)),
        level=level,
    )


def questions(level: str, split: Split, draw: random.Random) -> Iterator[str]:
    """Endless questions of one level and split; small levels come as shuffled passes."""
    if level == "hard":
        while True:
            question = _hard(draw)
            if _split_of(question) == split:
                yield question
    pool = list(_pool(level, split))
    while True:
        draw.shuffle(pool)
        yield from pool


def value(question: str) -> int:
    """Exact value of a question; anything but the task's own forms is refused."""
    if question.startswith("f(") and question[2:-1].isdigit():
        return value(lookup(int(question[2:-1])))
    if question.startswith("pow("):
        a, b, m = (int(x) for x in question[4:-1].split(","))
        return pow(a, b, m)
    if question.startswith("sum(range("):
        a, b = (int(x) for x in question[10:-2].split(","))
        return sum(range(a, b))
    for operator in "*+-":
        left, found, right = question.partition(operator)
        if found and left.isdigit() and right.isdigit():
            a, b = int(left), int(right)
            return a * b if operator == "*" else a + b if operator == "+" else a - b
    raise ValueError(f"{question!r} is no question of the arithmetic task")


def lookup(k: int) -> str:
    """What f(k) of `LOOKUP_PRELUDE` gives: a product of two three-digit numbers."""
    return f"{100 + k * 7919 % 900}*{100 + k * 3571 % 900}"


def printed(expression: str) -> str:
    """What the interpreter prints of one program."""
    return lookup(int(expression[2:-1])) if expression.startswith("f(") else str(value(expression))


def steps_of(question: str) -> tuple[str, ...]:
    """The programs that a question takes one after the other, as expressions to print."""
    if question.startswith("f("):
        return question, printed(question)
    return (question,)


def _enumerate(level: str) -> list[str]:
    if level == "chained":
        return [f"f({k})" for k in range(100, 1000)]
    first, second = {
        "one_digit": (range(10), range(10)),
        "two_and_one_digit": (range(10, 100), range(10)),
        "two_digit": (range(10, 100), range(10, 100)),
    }[level]
    return [f"{a}{operator}{b}" for a in first for operator in "+-" for b in second]


def _split_of(question: str) -> Split:
    return split_of(question, salt="arithmetic split")


@functools.lru_cache
def _pool(level: str, split: Split) -> tuple[str, ...]:
    return tuple(q for q in _enumerate(level) if _split_of(q) == split)


def _hard(draw: random.Random) -> str:
    kind = draw.randrange(3)
    if kind == 0:
        return f"{draw.randrange(100, 1000)}*{draw.randrange(100, 1000)}"
    if kind == 1:
        return (
            f"pow({draw.randrange(10, 100)},{draw.randrange(10, 100)},{draw.randrange(100, 1000)})"
        )
    start = draw.randrange(10, 100)
    return f"sum(range({start},{start + draw.randrange(100, 900)}))"


def arithmetic_tokenizer() -> VocabularyTokenizer:
    """Printable ASCII plus pieces for what the renderer repeats, so that sequences stay short.

    The tags can be written in several ways (whole pieces or single characters), as with real
    vocabularies.
    """
    pieces = [
        "<tools>",
        "<text>",
        "<code>\n```python\nprint(",
        ")\n```\n</code>",
        "<code>",
        "</code>",
        "\n```python\n",
        "\n```\n",
        "print(",
        "\n<interpreter>\n",
        "\n</interpreter>\n",
        "<answer>\\boxed{",
        "}</answer>",
        "</answer>",
        "pow(",
        "sum(range(",
        "))",
        "SyntaxError: ",
        "NameError: ",
        "TypeError: ",
        "ValueError: ",
        "invalid syntax",
    ]
    ascii_pieces = [chr(code) for code in range(32, 127)]
    return VocabularyTokenizer(tuple([*pieces, "\n", *ascii_pieces]))
