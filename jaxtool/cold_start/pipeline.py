"""What the commands share: the checks of candidates with everything they need open, and the files they write.

Covered: renderer, judge, tokenizer and evaluation sets by name, refused before anything is asked; a sandbox that
answers known programs; the three files of a result. Not covered: flags (`experiments`).
"""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxtool.cold_start.candidates import Candidate, Checked, Demonstration, Rejection
from jaxtool.cold_start.checking import CheckSettings, check
from jaxtool.cold_start.files import read_evaluation
from jaxtool.cold_start.traces import check_renderer
from jaxtool.core.files import write_text
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem
from jaxtool.data.contamination import EvaluationQuestions
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.judges.base import Judge, OpenJudge
from jaxtool.judges.case_files import judge_named
from jaxtool.judges.programs import programs_in
from jaxtool.renderers.conversations import Conversation, Turn
from jaxtool.renderers.ledgers import conversation_demonstration
from jaxtool.renderers.renderer import Renderer, load_renderer
from jaxtool.tools.code_tool import PYTHON_SPEC
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.preflight import preflight
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

DEMONSTRATIONS, REJECTED = "demonstrations.jsonl", "rejected.jsonl"
_HASTY_CPU_S = 0.5  # for the program that never ends


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What candidates are checked by, as names and files."""

    settings: CheckSettings = dataclasses.field(default_factory=CheckSettings)
    renderer: str = "retool"
    judge: str = "math"
    against: tuple[str, ...] = ()  # evaluation files, each FILE or KEY=FILE
    # Of the policy: its control tokens are looked for by name, and each row is encoded as sft will.
    tokenizer: Path | None = None
    row_tokens: int | None = None  # longest row, as PackConfig.row_tokens; needs the tokenizer

    def __post_init__(self) -> None:
        check_range(self, "row_tokens", least=1)
        if self.row_tokens is not None and self.tokenizer is None:
            raise ValueError(f"--row_tokens {self.row_tokens} needs --tokenizer, which counts them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checker:
    """The options, read."""

    options: CheckOptions
    renderer: Renderer
    judge: Judge
    evaluation: EvaluationQuestions
    tokenizer: Tokenizer | None

    def check(self, candidates: Sequence[Candidate], tools: "OpenTools") -> Checked:
        """What became of the candidates."""
        return check(
            candidates,
            runner=tools.runner,
            settings=self.options.settings,
            renderer=self.renderer,
            sandbox=tools.sandbox,
            judge=tools.judge,
            evaluation=self.evaluation,
            control=self._control,
            also=self._check_ledger,
        )

    @property
    def _control(self) -> tuple[str, ...]:
        """Spellings of control tokens, but for the renderer's own tags."""
        if self.tokenizer is None:
            return ()
        own = check_renderer(self.renderer).marks
        tags = "".join((*own, *self.renderer.all_tags, *check_renderer(self.renderer).observations))
        return tuple(token for token in self.tokenizer.control_tokens.values() if token not in tags)

    def _check_ledger(self, demonstration: Demonstration) -> None:
        """Raises ValueError where `sft` could not write the row, or not in its length."""
        if self.tokenizer is None:
            return
        candidate = demonstration.candidate
        problem = Problem(problem_id=candidate.row_id, question=candidate.question, answer="")
        ledger = conversation_demonstration(
            _conversation_of(demonstration, self.renderer),
            problem,
            renderer=self.renderer,
            tokenizer=self.tokenizer,
        )
        longest = self.options.row_tokens
        if longest is not None and len(ledger.ids) > longest:
            raise ValueError(f"{len(ledger.ids)} tokens, more than --row_tokens {longest}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenTools:
    """A sandbox and a judge at work."""

    runner: asyncio.Runner
    sandbox: SandboxClient
    judge: OpenJudge


def read_options(options: CheckOptions) -> Checker:
    """Everything that the options name.

    Raises:
      FileNotFoundError: no such renderer, evaluation file or tokenizer.
      ValueError: one of them does not fit; one line.
    """
    renderer = load_renderer(options.renderer)
    check_renderer(renderer)
    renderer = renderer.with_tools((PYTHON_SPEC,))
    return Checker(
        options=options,
        renderer=renderer,
        judge=judge_named(options.judge),
        evaluation=EvaluationQuestions(read_evaluation(list(options.against))),
        tokenizer=None if options.tokenizer is None else tokenizer_from_dir(options.tokenizer),
    )


@contextlib.contextmanager
def open_tools(checker: Checker, addresses: tuple[str, ...]) -> Iterator[OpenTools]:
    """A sandbox that answers known programs, and the judge.

    Args:
      addresses: of running servers; without one a server is started.

    Raises:
      PreflightError, ServerStartError: the sandbox is not fit; one line.
    """
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        servers = addresses or (stack.enter_context(start_local_server()),)
        sandbox = SandboxClient(servers, SandboxClientConfig())
        stack.callback(lambda: runner.run(sandbox.close()))
        hasty = SandboxClient(servers, SandboxClientConfig(cpu_limit_s=_HASTY_CPU_S))
        stack.callback(lambda: runner.run(hasty.close()))
        runner.run(preflight(sandbox, hasty))
        judge = stack.enter_context(checker.judge.open(programs_in(sandbox, runner)))
        yield OpenTools(runner=runner, sandbox=sandbox, judge=judge)


def write_demonstrations(path: Path, checked: Checked, renderer: Renderer) -> None:
    """The file that `sft` reads, whole or not there."""
    _write_rows(path, [demonstration.row(renderer) for demonstration in checked.kept])


def write_rejected(path: Path, rejected: Sequence[Rejection], lost: Sequence[Rejection]) -> None:
    """Every row that fell out with its reason, those that are lost at the end."""
    _write_rows(path, [rejection.as_json() for rejection in (*rejected, *lost)])


def _write_rows(path: Path, rows: Sequence[dict]) -> None:
    # As ASCII: a line separator of Unicode inside a text ends no line, whoever reads the file.
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _conversation_of(demonstration: Demonstration, renderer: Renderer) -> Conversation:
    """The conversation that a file with the demonstration holds."""
    messages = demonstration.row(renderer)["messages"]
    assert isinstance(messages, list)
    turns = tuple(
        Turn(role=message["role"], text=message["content"], key=f"messages[{i}]")
        for i, message in enumerate(messages)
    )
    return dataclasses.replace(demonstration.candidate.conversation, turns=turns)
