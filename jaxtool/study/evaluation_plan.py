"""What an evaluation asks: policies, conditions, questions; and what makes two evaluations the same one.

Made before any weight is read. Not covered: decoding (`evaluating`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.types import Problem
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.engine import EngineConfig
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.base import Judge
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource
from jaxtool.parallel.axis_rules import AxisRules
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.renderers.renderer import Renderer, load_renderer, tool_free_name
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rundir.answer_files import (
    GREEDY,
    SAMPLED,
    Condition,
    EvaluationSettings,
    check_policy_name,
)
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.tools.base import ToolServer, ToolSource
from jaxtool.train.problem_sets import fitting
from jaxtool.train.resume_rules import LAYOUT, SERVERS
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import load_text
from jaxtool.train.run_tools import each_tool, tool_sources
from jaxtool.train.sources import Sandbox, TokenizerSource
from jaxtool.train.weights import check_same_model, weights_named

SAMPLINGS = (GREEDY, SAMPLED)
MOST_SAMPLES = 1000  # of a question
_CHUNK_ANSWERS = 64  # so much is decoded again after a kill, besides what was being decoded
_ENDS_BYTES = 1 << 16  # of a file of weights: its first and last bytes
# What an evaluation may be gone on with other values of: where servers are, shapes of the decoder, and the share of
# lost answers, which decides about tables alone.
MAY_CHANGE = frozenset((*SERVERS, *LAYOUT, "EvaluationIdentity.max_lost_fraction"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of an evaluation."""

    data: str  # the sets of --data; "": the task's test split
    problems: int | None  # of the test split, or of each set; None: all
    seed: int = 0
    samples: int = 1
    samplings: tuple[str, ...] = SAMPLINGS
    temperature: float | None = None  # None: the run's
    top_p: float | None = None  # None: the run's
    tools: tuple[str, ...] | None = None  # "on", "off"; None: on where the renderer has any
    calls: tuple[int, ...] | None = None  # call budgets; None: the run's
    ks: tuple[int, ...] | None = None  # of pass@k and maj@k; None: 1, 2, 4, ...
    suite: str = ""

    def __post_init__(self) -> None:
        for k in self.ks or ():
            if not 1 <= k <= self.samples:
                raise ValueError(
                    f"--k {k}: pass@k and maj@k need k from 1 to the samples, which are {self.samples}; say "
                    f"--samples {max(k, 1)}"
                )
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"--samples {self.samples} must be from 1 to {MOST_SAMPLES}")
        if self.samples > 1 and SAMPLED not in self.samplings:
            raise ValueError(
                f"--samples {self.samples} beside --sampling greedy: a greedy policy always answers the same; leave "
                "one of them out"
            )
        if self.calls is not None and (not self.calls or min(self.calls) < 0):
            raise ValueError(
                f"--calls {self.calls} must be whole numbers from 0, as in --calls 0,1,2"
            )
        if self.calls is not None and self.tools is not None and "on" not in self.tools:
            raise ValueError(
                "--calls beside --tools off: without tools there is no call; leave it out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationIdentity:
    """Whatever an answer depends on, as `run.json` keeps it: another value is another evaluation."""

    data: str
    questions: int
    questions_hash: str
    samples: int
    conditions: tuple[str, ...]
    policies: tuple[tuple[str, str], ...]  # name, weights
    weights: tuple[tuple[str, str], ...]  # name, hash of parts of their files
    tokenizer: TokenizerSource
    renderer: str
    tool_free: str
    prompts_hash: str  # of the first question's prompts
    judge: Judge
    tools: tuple[ToolSource | ToolServer, ...] | None
    rollout: RolloutConfig
    sampling: Sampling
    engine: EngineConfig
    sandbox: Sandbox
    mesh: MeshConfig
    axes: AxisRules
    max_lost_fraction: float
    suite: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """An evaluation before its first token."""

    config: RlConfig  # its renderer is the tool-free one where nothing is asked with tools
    sources: Mapping[str, PolicySource]  # by name, in the order of tables
    questions: tuple[Problem, ...]
    text: tuple[Renderer, Tokenizer]  # of `config`
    tool_free: Renderer | None  # None: nothing is asked without tools beside something with them
    settings: EvaluationSettings
    identity: EvaluationIdentity

    def chunk(self, number: int) -> list[Problem]:
        """The questions of a chunk."""
        size = self.settings.chunk_questions
        return list(self.questions[number * size : (number + 1) * size])

    def sampling(self, condition: Condition) -> Sampling:
        return Sampling(temperature=0.0) if condition.sampling == GREEDY else self.config.sampling


def plan_evaluation(config: RlConfig, policies: Mapping[str, str], asked: Asked) -> EvaluationPlan:
    """Checks what can be checked before weights are read.

    Args:
      config: of a run; its policy says what files of weights do not.
      policies: names of weights (`weights_named`) by what they are called.

    Raises:
      ValueError, OSError: something is missing, contradicts itself, or does not fit; one line.
    """
    for name in policies:
        check_policy_name(name)
    sources = {name: weights_named(weights, config.policy) for name, weights in policies.items()}
    first, source = next(iter(sources.items()))
    for name, other in sources.items():
        other.check_header()
        check_same_model(name, other.model_config(), first, source.model_config())
    config = _with_sampling(config, asked)
    has_tools = load_renderer(config.renderer).tool is not None
    tools = asked.tools or (("on",) if has_tools else ("off",))
    if "on" in tools and not has_tools:
        raise ValueError(
            f"--tools on: the renderer {config.renderer!r} calls no tool; leave the flag out, or use a renderer "
            "with a [tool] table"
        )
    off = tool_free_name(config.renderer) if "off" in tools else ""
    if "on" not in tools:
        config = dataclasses.replace(config, renderer=off, tools=None)
    conditions = _conditions(config, asked, tools)
    config = _with_budget(config, conditions)
    renderer, tokenizer = load_text(config)
    questions = config.task.problems("test", asked.problems, asked.seed)
    questions = fitting(config, questions, renderer, tokenizer, "the test problems")
    tool_free = load_renderer(off) if "off" in tools and "on" in tools else None
    if tool_free is not None:
        questions = fitting(config, questions, tool_free, tokenizer, "the test problems")
    if not questions:
        raise ValueError(
            "no question is left to be asked: every prompt is too long, or the set is empty"
        )
    names = tuple(
        each.spec.name for each in each_tool(tool_sources(config, load_renderer(config.renderer)))
    )
    settings = EvaluationSettings(
        data=asked.data or type(config.task).__name__,
        questions=len(questions),
        questions_hash=_hash([[p.problem_id, p.question, *p.references] for p in questions]),
        seed=asked.seed,
        samples=asked.samples,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        max_response_tokens=config.rollout.max_response_tokens,
        conditions=conditions,
        policies=dict(policies),
        judge=type(config.judge).__name__,
        tools=names,
        renderer=config.renderer,
        chunk_questions=max(1, _CHUNK_ANSWERS // asked.samples),
        max_lost_fraction=config.schedule.eval_max_lost_fraction,
        suite=asked.suite,
    )
    shown = [each for each in (renderer, tool_free) if each is not None]
    prompts = [each.prompt_ids(tokenizer, questions[0]) for each in shown]
    return EvaluationPlan(
        config=config,
        sources=sources,
        questions=tuple(questions),
        text=(renderer, tokenizer),
        tool_free=tool_free,
        settings=settings,
        identity=_identity(config, settings, sources, off, _hash(prompts)),
    )


def _conditions(config: RlConfig, asked: Asked, tools: Sequence[str]) -> tuple[Condition, ...]:
    """Budgets from the largest, then without tools; each greedy and sampled, as asked."""
    budgets = asked.calls or (config.rollout.max_tool_calls,)
    ways = [(True, budget) for budget in dict.fromkeys(budgets)] if "on" in tools else []
    ways += [(False, 0)] if "off" in tools else []
    return tuple(
        Condition(sampling=sampling, has_tools=has_tools, max_tool_calls=budget)
        for has_tools, budget in ways
        for sampling in dict.fromkeys(asked.samplings)
    )


def _with_sampling(config: RlConfig, asked: Asked) -> RlConfig:
    changed: dict[str, Any] = {}
    if asked.temperature is not None:
        if asked.temperature <= 0:
            raise ValueError(
                f"--temperature {asked.temperature:g} must be above 0: --sampling greedy is the way without chance"
            )
        changed["temperature"] = asked.temperature
    if asked.top_p is not None:
        changed["top_p"] = asked.top_p
    return dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, **changed))


