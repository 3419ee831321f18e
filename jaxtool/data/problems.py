"""Problem sets from JSONL files, and the split of any problem set by hash.

Files are read by `json_lines`. Covered: the layouts of GSM8K, MATH-500, AIME, SVAMP, ASDiv and MAWPS
(question keys, answer key, a pattern for the answer), duplicates, contamination of a training
file by a test file, worked solutions in place of answers (refused).
A list under the answer's key holds acceptable answers, of which any one is right. Layouts of question
answering with search are in `qa_layouts`.
Not covered: downloads, prompts, order (`batches`).

Every fault of a file is one line that names file, line number and key, before anything is trained.
"""

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtool.core.json_lines import as_text, read_rows, value_at
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem

Split = Literal["train", "validation", "test"]


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


def question_hash(question: str) -> str:
    """16 hexadecimal digits of the question's words; spacing does not matter, case does."""
    words = " ".join(question.split())
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlFormat:
    """Where a row keeps its question and answer; `reward_model.ground_truth` is a key inside a key."""

    question_keys: tuple[str, ...] = ("question",)  # several are joined as sentences
    answer_key: str = "answer"
    answer_pattern: str | None = None  # searched in the answer's text; group 1 is the answer
    alias_keys: tuple[str, ...] = ()  # further acceptable answers; a row may lack them
    has_json_answers: bool = False  # the answer's text is itself a JSON list of acceptable answers
    question_end: str = ""  # put behind a question that does not end in it, "?" in Search-R1
    level_key: str | None = None  # None: the level is the file's name
    # Rows that ask the same with other answers, or on another level, are problems of their own, as in PopQA,
    # where names are not unique. False: they are refused.
    keeps_repeats: bool = False

    def __post_init__(self) -> None:
        if not self.question_keys:
            raise ValueError("JsonlFormat.question_keys must not be empty")
        if self.answer_pattern is None:
            return
        try:
            groups = re.compile(self.answer_pattern).groups
        except re.error as error:
            raise ValueError(
                f"JsonlFormat.answer_pattern={self.answer_pattern!r} is no regular expression: {error}"
            ) from None
        if groups != 1:
            raise ValueError(
                f"JsonlFormat.answer_pattern={self.answer_pattern!r} needs exactly one group, "
                f"the answer, and has {groups}"
            )


def gsm8k_format() -> JsonlFormat:
    """A worked solution that ends in `#### 72`."""
    return JsonlFormat(answer_pattern=r"####\s*(\S.*?)\s*\Z")


def math_format() -> JsonlFormat:
    """MATH-500: `problem`, `answer` in LaTeX, `level` 1..5."""
    return JsonlFormat(question_keys=("problem",), level_key="level")


def aime_format() -> JsonlFormat:
    """AIME: `problem`, an integer as number or text."""
    return JsonlFormat(question_keys=("problem",))


def svamp_format() -> JsonlFormat:
    """SVAMP: a body and a question, a number."""
    return JsonlFormat(question_keys=("Body", "Question"), answer_key="Answer")


def asdiv_format() -> JsonlFormat:
    """ASDiv: a body and a question, an answer with its unit in brackets, which is dropped."""
    return JsonlFormat(
        question_keys=("body", "question"), answer_pattern=r"\A(.+?)(?:\s*\([^()]*\))?\Z"
    )


def mawps_format() -> JsonlFormat:
    """MAWPS: `input`, `target`."""
    return JsonlFormat(question_keys=("input",), answer_key="target")


def rlla_format() -> JsonlFormat:
    """ToolRL's data (`rlla`, as JSON lines): instructions with the tools, the dialogue so far, and the turn wanted.

    Deviation: ToolRL puts the instructions into the system turn; here they are the head of the question.
    """
    return JsonlFormat(
        question_keys=("extra_info.instruction", "extra_info.input"),
        answer_key="reward_model.ground_truth",
        level_key="data_source",
    )


