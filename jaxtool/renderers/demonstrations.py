"""Demonstrations for the cold start (ReTool, section 2.2): text with interpreter spans to ledgers.

A span counts as the tool's only where a real rollout would put it: straight after a closing code tag.
An `<interpreter>` anywhere else was written by the author and stays in the loss.
"""

import dataclasses
import functools
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import FinishReason, Origin, Problem, Trajectory
from jaxtool.data import arithmetic, calculations
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.renderer import Renderer, ToolFormat


def demonstration(
    problem: Problem, response: str, *, renderer: Renderer, tokenizer: Tokenizer
) -> Trajectory:
    """A ledger of a written response: interpreter spans get origin TOOL, all else POLICY."""
    prompt = renderer.prompt_ids(tokenizer, problem)
    ids, origins = list(prompt), [Origin.PROMPT] * len(prompt)
    for text, origin in split_response(response, renderer):
        piece = tokenizer.encode(text)
        ids += piece
        origins += [origin] * len(piece)
    if not renderer.answer_close:
        ids.append(tokenizer.eos_ids[0])
        origins.append(Origin.POLICY)
    is_policy = np.asarray(origins) == Origin.POLICY
    return Trajectory(
        problem=problem,
        sample=0,
        ids=np.asarray(ids, np.int32),
        origins=np.asarray(origins, np.int8),
        behaviour_logprobs=np.zeros(len(ids), np.float32),
        policy_versions=np.where(is_policy, 0, -1).astype(np.int32),
        finish_reason=FinishReason.ANSWER if renderer.answer_close else FinishReason.EOS,
        response_text=response,
        final_text=response,
    )


def split_response(response: str, renderer: Renderer) -> list[tuple[str, Origin]]:
    """The response cut into (text, POLICY or TOOL) pieces that join to it exactly."""
    if renderer.tool is None:
        return [(response, Origin.POLICY)]
    opening, closing = (part.strip() for part in renderer.tool.observation.split("{output}"))
    span = re.compile(
        rf"(?<={re.escape(renderer.tool.code_close)})\s*{re.escape(opening)}.*?{re.escape(closing)}\s*",
        re.DOTALL,
    )
    pieces: list[tuple[str, Origin]] = []
    at = 0
    for match in span.finditer(response):
        pieces.append((response[at : match.start()], Origin.POLICY))
        pieces.append((match.group(), Origin.TOOL))
        at = match.end()
    pieces.append((response[at:], Origin.POLICY))
    return [(text, origin) for text, origin in pieces if text]


