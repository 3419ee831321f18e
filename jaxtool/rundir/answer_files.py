"""The work directory of an evaluation: what identifies it, and its answers in chunks.

  WORKDIR/evaluation.json                        the settings below
  WORKDIR/answers/POLICY/CONDITION/00000.parquet answers to the first questions, then 00001, ...

A chunk holds every answer to a few questions, in order, and is there whole or not at all. A condition is what the
policy may call and how it is sampled: `sampled_calls_4`, `greedy_no_tools`. Not covered: who writes them
(`jaxtool.study`), what the columns mean (`answer_records`).
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.rundir.answer_records import AnswerRecord, read_records, write_records

SETTINGS = "evaluation.json"
ANSWERS = "answers"
GREEDY, SAMPLED = "greedy", "sampled"
_VERSION = 1
_NAME = re.compile(r"[\w.@+-][\w.@+ -]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to ask the questions."""

    sampling: str  # "greedy" or "sampled"
    has_tools: bool  # False: asked by the tool-free prompt
    max_tool_calls: int  # the call budget; 0 without tools

    @property
    def name(self) -> str:
        """Of its directory and of its rows in tables."""
        calls = f"calls_{self.max_tool_calls}" if self.has_tools else "no_tools"
        return f"{self.sampling}_{calls}"

    def samples(self, samples: int) -> int:
        """Answers to each question: a greedy policy gives one."""
        return 1 if self.sampling == GREEDY else samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What identifies an evaluation, and what its figures need besides the answers."""

    data: str  # where the questions come from: a task's name, or the sets of --data
    questions: int  # how many are asked
    questions_hash: str  # of their ids, texts and references, in order
    seed: int
    samples: int  # sampled answers to each question
    temperature: float
    top_p: float
    max_response_tokens: int
    conditions: tuple[Condition, ...]  # in the order of tables
    policies: dict[str, str]  # weights by name, in the order of tables
    judge: str  # its class
    tools: tuple[str, ...]  # their names; () where nothing can be called
    renderer: str
    chunk_questions: int  # questions of a chunk; the last one may have fewer
    max_lost_fraction: (
        float  # of the answers of a policy under a condition; above it there are no figures
    )
    suite: str = ""  # the named suite that it belongs to

    @property
    def chunks(self) -> int:
        """Of each policy under each condition."""
        return -(-self.questions // self.chunk_questions)

    def answers(self, condition: Condition, chunk: int) -> int:
        """Records that a chunk holds."""
        left = self.questions - chunk * self.chunk_questions
        return min(self.chunk_questions, left) * condition.samples(self.samples)

    def write(self, workdir: Path) -> None:
        """Puts them into the directory, in one step."""
        values = {"version": _VERSION} | dataclasses.asdict(self)
        write_text(workdir / SETTINGS, json.dumps(values, indent=1))


def read_settings(workdir: str | Path) -> EvaluationSettings:
    """What the evaluation of a directory is.

    Raises:
      FileNotFoundError: no evaluation has begun there.
      ValueError: the file is damaged or of another version.
    """
    path = Path(workdir) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} holds no evaluation: there is no {SETTINGS} in it; "
            "name the --workdir of experiments.evaluate"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (version := values.pop("version")) != _VERSION:
            raise ValueError(f"it has version {version}, this program reads {_VERSION}")
        conditions = tuple(Condition(**one) for one in values["conditions"])
        return EvaluationSettings(
            **values | {"conditions": conditions, "tools": tuple(values["tools"])}
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): choose another work directory"
        ) from None


def chunk_path(workdir: str | Path, policy: str, condition: Condition, chunk: int) -> Path:
    return Path(workdir) / ANSWERS / policy / condition.name / f"{chunk:05d}.parquet"


def write_chunk(
    workdir: Path, policy: str, condition: Condition, chunk: int, records: Sequence[AnswerRecord]
) -> None:
    """One chunk, whole or not at all."""
    path = chunk_path(workdir, policy, condition, chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, records)


def missing_chunks(
    workdir: str | Path, settings: EvaluationSettings, policy: str, condition: Condition
) -> list[int]:
    """Chunks that are not written yet."""
    paths = (chunk_path(workdir, policy, condition, chunk) for chunk in range(settings.chunks))
    return [chunk for chunk, path in enumerate(paths) if not path.is_file()]


def chunks_with_lost(
    workdir: str | Path, policy: str, condition: Condition, chunks: Sequence[int]
) -> list[int]:
    """Those of the written chunks that hold lost answers; one column of each is read."""
    import pyarrow.parquet as pq

    found = []
    for chunk in chunks:
        path = chunk_path(workdir, policy, condition, chunk)
        if any(pq.read_table(path, columns=["is_lost"])["is_lost"].to_pylist()):
            found.append(chunk)
    return found


def answer_paths(
    workdir: str | Path, policy: str | None = None, condition: Condition | None = None
) -> list[Path]:
    """The chunks of a finished evaluation: policy by policy, condition by condition, in order.

    Args:
      policy: None: of all.
      condition: None: of all.

    Raises:
      FileNotFoundError: no evaluation is there.
      ValueError: it is not finished, or has no such policy or condition; one line.
    """
    settings = read_settings(workdir)
    paths: list[Path] = []
    for name in _chosen(workdir, list(settings.policies), policy):
        for one in _conditions(workdir, settings, condition):
            if missing := missing_chunks(workdir, settings, name, one):
                raise ValueError(_unfinished(workdir, settings, name, one, missing))
            paths += [chunk_path(workdir, name, one, chunk) for chunk in range(settings.chunks)]
    return paths


def read_answers(
    workdir: str | Path, policy: str | None = None, condition: Condition | None = None
) -> list[AnswerRecord]:
    """All records of a finished evaluation, in the order of `answer_paths`, then by question and sample.

    Raises:
      FileNotFoundError: no evaluation is there.
      ValueError: it is not finished, has no such policy, or a file is damaged or of another evaluation; one line.
    """
    return [record for part in iterate_answers(workdir, policy, condition) for record in part]


def iterate_answers(
    workdir: str | Path,
    policy: str | None = None,
    condition: Condition | None = None,
    *,
    has_texts: bool = True,
) -> Iterator[list[AnswerRecord]]:
    """The same chunk by chunk, so that only one is in memory. Raises as `read_answers`.

    Args:
      has_texts: False: without texts, as `answer_records.read_records` says; enough for figures.
    """
    settings = read_settings(workdir)
    paths = answer_paths(workdir, policy, condition)
    for path in paths:
        records = read_records(path, has_texts=has_texts)
        _check_belongs(path, settings, records)
        yield records


def split_name(text: str) -> tuple[str, str | None]:
    """Work directory and policy of `runs/eval:base`; None: no policy is named, so all are meant.

    A directory whose own name has a colon is found under its whole name.
    """
    if (Path(text) / SETTINGS).is_file():
        return text, None
    workdir, colon, policy = text.rpartition(":")
    if not colon or "/" in policy:
        return text, None
    if not workdir or not policy:
        raise ValueError(f"{text!r} names no evaluation: write runs/eval, or runs/eval:POLICY")
    return workdir, policy


def check_policy_name(name: str) -> None:
    """Raises ValueError if a name cannot be that of a directory."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"a policy cannot be called {name!r}: letters, digits and _ - + . @ are possible"
        )


