"""Demonstrations for the cold start (ReTool, section 2.2): of a file, or planted for the small tasks.

Not covered: how a row is read (`conversations`) and which of its tokens are learned (`ledgers`).
"""

import dataclasses
import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.ranges import check_range
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem, ToolResult, ToolStatus, Trajectory
from jaxtool.data import arithmetic, calculations, facts
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.conversations import Conversation, read_conversations
from jaxtool.renderers.ledgers import conversation_demonstration, demonstration
from jaxtool.renderers.renderer import Renderer, observation_text
from jaxtool.renderers.tool_format import ToolFormat
from jaxtool.tools.search_wire import Passage, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationFile:
    """Rows of a file or hub set (see `read_conversations`), shuffled anew for each pass over it."""

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
          ValueError: a file without rows, or a row that cannot be read or written, by file and line.
        """
        rows = self._rows
        orders: dict[int, list[int]] = {}
        taken = []
        for place in range(index * count, (index + 1) * count):
            number, at = divmod(place, len(rows))
            if number not in orders:
                draw = random.Random(stream_seed(seed, "demonstration_file", number))
                orders[number] = draw.sample(range(len(rows)), len(rows))
            taken.append(self._rendered(rows[orders[number][at]], renderer, tokenizer))
        return taken

    def check_rows(self, row_tokens: int, *, renderer: Renderer, tokenizer: Tokenizer) -> None:
        """Writes every row once.

        Raises:
          ValueError: a row cannot be written, or is longer than `row_tokens`, by file and line.
        """
        lengths = self.lengths(renderer=renderer, tokenizer=tokenizer)
        too_long = [
            (conversation.where, length)
            for conversation, length in zip(self._rows, lengths, strict=True)
            if length > row_tokens
        ]
        if too_long:
            (where, _), longest = too_long[0], max(length for _, length in too_long)
            raise ValueError(
                f"{where}: the demonstration has {too_long[0][1]} tokens, more than "
                f"PackConfig.row_tokens={row_tokens}, and so have {len(too_long)} of "
                f"{len(self._rows)} in all: raise it to {longest}, or leave them out"
            )

    def lengths(self, *, renderer: Renderer, tokenizer: Tokenizer) -> list[int]:
        """Tokens of every row. Raises ValueError if one cannot be written, by file and line."""
        return [len(self._rendered(row, renderer, tokenizer).ids) for row in self._rows]

    def _rendered(
        self, conversation: Conversation, renderer: Renderer, tokenizer: Tokenizer
    ) -> Trajectory:
        problem = Problem(
            problem_id=conversation.name, question=self._question(conversation), answer=""
        )
        return conversation_demonstration(
            conversation, problem, renderer=renderer, tokenizer=tokenizer
        )

    @functools.cached_property
    def _rows(self) -> list[Conversation]:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"no demonstrations at {self.path!r}: give a JSONL file")
        rows = read_conversations(self.path)
        if not rows:
            raise ValueError(f"{self.path!r} holds no demonstrations: it needs a row or more")
        return rows

    def _question(self, conversation: Conversation) -> str:
        if self.question_after is None:
            return conversation.question
        _, mark, question = conversation.question.partition(self.question_after)
        if not mark or not question.strip():
            raise ValueError(
                f"{conversation.where}: {conversation.spoken[0].key}: the user's message lacks "
                f"{self.question_after!r} with a question behind it, which "
                "DemonstrationFile.question_after names"
            )
        return question.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PlantedCalls:
    """Endless demonstrations, a pure function of (seed, index), with chances of 0, 1 and 2 calls.

    Superfluous calls are planted: RL has something to take away. What a tool says in them is what it says in
    a run; tests ask the sandbox and a search server.
    """

    task: Any  # a `Task`
    calls_when_easy: tuple[float, float, float] = (0.3, 0.4, 0.3)
    calls_when_hard: tuple[float, float, float] = (0.2, 0.5, 0.3)

    def __post_init__(self) -> None:
        for name, chances in vars(self).items():
            if not name.startswith("calls_when_"):
                continue
            check_range(self, name, least=0, most=1)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactDemonstrations(_PlantedCalls):
    """Of the task of facts, in several strategies: what is known by heart is searched or not, calls are repeated.

    `calls_when_easy` is for facts known by heart, `calls_when_hard` counts the last call of all other questions:
    0 of it guesses. The chances below are for questions that have two ways. Without a tool, what is not known by
    heart is answered with `facts.UNKNOWN`: who is to search must know what it does not know.
    """

    task: facts.FactTask = dataclasses.field(default_factory=facts.FactTask)
    searches_known_hop: float = 0.5  # that a known capital on the way is searched
    searches_square: float = 0.5  # that a square is searched, and not calculated

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "searches_known_hop", "searches_square", least=0, most=1)

    def _response(self, problem: Problem, draw: random.Random, renderer: Renderer) -> str:
        answer = f"<answer>{problem.answer}</answer>"
        if renderer.tool is None:
            return answer if problem.level == "known" else f"<answer>{facts.UNKNOWN}</answer>"
        chances = self.calls_when_easy if problem.level == "known" else self.calls_when_hard
        calls = draw.choices((0, 1, 2), chances)[0]
        *first, last = facts.steps_of(problem.question)
        if problem.level == "known_hop" and draw.random() >= self.searches_known_hop:
            first = []
        if problem.level == "square" and draw.random() < self.searches_square:
            last = facts.search_step(problem.question)
        return "".join(_called(step, renderer) for step in (*first, *[last] * calls)) + answer


def _called(step: facts.Step, renderer: Renderer) -> str:
    """A step as a call and its observation: the one passage that fits best, or what the program prints."""
    assert renderer.tool is not None
    if step.tool == "python":
        call, told = renderer.tool.fenced(f"print({step.asked})"), f"{step.told}\n"
    else:
        (tags,) = (pair for pair in renderer.tool.calls if pair.tool == step.tool)
        call = tags.open + step.asked + tags.close
        title = step.asked.rpartition(" ")[2]
        told = shown([Passage(title=title, text=f"{step.asked} is {step.told}")])
    result = ToolResult(status=ToolStatus.OK, stdout=told)
    return call + observation_text(result, renderer, tool=step.tool)


def _with_calls(programs: Sequence[tuple[str, str]], tool: ToolFormat) -> str:
    """Calls that print (expression, what is printed), each with its observation."""
    return "".join(
        tool.fenced(f"print({expression})") + tool.observation.replace("{output}", printed)
        for expression, printed in programs
    )
