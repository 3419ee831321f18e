"""Everything that a run does before its first step, in seconds: what `experiments.train --dry_run` prints.

The checks are the run's own functions, in its own order; they end at the first mistake. One is made here alone:
whether a device holds the learner's state. Written to no work directory. Not covered: reading the weights, compiling,
and what a gradient computation needs besides that state.
"""

import dataclasses
import time
from asyncio import Runner
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from jaxtool.core.calls import ToolSpec
from jaxtool.core.types import Origin, Trajectory
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.data.tokenizer import decode as decode_ids
from jaxtool.decode.memory import plan_memory
from jaxtool.learn.grpo import needs_reference
from jaxtool.learn.learner import make_learner
from jaxtool.learn.memory import LearnerMemory, learner_memory, memory_of_device
from jaxtool.learn.sft import SftSetup
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.sources import PolicySource
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.batching import to_batch
from jaxtool.tools.base import ToolSource
from jaxtool.tools.preflight import SNIPPETS
from jaxtool.train import sft_loop
from jaxtool.train.devices import make_shardings
from jaxtool.train.numerics import learner_setup, numerics_lines
from jaxtool.train.problem_sets import draw_problems
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import (
    check_vocabulary,
    load_text,
    longest_prompt,
)
from jaxtool.train.run_tools import open_menu, searched_at, session_needs, tool_sources
from jaxtool.train.sources import open_sandbox
from jaxtool.train.weights import weights_named

_GIB = 2**30
# Neighbouring tokens differ in the second style, so that their borders are seen.
_STYLES = {Origin.PROMPT: "cyan", Origin.POLICY: "green", Origin.TOOL: "yellow"}
_EVERY_OTHER = "underline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """Text as tokens, each with who would have written it."""

    tokens: tuple[tuple[str, Origin], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Something that was checked and is right."""

    name: str
    text: str  # one line
    shown: Shown | None = None  # a question, or a demonstration


def dry_run(
    config: RlConfig | sft_loop.SftRunConfig,
    *,
    seed: int = 0,
    init_from: Path | None = None,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
) -> Iterator[Check]:
    """The checks of a run, each yielded when it is done.

    Args:
      init_from: a name of weights (`weights_named`), in place of `config.policy`.
      sandbox_addresses: running servers, in place of those of the configuration.
      search_addresses: running search servers, in place of what `config.tools` name.

    Raises:
      ValueError, OSError, RuntimeError: as the run itself would at its start.
    """
    source = config.policy if init_from is None else weights_named(init_from, config.policy)
    if isinstance(config, sft_loop.SftRunConfig):
        yield from _sft_checks(config, source, seed)
    else:
        yield from _rl_checks(config, source, seed, sandbox_addresses, search_addresses)


def print_check(check: Check, console: Console) -> None:
    """One line, and below it the tokens: in colour on a terminal, else with a marker for each writer."""
    console.print(
        f"[bold]{check.name:<14}[/] {escape(check.text)}", soft_wrap=True, highlight=False
    )
    if check.shown is None:
        return
    if console.is_terminal:
        legend = "  ".join(f"[{style}]{o.name.lower()}[/]" for o, style in _STYLES.items())
        console.print(legend, highlight=False)
        text = Text()
        for number, (token, origin) in enumerate(check.shown.tokens):
            text.append(token, f"{_STYLES[origin]} {_EVERY_OTHER if number % 2 else ''}".strip())
        console.print(text, soft_wrap=True)
        return
    console.print(marked(check.shown), soft_wrap=True, highlight=False, markup=False)


def as_row(check: Check) -> dict[str, Any]:
    """A check as JSON: {"name", "text", "tokens": null or [[text, who would write it]]}."""
    tokens = check.shown and [[text, origin.name.lower()] for text, origin in check.shown.tokens]
    return {"name": check.name, "text": check.text, "tokens": tokens}


