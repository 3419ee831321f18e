"""The configuration of a command that is given names of weights and no gin file: `evaluate` and `sample`.

A run's policy brings its own: the run's prompt, tools, judge and budgets. Other weights get the plainest that fits: the
sandbox's Python, called as the chat template says, in ReTool's tags, or as ToRL's base models do; the judge that can read
the references; rows as long as the longest prompt and the response. What was chosen is said in one line. Nothing is
trained with it: `experiments.new_run` writes a run file.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxtool.core.types import Problem
from jaxtool.data.problems import Task
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.references import check_references, fitting_judge
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.parallel.axis_rules import AxisRules
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.renderers.prompt_tools import as_functions
from jaxtool.renderers.renderer import load_renderer, tool_free_name
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.named_model import NamedModel, model_named
from jaxtool.train.rl_config import RlConfig, Schedule
from jaxtool.train.run_shapes import Kind, decoder_config, row_tokens
from jaxtool.train.run_tools import load_renderer_of
from jaxtool.train.sft_loop import SftRunConfig
from jaxtool.train.weights import weights_named

USUAL_RESPONSE = 1024  # tokens, where neither a run nor a flag says
USUAL_CALLS = 4
_MOST_ROWS = 64
_QUESTION: list[dict[str, str]] = [{"role": "user", "content": "question"}]


def plain_config(
    names: Sequence[str | Path],
    task: Task,
    problems: Sequence[Problem],
    *,
    uses_tools: bool | None = None,
    renderer: str | None = None,
    max_response_tokens: int | None = None,
    answers: int | None = None,
) -> RlConfig:
    """The configuration with which these weights answer these problems.

    The first name that is a run decides; without one the first name does.

    Args:
      names: of weights (`jaxtool.train.weights`), one or more.
      task: put into the configuration as it is.
      problems: that will be asked, one or more: their prompts fit, and the judge can read their references.
      uses_tools: False: the renderer's prompt without tools (`tool_free_name`); True: a renderer with a tool; None:
        as the run does, and without a run with tools.
      renderer: a template's name or path, in place of all that.
      max_response_tokens: None: the run's, or 1024, or what the model's context leaves.
      answers: that will be decoded, samples included; no more rows are made.

    Raises:
      FileNotFoundError: there are no such weights, or no tokenizer with them.
      ValueError: no judge can read the references, or the context is too short for a prompt.
    """
    models = [model_named(name) for name in names]
    model = next((each for each in models if each.run is not None), models[0])
    return _config(model, task, problems, uses_tools, renderer, max_response_tokens, answers)


def config_of_run(
    run: RlConfig,
    name: str | Path,
    task: Task,
    problems: Sequence[Problem],
    *,
    uses_tools: bool | None = None,
    renderer: str | None = None,
    max_response_tokens: int | None = None,
    answers: int | None = None,
) -> RlConfig:
    """The same by a run of a gin file: these weights are asked as that run asks.

    Args:
      name: of weights; the rest is as in `plain_config`.
    """
    source = weights_named(name, run.policy)
    model = NamedModel(
        name=str(name), source=source, tokenizer=run.tokenizer, context=None, run=run
    )
    return _config(model, task, problems, uses_tools, renderer, max_response_tokens, answers)


def _config(
    model: NamedModel,
    task: Task,
    problems: Sequence[Problem],
    uses_tools: bool | None,
    renderer: str | None,
    max_response_tokens: int | None,
    answers: int | None,
) -> RlConfig:
    tokenizer = model.tokenizer.load()
    base = _with_renderer(_base(model, task, tokenizer), tokenizer, uses_tools, renderer)
    base = dataclasses.replace(base, task=task, judge=judge_for(base.judge, problems))
    longest = longest_prompt_of(base, tokenizer, problems)
    response = _response_tokens(model, longest, max_response_tokens)
    if model.run is None:
        print(
            f"defaults for {model.name}: renderer {base.renderer}, judge {type(base.judge).__name__}, {response} tokens "
            f"of response behind up to {longest} of a prompt, {USUAL_CALLS} calls; --gin_file says otherwise",
            flush=True,
        )
    return fitted(base, longest, response, answers)


def device_kind() -> Kind:
    """What the devices of this process are."""
    backend = jax.default_backend()
    return "cpu" if backend == "cpu" else "tpu" if backend == "tpu" else "gpu"


def has_chat_template(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer can write a conversation."""
    try:
        tokenizer.render_chat(_QUESTION)
    except ValueError:
        return False
    return True


def default_renderer(tokenizer: Tokenizer) -> str:
    """By what the chat template can write: its own calls, tags in a chat, or plain text without a template."""
    if not has_chat_template(tokenizer):
        return "torl"
    plain = tokenizer.render_chat(_QUESTION)
    for name, mark in (("qwen3_coder", "<function="), ("hermes", "<tool_call>")):
        if _describes(tokenizer, mark) and mark not in plain:
            return name
    return "retool"


