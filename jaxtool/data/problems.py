"""Problem sets of files and of the hub, and the split of any problem set by hash.

A question of the test file is never trained on. Not covered: rows (`problem_rows`), prompts, order (`batches`).
"""

import dataclasses
import functools
import hashlib
import random
from typing import Literal, Protocol

from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem
from jaxtool.data.layouts import Layout, layout_of
from jaxtool.data.problem_rows import ProblemSet, level_of, question_hash, read_set

Split = Literal["train", "validation", "test"]


class Task(Protocol):
    """Where problems come from."""

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems of a split, drawn by the seed; None: all, where there is a last one."""
        ...


def split_of(text: str, *, salt: str = "problem split") -> Split:
    """80 % train, 10 % validation, 10 % test, by a hash that is the same everywhere.

    Args:
      text: what identifies the problem, its question or its id.
      salt: another salt is another split.
    """
    bucket = hashlib.blake2b(f"{salt} {text}".encode(), digest_size=4).digest()
    part = int.from_bytes(bucket) % 10
    return "test" if part == 9 else "validation" if part == 8 else "train"


def apportion(shares: tuple[float, ...], count: int) -> list[int]:
    """`count` in parts of these shares by largest remainders: whole numbers that sum to it."""
    exact = [share * count for share in shares]
    counts = [int(x) for x in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: count - sum(counts)]:
        counts[i] += 1
    return counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemFile:
    """A problem set of files or of the hub, with its splits.

    With one file all three splits are cut from it by hash. With a test file of its own, that is the
    whole test split: the other file gives train and validation, less any question that it shares with
    the test file.
    """

    path: str  # parquet, JSONL, JSON, CSV; or `org/name[:config][@split]` on the hub
    layout: str | Layout = "plain"  # by name, see `layouts.PRESETS`, or one's own
    test_path: str | None = None
    test_layout: str | Layout | None = None  # None: that of the other file

    def __post_init__(self) -> None:
        layout_of(self.layout)
        if self.test_layout is not None:
            if self.test_path is None:
                raise ValueError(f"ProblemFile.test_layout={self.test_layout!r} needs a test_path")
            layout_of(self.test_layout)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` different problems of a split, drawn by the seed; None: all of them.

        Raises:
          ValueError: the split holds fewer.
        """
        pool = self._pool(split)
        count = len(pool) if count is None else count
        if count > len(pool):
            raise ValueError(
                f"{count} problems asked of split {split!r} of {self.path}, which holds {len(pool)}"
            )
        return random.Random(stream_seed(seed, "jsonl", split)).sample(pool, count)

    @functools.cached_property
    def training_set(self) -> ProblemSet:
        """The file's problems, of all splits where there is no test file; read once."""
        return read_set(self.path, self.layout)

    @functools.cached_property
    def test_set(self) -> ProblemSet | None:
        """The test file's; read once."""
        if self.test_path is None:
            return None
        layout = self.layout if self.test_layout is None else self.test_layout
        return read_set(self.test_path, layout)

    def _pool(self, split: Split) -> list[Problem]:
        if self.test_set is None:
            return [p for p in self.training_set.problems if _split(p) == split]
        test = self.test_set.problems
        if split == "test":
            return list(test)
        held_out = {question_hash(p.question) for p in test}
        rest = [p for p in self.training_set.problems if question_hash(p.question) not in held_out]
        return [p for p in rest if (_split(p) == "validation") == (split == "validation")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A whole file as a test set."""

    name: str
    path: str  # a file or a hub name
    layout: str | Layout
    level: str | None = (
        None  # only the rows of this level, where one file holds several sets; None: all
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSets:
    """Test sets of an evaluation: files that are test questions as a whole. They hold nothing to train on.

    problem_id begins with the set's name; where there are several sets the level is that name.
    """

    sets: tuple[EvaluationSet, ...]

    def __post_init__(self) -> None:
        names = [each.name for each in self.sets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two test sets are named {twice[0]!r}: name one of them otherwise")

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """Of each set `count` problems, drawn by the seed, or all where it holds fewer.

        Raises:
          ValueError: another split than "test" is asked for.
        """
        if split != "test":
            raise ValueError(f"split {split!r} asked of test sets, which hold nothing to train on")
        drawn: list[Problem] = []
        for each, found in zip(self.sets, self.found, strict=True):
            pool = [self._named(problem, each.name) for problem in found.problems]
            draw = random.Random(stream_seed(seed, "evaluation sets", each.name))
            size = len(pool) if count is None else min(count, len(pool))
            drawn += draw.sample(pool, size)
        return drawn

    @functools.cached_property
    def found(self) -> tuple[ProblemSet, ...]:
        """The problems of each set; read once, as a file is that several sets lie in.

        Raises:
          ValueError: no row is of a set's level, or its file is none of problems; one line.
        """
        files: dict[tuple[str, str | Layout], ProblemSet] = {}
        found: list[ProblemSet] = []
        for each in self.sets:
            key = (each.path, each.layout)
            files[key] = files[key] if key in files else read_set(*key)
            found.append(_of_level(files[key], each))
        return tuple(found)

    def _named(self, problem: Problem, name: str) -> Problem:
        digest = problem.problem_id.rpartition("/")[2]
        level = problem.level if len(self.sets) == 1 else level_of(name)
        return dataclasses.replace(problem, problem_id=f"{name}/{digest}", level=level)


def _of_level(whole: ProblemSet, wanted: EvaluationSet) -> ProblemSet:
    if wanted.level is None:
        return whole
    problems = tuple(p for p in whole.problems if p.level == wanted.level)
    if not problems:
        levels = ", ".join(sorted({p.level for p in whole.problems}))
        raise ValueError(
            f"{wanted.path}: no row is of the set {wanted.name}, whose level is {wanted.level!r}: its levels are "
            f"{levels}"
        )
    return dataclasses.replace(whole, problems=problems, rows=len(problems), conflicts=0, twins=0)


def number_of(count: int | None, task: str) -> int:
    """`count`, for tasks that make as many problems as they are asked.

    Raises:
      ValueError: all were asked.
    """
    if count is None:
        raise ValueError(f"{task} has no last problem: say how many, Schedule.pool = 4096 for one")
    return count


def _split(problem: Problem) -> Split:
    return split_of(question_hash(problem.question))