def marked(shown: Shown) -> str:
    """The text with "[prompt]", "[policy]" or "[tool]" before what each of them would write."""
    pieces, before = [], None
    for token, origin in shown.tokens:
        pieces.append(token if origin is before else f"[{origin.name.lower()}]{token}")
        before = origin
    return "".join(pieces)


def _sft_checks(config: sft_loop.SftRunConfig, source: PolicySource, seed: int) -> Iterator[Check]:
    model = source.model_config()
    sharding = sft_loop.make_sharding(config, model)
    yield _mesh(sharding)
    yield _weights(source, model)
    renderers, tokenizer = sft_loop.load_text(config)
    yield _tokenizer(tokenizer, renderers)
    yield _vocabulary(tokenizer, model)
    setup = SftSetup(model=model, sft=config.sft, optimizer=config.optimizer, sharding=sharding)
    yield from _learner_state(
        learner_memory(
            lambda trained, view: SftLearner(setup=setup, view=view).start(trained),
            *(model, config.lora, sharding),
        ),
        sharding,
    )
    taken = sft_loop.take(config.streams, renderers, tokenizer, seed, 0)
    batch = to_batch(taken, config.pack)
    rows, tokens = batch.tokens.shape
    text = f"{len(taken)} of the first step in {rows} rows of {tokens} tokens"
    yield Check(name="demonstrations", text=text)
    first = 0
    for stream, renderer in zip(config.streams, renderers, strict=True):
        yield _demonstration(taken[first], renderer, tokenizer)
        first += stream.count


def _rl_checks(
    config: RlConfig,
    source: PolicySource,
    seed: int,
    addresses: tuple[str, ...],
    search_addresses: tuple[str, ...],
) -> Iterator[Check]:
    renderer, tokenizer = load_text(config)
    yield _tokenizer(tokenizer, [renderer])
    model = source.model_config()
    sharding, decoding = make_shardings(config, model)
    yield _mesh(sharding)
    yield _weights(source, model)
    yield _vocabulary(tokenizer, model)
    yield _memory(config, model, decoding)
    setup = learner_setup(config, model, sharding)
    yield from _learner_state(
        learner_memory(
            lambda trained, view: make_learner(setup, config.critic, view).start(trained),
            *(model, config.lora, sharding),
            keeps_first=needs_reference(config.grpo),
        ),
        sharding,
    )
    lines = numerics_lines(config, model, setup)
    yield Check(name="learner", text="; ".join(lines))
    yield from _first_prompts(config, renderer, tokenizer, seed)
    sources = searched_at(tool_sources(config, renderer), search_addresses)
    yield from _tools(config, renderer, sources, addresses)


def _first_prompts(
    config: RlConfig, renderer: Renderer, tokenizer: Tokenizer, seed: int
) -> Iterator[Check]:
    """All prompts of the run fit; those that the first step draws, and the first of them."""
    sets = draw_problems(config, seed, renderer, tokenizer)
    if sets.data:
        yield Check(name="data", text=sets.data)
    yield Check(name="judge", text=sets.judging)
    problems = next(sets.batches(config, seed))
    prompts = [renderer.prompt_ids(tokenizer, problem) for problem in problems]
    yield Check(
        name="prompts",
        text=f"{len(prompts)} of the first step, up to {max(map(len, prompts))} tokens; with "
        f"{config.rollout.max_response_tokens} of response they fit into {config.engine.max_tokens}",
    )
    ids = prompts[0]
    yield Check(
        name="question",
        text=f"{problems[0].problem_id}, {len(ids)} tokens, answer {problems[0].answer!r}",
        shown=_shown(tokenizer, ids, [Origin.PROMPT] * len(ids)),
    )