def _chosen(workdir: str | Path, known: list[str], wanted: str | None) -> list[str]:
    if wanted is None:
        return known
    if wanted not in known:
        raise ValueError(
            f"the evaluation {workdir} has no policy {wanted!r}: it has {', '.join(known)}"
        )
    return [wanted]


def _conditions(
    workdir: str | Path, settings: EvaluationSettings, wanted: Condition | None
) -> tuple[Condition, ...]:
    if wanted is None:
        return settings.conditions
    if wanted not in settings.conditions:
        known = ", ".join(one.name for one in settings.conditions)
        raise ValueError(f"the evaluation {workdir} has no {wanted.name}: it has {known}")
    return (wanted,)


def _unfinished(
    workdir: str | Path,
    settings: EvaluationSettings,
    policy: str,
    condition: Condition,
    missing: Sequence[int],
) -> str:
    answers = sum(settings.answers(condition, chunk) for chunk in missing)
    whole = settings.questions * condition.samples(settings.samples)
    return (
        f"the evaluation {workdir} is not finished: {answers} of {whole} answers of {policy}, {condition.name}, "
        "are missing; give the same command again and it goes on"
    )


def _check_belongs(
    path: Path, settings: EvaluationSettings, records: Sequence[AnswerRecord]
) -> None:
    """Raises ValueError if a chunk holds other answers than its place says."""
    policy, chunk = path.parent.parent.name, int(path.stem)
    found: dict[str, Any] = {}
    [condition] = [one for one in settings.conditions if one.name == path.parent.name]
    if (wanted := settings.answers(condition, chunk)) != len(records):
        found["answers"] = f"{len(records)} answers, not {wanted}"
    for record in records:
        if record.policy != policy:
            found["policy"] = f"answers of {record.policy!r}"
        if (record.sampling, record.has_tools) != (condition.sampling, condition.has_tools) or (
            record.max_tool_calls != condition.max_tool_calls
        ):
            found["condition"] = f"{record.sampling} answers with {record.max_tool_calls} calls"
    if found:
        raise ValueError(
            f"{path} is of another evaluation: it holds {', '.join(found.values())}; delete it and give the "
            "command of this evaluation again"
        )