def _with_budget(config: RlConfig, conditions: Sequence[Condition]) -> RlConfig:
    """With the largest budget: the engine and the tools are opened for it."""
    most = max(one.max_tool_calls for one in conditions)
    return dataclasses.replace(
        config, rollout=dataclasses.replace(config.rollout, max_tool_calls=most)
    )


def _identity(
    config: RlConfig,
    settings: EvaluationSettings,
    sources: Mapping[str, PolicySource],
    tool_free: str,
    prompts_hash: str,
) -> EvaluationIdentity:
    return EvaluationIdentity(
        data=settings.data,
        questions=settings.questions,
        questions_hash=settings.questions_hash,
        samples=settings.samples,
        conditions=tuple(one.name for one in settings.conditions),
        policies=tuple(settings.policies.items()),
        weights=tuple((name, weights_hash(source)) for name, source in sources.items()),
        tokenizer=config.tokenizer,
        renderer=config.renderer,
        tool_free=tool_free,
        prompts_hash=prompts_hash,
        judge=config.judge,
        tools=config.tools,
        rollout=config.rollout,
        sampling=config.sampling,
        engine=config.engine,
        sandbox=config.sandbox,
        mesh=config.mesh,
        axes=config.axes,
        max_lost_fraction=settings.max_lost_fraction,
        suite=settings.suite,
    )


def weights_hash(source: PolicySource) -> str:
    """A hash of the size, the first and the last bytes of each file of weights; "" where there are no files.

    Training changes every number, so it changes these too.
    """
    if not isinstance(source, GgufFile | HfDirectory | SavedPolicy) or source.path is None:
        return ""
    path = Path(source.path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_file() else file.relative_to(path)} {size}".encode())
        with open(file, "rb") as opened:
            digest.update(opened.read(_ENDS_BYTES))
            opened.seek(max(0, size - _ENDS_BYTES))
            digest.update(opened.read(_ENDS_BYTES))
    return digest.hexdigest()


def _hash(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()
