"""A search task with a known optimum: facts that a policy can know by heart, and facts in a corpus alone.

The world is made up and the same in every run: 4,000 places, each with a capital and a number, and each
capital with a river. `known_places` are those whose facts demonstrations teach by heart; all facts are in the
corpus. So the fewest calls of each level are known, and calls beyond them are over-use, answers without them
guesses:

  level         question                          by heart   searches  programs
  known         capital of kodami                 yes        0         0
  one_hop       capital of rubeso                 no         1         0
  known_hop     river of capital of kodami        capital    1         0
  two_hop       river of capital of rubeso        no         2         0
  product       473*281                           no         0         1
  look_product  number of rubeso*281              no         1         1
  square        square of 473                     no         0         1    or one search and no program

The second search of `two_hop` needs what the first one found. The last three are the two-tool task, off by
default. Squares stand in the corpus and can be calculated too: which tool a policy takes there is a matter of
price, `CallCost.per_tool`.

Questions of a level are split by hash; those of `known` are the same facts in every split, since nobody knows
by heart what was never shown. Not covered: renderers, demonstrations (`jaxtool.renderers.demonstrations`).

  python -m jaxtool.data.facts runs/facts.jsonl     writes the corpus, for a search server
"""

import argparse
import dataclasses
import functools
import json
import random
import string
from collections.abc import Iterator
from pathlib import Path

from jaxtool.core.bucket_names import check_local
from jaxtool.core.files import write_text
from jaxtool.core.ranges import check_range
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem
from jaxtool.data.level_mix import mixed_problems
from jaxtool.data.problems import Split, number_of, split_of
from jaxtool.data.tokenizer import VocabularyTokenizer