def _tools(
    config: RlConfig,
    renderer: Renderer,
    sources: Sequence[ToolSource],
    addresses: tuple[str, ...],
) -> Iterator[Check]:
    """A server, started if none is given, passes the preflight; tools give the answers that are known."""
    with ExitStack() as stack:
        runner, client = stack.enter_context(Runner()), None
        if any(source.uses_sandbox for source in sources) or config.judge.runs_programs:
            started = time.monotonic()
            sessions = session_needs(config, sources)
            client = stack.enter_context(open_sandbox(config.sandbox, runner, addresses, sessions))
            seconds = time.monotonic() - started
            where = ", ".join(addresses or config.sandbox.addresses) or "started for this check"
            text = f"{where}: {len(SNIPPETS)} programs answered as expected, {seconds:.1f} s"
            if sessions is not None:
                text += f"; {sessions.sessions} sessions at once fit"
        elif renderer.tool is None:
            text = f"none: the renderer {renderer.name} has no tool"
        else:
            text = "none: no tool of the run uses it"
        yield Check(name="sandbox", text=text)
        if sources:
            menu = stack.enter_context(open_menu(sources, client, runner))
            asked = sum(len(source.known_answers()) for source in sources)
            text = ", ".join(map(_as_call, menu.specs))
            text += f"; {asked} known answers are right" if asked else ""
            yield Check(name="tools", text=text)


def _as_call(spec: ToolSpec) -> str:
    """As in `convert(value, unit)`."""
    return f"{spec.name}({', '.join(spec.parameters.get('properties', {}))})"


def _demonstration(trajectory: Trajectory, renderer: Renderer, tokenizer: Tokenizer) -> Check:
    ids, origins = trajectory.ids.tolist(), [Origin(value) for value in trajectory.origins]
    return Check(
        name="demonstration",
        text=f"{trajectory.problem.problem_id} in {renderer.name}, {len(ids)} tokens, of which "
        f"{trajectory.num_policy_tokens} are learned",
        shown=_shown(tokenizer, ids, origins),
    )


def _shown(tokenizer: Tokenizer, ids: Sequence[int], origins: Sequence[Origin]) -> Shown:
    texts = [decode_ids(tokenizer, [token]) for token in ids]
    return Shown(tokens=tuple(zip(texts, origins, strict=True)))


def _tokenizer(tokenizer: Tokenizer, renderers: Sequence[Renderer]) -> Check:
    names = ", ".join(dict.fromkeys(renderer.name for renderer in renderers))
    text = f"{tokenizer.vocab_size} tokens; it can write every tag of {names}"
    return Check(name="tokenizer", text=text)


def _mesh(sharding: Sharding) -> Check:
    sizes = ", ".join(f"{name}={size}" for name, size in sharding.mesh.shape.items())
    devices = sharding.mesh.devices.flat
    return Check(name="mesh", text=f"{sizes} over {len(devices)} x {devices[0].device_kind}")


def _weights(source: PolicySource, model: ModelConfig) -> Check:
    where = source.check_header()
    count = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(model)))
    text = f"{where}; {count:,} parameters, {4 * count / _GIB:.3f} GiB in float32"
    return Check(name="weights", text=text)


def _vocabulary(tokenizer: Tokenizer, model: ModelConfig) -> Check:
    check_vocabulary(tokenizer, model)
    text = f"the policy's {model.vocab_size} ids hold the tokenizer's {tokenizer.vocab_size}"
    return Check(name="vocabulary", text=text)


def _learner_state(memory: LearnerMemory, sharding: Sharding) -> Iterator[Check]:
    """How much is trained, and that a device holds what the learner keeps of it."""
    yield Check(name="trained", text=memory.trained)
    available = memory_of_device(sharding.mesh)
    memory.check_fits(available)
    of = "" if available is None else f", of {available / _GIB:.2f} GiB"
    yield Check(name="learner state", text=f"{memory}{of}")


def _memory(config: RlConfig, model: ModelConfig, decoding: Sharding) -> Check:
    """Plans the decoder's memory as its engine does; nothing is allocated."""
    plan = plan_memory(
        config.engine.numerics.model(model),
        config.engine,
        decoding,
        longest_prompt=longest_prompt(config.rollout, config.engine),
    )
    return Check(name="memory", text=str(plan))
