"""How a model without a run is evaluated: tokenizer, renderer, judge and shapes out of its files and the questions.

For a Hugging Face directory, a GGUF file or a model on the hub. Everything it chooses is said in one line, and a gin
file says otherwise. Not covered: training (`experiments.new_run` writes a run file).
"""

import dataclasses
from collections.abc import Sequence

import jax

from jaxtool.core.calls import ToolSpec
from jaxtool.core.types import Problem
from jaxtool.data.named_sets import evaluation_data
from jaxtool.data.problems import Task
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.config import EngineConfig
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.references import fitting_judge
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource
from jaxtool.renderers.prompt_tools import as_functions
from jaxtool.renderers.renderer import load_renderer, tool_free_name
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.hub_model import HubModel
from jaxtool.train.rl_config import RlConfig, Schedule
from jaxtool.train.sources import (
    GgufTokenizer,
    HfTokenizerDirectory,
    HubTokenizer,
    TokenizerSource,
)

RESPONSE_TOKENS = 1024
TOOL_CALLS = 4
_MOST_ROWS = 64
_MULTIPLE = 64  # tokens
_QUESTION: list[dict[str, str]] = [{"role": "user", "content": "question"}]


def default_config(
    source: PolicySource,
    data: Sequence[str],
    *,
    problems: int | None = None,
    seed: int = 0,
    response_tokens: int = RESPONSE_TOKENS,
) -> RlConfig:
    """A configuration that evaluates these weights on test sets of `--data`.

    Args:
      data: as `--data` names sets.
      problems: how many of each set; the longest prompt among them decides the shapes.
      response_tokens: of an answer, tool tokens included.

    Raises:
      ValueError: no set is named, the weights bring no tokenizer, or no judge fits the references.
    """
    if not data:
        raise ValueError(
            "which questions are meant? Weights without a run bring none: name a set, as --data aime24 or "
            "--data gsm8k=FILE, or a run's task by --gin_file"
        )
    task = evaluation_data(data)
    tokenizer_source = _tokenizer_of(source)
    if isinstance(source, GgufFile | HfDirectory | HubModel) and jax.default_backend() != "cpu":
        source = dataclasses.replace(source, compute_dtype="bfloat16")
    tokenizer = tokenizer_source.load()
    renderer = default_renderer(tokenizer)
    asked = task.problems("test", problems, seed)
    longest = _longest_prompt(renderer, tokenizer, asked)
    max_tokens = -(-(longest + response_tokens) // _MULTIPLE) * _MULTIPLE
    judge = _judge_of(asked)
    print(
        f"defaults: renderer {renderer}, judge {type(judge).__name__}, {response_tokens} tokens of response behind up to "
        f"{longest} of a prompt, {TOOL_CALLS} calls; --gin_file says otherwise",
        flush=True,
    )
    return _config(source, tokenizer_source, task, renderer, judge, max_tokens, response_tokens)


def default_renderer(tokenizer: Tokenizer) -> str:
    """By what the chat template can write: its own calls, tags in a chat, or plain text without a template."""
    try:
        plain = tokenizer.render_chat(_QUESTION)
    except ValueError:
        return "torl"
    spec = PythonSandbox().spec
    for name, mark in (("qwen3_coder", "<function="), ("hermes", "<tool_call>")):
        if _describes(tokenizer, spec, mark) and mark not in plain:
            return name
    return "retool"


def _describes(tokenizer: Tokenizer, spec: ToolSpec, mark: str) -> bool:
    """Whether the chat template describes tools, with this mark of a call."""
    try:
        return mark in tokenizer.render_chat(_QUESTION, as_functions((spec,)))
    except ValueError:
        return False


def _tokenizer_of(source: PolicySource) -> TokenizerSource:
    if isinstance(source, GgufFile):
        return GgufTokenizer(path=source.path)
    if isinstance(source, HfDirectory):
        return HfTokenizerDirectory(path=source.path)
    if isinstance(source, HubModel):
        return HubTokenizer(repository=source.repository, revision=source.revision)
    raise ValueError(
        "these weights bring no tokenizer: name the run file that they belong to by --gin_file"
    )


def _longest_prompt(renderer: str, tokenizer: Tokenizer, asked: Sequence[Problem]) -> int:
    """Tokens, over the renderer with tools and the one without."""
    longest = 0
    for name in dict.fromkeys((renderer, tool_free_name(renderer))):
        loaded = load_renderer(name).with_tools((PythonSandbox().spec,))
        lengths = [len(loaded.prompt_ids(tokenizer, problem)) for problem in asked]
        longest = max(longest, *lengths)
    return longest


def _judge_of(asked: Sequence[Problem]) -> Judge:
    """Mathematics where it reads the references, else the narrowest that does."""
    judge = Mathematics()
    unfit = sum(judge.unfit(problem) is not None for problem in asked)
    if unfit <= judge.max_unfit * len(asked):
        return judge
    other = fitting_judge(asked, besides=judge)
    if other is None:
        raise ValueError(
            "no judge fits the references of these questions: name a run file with a judge by --gin_file"
        )
    return other


def _config(
    source: PolicySource,
    tokenizer: TokenizerSource,
    task: Task,
    renderer: str,
    judge: Judge,
    max_tokens: int,
    response_tokens: int,
) -> RlConfig:
    return RlConfig(
        policy=source,
        tokenizer=tokenizer,
        task=task,
        renderer=renderer,
        judge=judge,
        rollout=RolloutConfig(max_response_tokens=response_tokens, max_tool_calls=TOOL_CALLS),
        engine=EngineConfig(
            decode_rows=0, most_decode_rows=_MOST_ROWS, max_tokens=max_tokens, memory_share=0.8
        ),
        # Nothing is trained: what a learner needs is not looked at.
        schedule=Schedule(steps=1),
        optimizer=OptimizerConfig(learning_rate=1e-6),
        pack=PackConfig(row_tokens=max_tokens),
    )