LEVELS = ("known", "one_hop", "known_hop", "two_hop", "product", "look_product", "square")
NUM_PLACES = 4000
KNOWN_PLACES = 64
_SYLLABLES = tuple(f"{consonant}{vowel}" for consonant in "bdkmnrst" for vowel in "aeio")[:20]
_FACTORS = (101, 1000)
UNKNOWN = "?"  # the answer of who knows that it does not know
# Searches and programs that a question of a level takes, for those who know what demonstrations teach. A square
# takes one of either.
FEWEST_CALLS = {
    "known": (0, 0),
    "one_hop": (1, 0),
    "known_hop": (1, 0),
    "two_hop": (2, 0),
    "product": (0, 1),
    "look_product": (1, 1),
    "square": (0, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One call that a question needs: which tool, what it is asked, and what that tells."""

    tool: str  # "search" or "python"
    asked: str  # a query, or an expression to print
    told: str  # the fact, or what the program prints


@functools.lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """8,000 words of three syllables in an order of their own: 4,000 places, then their capitals."""
    words = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES]
    random.Random(stream_seed(0, "facts", "names")).shuffle(words)
    return tuple(words)


def place(index: int) -> str:
    return _names()[index]


@functools.lru_cache(maxsize=1)
def facts() -> dict[str, str]:
    """Every fact: {"capital of kodami": "...", "river of ...": "...", "number of kodami": "473"}; then the squares."""
    draw = random.Random(stream_seed(0, "facts", "world"))
    names = _names()
    capitals = draw.sample(names[NUM_PLACES : 2 * NUM_PLACES], NUM_PLACES)
    rivers = [a + b for a in _SYLLABLES for b in _SYLLABLES]
    found = {}
    for index, capital in enumerate(capitals):
        found[f"capital of {names[index]}"] = capital
        found[f"river of {capital}"] = draw.choice(rivers)
        found[f"number of {names[index]}"] = str(draw.randrange(*_FACTORS))
    return found | {f"square of {factor}": str(factor**2) for factor in range(*_FACTORS)}


def corpus() -> Iterator[dict[str, str]]:
    """A passage for each fact, in Search-R1's form: {"id", "contents": '"kodami"\\ncapital of kodami is ...'}."""
    for number, (what, value) in enumerate(facts().items()):
        title = what.rpartition(" ")[2]
        yield {"id": str(number), "contents": f'"{title}"\n{what} is {value}'}


def write_corpus(path: Path) -> None:
    """The corpus as a file for a search server, 12,899 rows; one that is there already is left alone."""
    text = "".join(json.dumps(row) + "\n" for row in corpus())
    if not path.is_file() or path.read_text("utf-8") != text:
        write_text(path, text)


def steps_of(question: str) -> tuple[Step, ...]:
    """The calls that a question takes for somebody who knows nothing by heart, in order.

    steps_of("river of capital of rubeso")  ->  (search "capital of rubeso", search "river of <capital>")

    A square is calculated; `search_step` looks it up.

    Raises:
      ValueError: it is no question of this task.
    """
    if question.startswith("square of ") and question in facts():
        number = question.removeprefix("square of ")
        return (Step(tool="python", asked=f"{number}*{number}", told=facts()[question]),)
    left, is_product, right = question.partition("*")
    if is_product:
        looked = () if left.isdigit() else steps_of(left)
        factor = looked[-1].told if looked else left
        expression = f"{factor}*{right}"
        return (*looked, Step(tool="python", asked=expression, told=str(int(factor) * int(right))))
    outer, is_two_hop, inner = question.partition(" of capital of ")
    if is_two_hop:
        first = search_step(f"capital of {inner}")
        return first, search_step(f"{outer} of {first.told}")
    return (search_step(question),)


def is_known(fact: str) -> bool:
    """Whether demonstrations teach it by heart: capitals and numbers of the known places."""
    return fact.rpartition(" ")[2] in _known_names() and not fact.startswith("river")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactTask:
    """Shares of the levels in every problem set drawn from the task."""

    known: float = 0.30
    one_hop: float = 0.30
    known_hop: float = 0.10
    two_hop: float = 0.30
    product: float = 0.0  # these three need a second tool
    look_product: float = 0.0
    square: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, *LEVELS, least=0, most=1)
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"the shares of the levels must sum to 1, got {self.shares}")

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(getattr(self, level) for level in LEVELS)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems, levels in their shares, interleaved; repeats only if a level is small."""
        draw = random.Random(stream_seed(seed, "facts", split))
        return mixed_problems(
            LEVELS,
            self.shares,
            number_of(count, "FactTask"),
            lambda level: _questions(level, split, draw),
            make_problem,
            draw,
        )


def make_problem(question: str, level: str) -> Problem:
    return Problem(
        problem_id=f"facts/{question}",
        question=question,
        answer=steps_of(question)[-1].told,
        level=level,
    )


def search_step(fact: str) -> Step:
    """The search for one fact. Raises ValueError if there is no such fact."""
    if fact not in facts():
        raise ValueError(f"{fact!r} is no question of the task of facts")
    return Step(tool="search", asked=fact, told=facts()[fact])


@functools.lru_cache(maxsize=1)
def _known_names() -> frozenset[str]:
    return frozenset(_names()[:KNOWN_PLACES])


def _questions(level: str, split: Split, draw: random.Random) -> Iterator[str]:
    """Endless questions of one level and split; levels without factors come as shuffled passes."""
    names = _names()
    places = names[:KNOWN_PLACES] if level.startswith("known") else names[KNOWN_PLACES:NUM_PLACES]
    if level in ("product", "look_product"):
        while True:
            left = str(draw.randrange(*_FACTORS))
            left = left if level == "product" else f"number of {draw.choice(places)}"
            question = f"{left}*{draw.randrange(*_FACTORS)}"
            if _split_of(question) == split:
                yield question
    if level == "square":
        pool = [f"square of {factor}" for factor in range(*_FACTORS)]
    else:
        is_river = level in ("known_hop", "two_hop")
        what = "river of capital of" if is_river else "capital of"
        pool = [f"{what} {name}" for name in places]
    if level != "known":
        pool = [question for question in pool if _split_of(question) == split]
    while True:
        draw.shuffle(pool)
        yield from pool


def _split_of(question: str) -> Split:
    return split_of(question, salt="facts")


def facts_tokenizer() -> VocabularyTokenizer:
    """Syllables, printable ASCII, and pieces for what questions, passages and renderers repeat.

    A name is three tokens, so copying it is easy to learn and a trajectory stays short.
    """
    pieces = [
        *("<tools>", "<text>", "<search>", "</search>", "<information>", "</information>"),
        *("<code>\n```python\nprint(", ")\n```\n</code>", "<code>", "</code>"),
        *("\n```python\n", "\n```\n", "print(", "<interpreter>", "</interpreter>"),
        *("<answer>", "</answer>"),
        *("capital of ", "river of ", "number of ", "square of ", " is "),
        *("Doc 1(Title: ", ") "),
        *("SyntaxError: ", "NameError: ", "TypeError: ", "ValueError: ", "invalid syntax"),
    ]
    plain = ["\n", *(c for c in string.printable if c.isprintable())]
    return VocabularyTokenizer((*pieces, *_SYLLABLES, *plain))


def main() -> None:
    """Writes the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="the file to write, such as runs/facts.jsonl")
    path = parser.parse_args().corpus
    check_local(path, "the corpus")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_corpus(path)
    print(f"{path}: {len(facts()):,} passages")


if __name__ == "__main__":
    main()