def _describes(tokenizer: Tokenizer, mark: str) -> bool:
    """Whether the chat template describes tools, with this mark of a call."""
    try:
        return mark in tokenizer.render_chat(_QUESTION, as_functions((PythonSandbox().spec,)))
    except ValueError:
        return False


def judge_for(wanted: Judge, problems: Sequence[Problem]) -> Judge:
    """`wanted` where it can read the references, else the judge that fits.

    Raises:
      ValueError: none of ours does; what `check_references` says.
    """
    try:
        check_references(wanted, problems)
    except ValueError:
        other = fitting_judge(problems, besides=wanted)
        if other is None:
            raise
        return other
    return wanted


def longest_prompt_of(config: RlConfig, tokenizer: Tokenizer, problems: Sequence[Problem]) -> int:
    """Tokens of the longest prompt, with the run's tools and without."""
    renderers = [load_renderer_of(config)]
    if renderers[0].tool is not None and renderers[0].tool_free:
        renderers.append(load_renderer(tool_free_name(config.renderer)))
    lengths = [
        len(renderer.prompt_ids(tokenizer, problem))
        for renderer in renderers
        for problem in problems
    ]
    return max(lengths)


def _base(model: NamedModel, task: Task, tokenizer: Tokenizer) -> RlConfig:
    """The run's configuration, or a new one, with this model; lengths are those of nobody yet."""
    if isinstance(model.run, RlConfig):
        return dataclasses.replace(
            model.run,
            policy=model.source,
            mesh=MeshConfig(may_idle=True),  # the run's may be of another machine
            axes=AxisRules(),
        )
    config = RlConfig(
        policy=model.source,
        tokenizer=model.tokenizer,
        task=task,
        renderer=default_renderer(tokenizer),
        rollout=RolloutConfig(max_tool_calls=USUAL_CALLS),
        judge=Mathematics(reports_lenient=True),
        schedule=Schedule(steps=1),
        optimizer=OptimizerConfig(),
    )
    if isinstance(model.run, SftRunConfig):
        first = model.run.streams[0]
        return dataclasses.replace(config, renderer=first.renderer, tools=first.tools or None)
    return config


def _with_renderer(
    config: RlConfig, tokenizer: Tokenizer, uses_tools: bool | None, renderer: str | None
) -> RlConfig:
    if renderer is not None:
        return dataclasses.replace(config, renderer=renderer)
    if uses_tools is None:
        return config
    has_tool = load_renderer_of(config).tool is not None
    if has_tool == uses_tools:
        return config
    name = default_renderer(tokenizer) if uses_tools else tool_free_name(config.renderer)
    return dataclasses.replace(config, renderer=name, tools=None)


def _response_tokens(model: NamedModel, longest: int, asked: int | None) -> int:
    context = model.context
    if context is not None and longest + (asked or 1) > context:
        raise ValueError(
            f"{model.name}: positions reach to {context} tokens, and the longest prompt has {longest}"
            + (
                f", with {asked} of response too many: ask for fewer, or extend them by YaRN (docs/weights.md)"
                if asked
                else ""
            )
        )
    if asked is not None:
        return asked
    if isinstance(model.run, RlConfig):
        return model.run.rollout.max_response_tokens
    return USUAL_RESPONSE if context is None else min(USUAL_RESPONSE, context - longest)


def fitted(config: RlConfig, longest: int, response: int, answers: int | None = None) -> RlConfig:
    """The run with rows that hold the longest prompt and the response, as many as fit when the decoder starts.

    Args:
      longest: tokens of the longest prompt (`longest_prompt_of`).
      response: tokens that a response may have.
      answers: that will be decoded; no more rows are made. None: up to 256.
    """
    kind = device_kind()
    tokens = row_tokens(longest, response, kind)
    # A count of devices that rows divide over: `may_idle` takes as many devices as it can.
    parts = jax.local_device_count()
    engine = decoder_config(
        prompt_tokens=longest,
        tokens=tokens,
        kind=kind,
        most_rows=max(4, min(_MOST_ROWS, answers or _MOST_ROWS)),
        row_parts=parts,
    )
    return dataclasses.replace(
        config,
        engine=dataclasses.replace(engine, numerics=config.engine.numerics),
        rollout=dataclasses.replace(config.rollout, max_response_tokens=response),
        pack=PackConfig(row_tokens=tokens),
        # Nothing is trained; a gradient block must divide over the mesh all the same.
        grpo=dataclasses.replace(config.grpo, micro_batch_rows=jax.device_count()),
    )