def read_problems(path: str | Path, layout: JsonlFormat) -> list[Problem]:
    """Problems of a JSONL file in its order, duplicates of a question left out.

    problem_id is the file's stem and a hash of the question: it survives reordering and new rows. Where
    `keeps_repeats` keeps several problems of one question, a hash of level and answers tells them apart.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row without question or answer, or two answers to one question; one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no problem file {path}")
    asked: dict[str, list[tuple[int, Problem]]] = {}  # by question: line numbers and problems
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        problem = _problem(row, layout, path.stem, where)
        earlier = asked.setdefault(problem.problem_id, [])
        if any(_is_same(problem, other, layout) for _, other in earlier):
            continue
        if earlier and not layout.keeps_repeats:
            earlier_number, other = earlier[0]
            raise ValueError(
                f"{where}: key {layout.answer_key!r} says {_listed(problem)}, but line "
                f"{earlier_number} answers the same question with {_listed(other)}; take one of them out, or set "
                "JsonlFormat.keeps_repeats = True"
            )
        earlier.append((number, problem))
    if not asked:
        raise ValueError(f"{path}: the file holds no problem")
    numbered = [one for same in asked.values() for one in _told_apart(same)]
    return [problem for _, problem in sorted(numbered, key=lambda one: one[0])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlTask:
    """A problem set of files, with its splits.

    With one file all three splits are cut from it by hash. With a test file of its own, that is the
    whole test split: the other file gives train and validation, less any question that it shares with
    the test file.
    """

    path: str
    layout: JsonlFormat = dataclasses.field(default_factory=JsonlFormat)
    test_path: str | None = None  # in the same layout

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

    def _pool(self, split: Split) -> list[Problem]:
        if self.test_path is None:
            return [p for p in read_problems(self.path, self.layout) if _split(p) == split]
        test = read_problems(self.test_path, self.layout)
        if split == "test":
            return test
        held_out = {question_hash(p.question) for p in test}
        rest = [
            p
            for p in read_problems(self.path, self.layout)
            if question_hash(p.question) not in held_out
        ]
        return [p for p in rest if (_split(p) == "validation") == (split == "validation")]


def number_of(count: int | None, task: str) -> int:
    """`count`, for tasks that make as many problems as they are asked.

    Raises:
      ValueError: all were asked.
    """
    if count is None:
        raise ValueError(f"{task} has no last problem: say how many, Schedule.pool = 4096 for one")
    return count


def _problem(row: dict[str, Any], layout: JsonlFormat, stem: str, where: str) -> Problem:
    question = _question(row, layout, where)
    answers = _answers(row, layout, where)
    level = stem if layout.level_key is None else _text(row, layout.level_key, where)
    return Problem(
        problem_id=f"{stem}/{question_hash(question)}",
        question=question,
        answer=answers[0],
        answers=answers if len(answers) > 1 else (),
        level=_level(level),
    )


def _is_same(problem: Problem, other: Problem, layout: JsonlFormat) -> bool:
    """Whether two problems of one question are one."""
    is_same_level = problem.level == other.level or not layout.keeps_repeats
    return is_same_level and set(problem.references) == set(other.references)


def _told_apart(same: list[tuple[int, Problem]]) -> list[tuple[int, Problem]]:
    """Problems of one question, each with an id of its own."""
    if len(same) == 1:
        return same
    return [
        (
            number,
            dataclasses.replace(
                problem, problem_id=f"{problem.problem_id}-{_answer_hash(problem)}"
            ),
        )
        for number, problem in same
    ]


def _answer_hash(problem: Problem) -> str:
    return question_hash(json.dumps([problem.level, *sorted(problem.references)]))


def _split(problem: Problem) -> Split:
    return split_of(question_hash(problem.question))


def _question(row: dict[str, Any], layout: JsonlFormat, where: str) -> str:
    question = _join_sentences([_text(row, key, where) for key in layout.question_keys])
    return question if question.endswith(layout.question_end) else question + layout.question_end


def _join_sentences(parts: Sequence[str]) -> str:
    """SVAMP's bodies have no full stop, so that body and question would run into each other."""
    ended = [part if part[-1] in ".?!,;:" else f"{part}." for part in parts[:-1]]
    return " ".join([*ended, parts[-1]])


def _listed(problem: Problem) -> str:
    return " or ".join(map(repr, problem.references))


def _answers(row: dict[str, Any], layout: JsonlFormat, where: str) -> tuple[str, ...]:
    """The acceptable answers of a row in its order, each once."""
    key = layout.answer_key
    value = value_at(row, key, where)
    if layout.has_json_answers:
        value = _list_in_text(value, key, where)
    if value == []:
        raise ValueError(f"{where}: key {key!r} is an empty list; one answer or more is needed")
    texts = _texts(value, key, where)
    for alias_key in layout.alias_keys:
        aliases = value_at(row, alias_key, where, default=[])
        texts += [] if aliases is None else _texts(aliases, alias_key, where)
    return tuple(dict.fromkeys(_answer(text, layout, where) for text in texts))


def _texts(value: object, key: str, where: str) -> list[str]:
    if not isinstance(value, list):
        return [as_text(value, key, where)]
    return [as_text(entry, f"{key}[{i}]", where) for i, entry in enumerate(value)]


def _list_in_text(value: object, key: str, where: str) -> list[Any]:
    """`["a", "b"]` out of the text '["a", "b"]'."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ValueError(
            f"{where}: key {key!r} must hold a JSON list of answers, and holds {str(value)[:40]!r}: "
            "set JsonlFormat.has_json_answers = False for plain answers"
        )
    return found


def _answer(text: str, layout: JsonlFormat, where: str) -> str:
    key = layout.answer_key
    if layout.answer_pattern is None:
        _check_is_no_solution(text, key, where)
        return text
    match = re.search(layout.answer_pattern, text)
    if match is None or not (match[1] or "").strip():
        raise ValueError(
            f"{where}: no answer: key {key!r} does not match "
            f"{layout.answer_pattern!r}: {text[-60:]!r}"
        )
    return match[1].strip()


def _check_is_no_solution(text: str, key: str, where: str) -> None:
    """Raises ValueError on a worked solution, of which no response would ever be equal to the whole."""
    if re.search(r"^\s*####\s*\S", text, re.MULTILINE):
        raise ValueError(
            f"{where}: key {key!r} holds a whole solution that ends in {text[-30:]!r}: set layout = "
            "@problems.gsm8k_format(), or JsonlFormat.answer_pattern"
        )
    if "\\boxed" in text and not re.fullmatch(r"\$*\\boxed\b.*", text, re.DOTALL):
        raise ValueError(
            f"{where}: key {key!r} holds a whole solution around a \\boxed answer, {text[-40:]!r}: name "
            "the key of the answer alone as JsonlFormat.answer_key, or set JsonlFormat.answer_pattern"
        )


def _text(row: dict[str, Any], key: str, where: str) -> str:
    return as_text(value_at(row, key, where), key, where)


def _level(text: str) -> str:
    """A level as part of a metric's name: "Level 5" is Level_5."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_.+-")