def read_demonstrations(path: str | Path) -> list[tuple[Problem, str]]:
    """(problem, response) rows of a JSONL file: `messages` of user and assistant, as in ReTool-SFT.

    Raises:
      ValueError: naming the line of a row that lacks either turn.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        turns = {m["role"]: m["content"] for m in json.loads(line).get("messages", [])}
        if not turns.get("user") or not turns.get("assistant"):
            raise ValueError(f"{path}:{number}: a row needs a user and an assistant message")
        problem = Problem(
            problem_id=f"{Path(path).stem}/{number}", question=turns["user"], answer=""
        )
        rows.append((problem, turns["assistant"]))
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationFile:
    """Rows of a JSONL file (see `read_demonstrations`), shuffled anew for each pass over it.

    Text that follows the renderer's closing answer tag is dropped: no rollout would hold it.
    """

    path: str
    # The question is what follows this in the user's message; None: all of it. ReTool-SFT's messages
    # hold a whole prompt, with the question behind "*user question:*" (verl's preprocessor).
    question_after: str | None = None

    def take(
        self, count: int, *, seed: int, index: int, renderer: Renderer, tokenizer: Tokenizer
    ) -> list[Trajectory]:
        """`count` demonstrations for batch `index`; batches 0, 1, ... go through the file, pass by pass.

        A batch that reaches the end of a pass continues with the next one. Each row comes once a pass
        as long as `count` is the same for all batches.

        Raises:
          FileNotFoundError: no such file.
          ValueError: a file without rows, or a row without one of its turns or `question_after`.
        """
        rows = self._rows
        orders: dict[int, list[int]] = {}
        taken = []
        for place in range(index * count, (index + 1) * count):
            number, at = divmod(place, len(rows))
            if number not in orders:
                draw = random.Random(stream_seed(seed, "demonstration_file", number))
                orders[number] = draw.sample(range(len(rows)), len(rows))
            problem, response = rows[orders[number][at]]
            head, close, _ = response.partition(renderer.answer_close or "\0")
            taken.append(
                demonstration(problem, head + close, renderer=renderer, tokenizer=tokenizer)
            )
        return taken

    @functools.cached_property
    def _rows(self) -> list[tuple[Problem, str]]:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"no demonstrations at {self.path!r}: give a JSONL file")
        rows = read_demonstrations(self.path)
        if not rows:
            raise ValueError(f"{self.path!r} holds no demonstrations: it needs a row or more")
        return [(self._asked(problem), response) for problem, response in rows]

    def _asked(self, problem: Problem) -> Problem:
        if self.question_after is None:
            return problem
        _, mark, question = problem.question.partition(self.question_after)
        if not mark:
            raise ValueError(
                f"{problem.problem_id}: the user's message lacks {self.question_after!r}, which "
                "DemonstrationFile.question_after names"
            )
        return dataclasses.replace(problem, question=question.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PlantedCalls:
    """Endless demonstrations, a pure function of (seed, index), with chances of 0, 1 and 2 calls.

    Superfluous calls are planted: RL has something to take away. The interpreter's text is what running
    the program prints; a test runs them in the sandbox.
    """

    task: Any  # a `Task`
    calls_when_easy: tuple[float, float, float] = (0.3, 0.4, 0.3)
    calls_when_hard: tuple[float, float, float] = (0.2, 0.5, 0.3)

    def __post_init__(self) -> None:
        for name, chances in vars(self).items():
            if not name.startswith("calls_when_"):
                continue
            if len(chances) != 3 or abs(sum(chances) - 1) > 1e-6:
                raise ValueError(f"{name} must be three chances that sum to 1, got {chances}")

    def take(
        self, count: int, *, seed: int, index: int, renderer: Renderer, tokenizer: Tokenizer
    ) -> list[Trajectory]:
        """`count` demonstrations of the training split for batch `index`."""
        draw = random.Random(stream_seed(seed, "demonstrations", renderer.name, index))
        problems = self.task.problems("train", count, draw.randrange(2**31))
        return [
            demonstration(
                problem,
                self._response(problem, draw, renderer),
                renderer=renderer,
                tokenizer=tokenizer,
            )
            for problem in problems
        ]

    def _response(self, problem: Problem, draw: random.Random, renderer: Renderer) -> str:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArithmeticDemonstrations(_PlantedCalls):
    """Of the tiny arithmetic task."""

    task: arithmetic.ArithmeticTask = dataclasses.field(default_factory=arithmetic.ArithmeticTask)
    calls_when_chained: tuple[float, float, float] = (0.2, 0.5, 0.3)  # after the look-up

    def _response(self, problem: Problem, draw: random.Random, renderer: Renderer) -> str:
        answer = f"<answer>\\boxed{{{problem.answer}}}</answer>"
        if renderer.tool is None:
            return answer
        by_level = {"hard": self.calls_when_hard, "chained": self.calls_when_chained}
        chances = by_level.get(problem.level, self.calls_when_easy)
        calls = draw.choices((0, 1, 2), chances)[0]
        *first, last = arithmetic.steps_of(problem.question)
        programs = [(e, arithmetic.printed(e)) for e in (*first, *[last] * calls)]
        return _with_calls(programs, renderer.tool) + answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalculationDemonstrations(_PlantedCalls):
    """Of calculations in words, as the examples of `two_shot_code` are written; one-digit sums are easy."""

    task: calculations.CalculationTask = dataclasses.field(
        default_factory=calculations.CalculationTask
    )

    def _response(self, problem: Problem, draw: random.Random, renderer: Renderer) -> str:
        answer = (
            f"{problem.question} = {problem.answer}. The answer is \\boxed{{{problem.answer}}}."
        )
        if renderer.tool is None:
            return answer
        is_easy = problem.level == "one_digit_sum"
        chances = self.calls_when_easy if is_easy else self.calls_when_hard
        calls = draw.choices((0, 1, 2), chances)[0]
        return _with_calls([(problem.question, problem.answer)] * calls, renderer.tool) + answer


def _with_calls(programs: Sequence[tuple[str, str]], tool: ToolFormat) -> str:
    """Calls that print (expression, what is printed), each with its observation."""
    return "".join(
        f"{tool.code_open}\n{tool.fence}\nprint({expression})\n```\n{tool.code_close}"
        + tool.observation.replace("{output}", printed)
        for expression, printed in programs
    )
