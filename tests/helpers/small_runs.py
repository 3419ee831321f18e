"""Runs small enough for a test, in which a random policy makes calls: the tags are one character."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxtool.core.types import Problem, Score, ToolResult, ToolStatus, Trajectory, Verdict
from jaxtool.data.problems import Split
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.engine import EngineConfig
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.sft import SftConfig
from jaxtool.model.config import tiny
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.function import Function
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train import rl_loop, sft_loop
from jaxtool.train.rl_config import RlConfig, Schedule
from jaxtool.train.sft_loop import Demonstrations, DemonstrationStream, SftRunConfig

# One id more than the tokenizer has: padded vocabularies are common.
MODEL = dataclasses.replace(tiny(17), num_layers=1, scans_layers=False)

RENDERER = """
[[messages]]
role = "user"
content = "{question}="

[format]
uses_chat_template = false
response_prefix = ""

[tool]
code_open = "<"
code_close = ">"
fence = "```"
observation = "[{output}]"
max_output_chars = 9
error_style = "last_line"
empty_output = "0"

[answer]
close = "!!"
style = "boxed"
"""


# The same with a second tool, a user's function.
LENGTH_TAGS = """
[[calls]]
tool = "length"
argument = "text"
open = "?"
close = "]"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallTokenizer:
    characters: str = "012345+=<>![]?"

    def load(self) -> VocabularyTokenizer:
        return VocabularyTokenizer(tuple(self.characters))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """Questions "0+1", "1+2", ..."""

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        del split, seed
        assert count is not None
        return [
            Problem(problem_id=f"sum/{i}", question=f"{i}+{i + 1}", answer=f"{2 * i + 1}")
            for i in range(count)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthReward:
    """Differs inside a group, so that every step has something to learn; also uses n."""

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        del history
        return [
            Score(reward=len(t.ids) / 10 + cost, is_correct=v.is_correct)
            for t, v, cost in zip(group, verdicts, costs, strict=True)
        ]


class CountingTool:
    """Says how long the program is; raises `error` at call number `fails_at`."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None):
        self.calls = 0
        self._fails_at, self._error = fails_at, error

    async def execute(self, code: str) -> ToolResult:
        self.calls += 1
        if self._error is not None and self._fails_at is not None and self.calls >= self._fails_at:
            raise self._error
        return ToolResult(status=ToolStatus.OK, stdout=str(len(code)) * 8)

    async def close(self) -> None:
        return None


def one_device_mesh() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def train(config: RlConfig, **options) -> Path:
    """An RL run on one device."""
    return rl_loop.train(config, mesh=one_device_mesh(), **options)


def cold_start(config: SftRunConfig, **options) -> Path:
    """A cold start on one device."""
    return sft_loop.train(config, mesh=one_device_mesh(), **options)


def two_tools(folder: Path, **fields) -> RlConfig:
    """`rl_config` with code and a function, a call of which costs half as much."""
    renderer = folder / "two_tools.toml"
    renderer.write_text(RENDERER + LENGTH_TAGS)
    function = Function(call="helpers.user_tools:length")
    defaults = {
        "renderer": str(renderer),
        "tools": (PythonSandbox(), function),
        "call_cost": CallCost(per_tool=(("length", 0.5),)),
    }
    config = rl_config(folder, **(defaults | fields))
    return dataclasses.replace(
        config,
        rollout=dataclasses.replace(config.rollout, max_tool_calls=4),
        schedule=dataclasses.replace(config.schedule, log_trajectories=16),  # all of a step
    )


def rl_config(folder: Path, **fields) -> RlConfig:
    renderer = folder / "one_character.toml"
    renderer.write_text(RENDERER)
    defaults = {
        "policy": RandomInit(config=MODEL),
        "tokenizer": SmallTokenizer(),
        "task": Sums(),
        "renderer": str(renderer),
        "schedule": Schedule(
            steps=4,
            problems_per_step=2,
            samples=8,
            pool=5,
            checkpoint_every=2,
            log_trajectories_every=1,
        ),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "reward": LengthReward(),
        "grpo": GrpoConfig(micro_batch_rows=4, lm_head_chunk=32),
        "rollout": RolloutConfig(max_response_tokens=24, max_tool_calls=2),
        "engine": EngineConfig(
            decode_rows=8,
            max_tokens=32,
            window_steps=8,
            min_view=32,
            prefill_rows=2,
            min_prompt_bucket=8,
            forced_tokens=8,
            append_rows=2,
        ),
        "pack": PackConfig(row_tokens=32),
    }
    return RlConfig(**(defaults | fields))


def cold_start_of(
    run: RlConfig, counts: Sequence[int], demonstrations: Demonstrations, **fields
) -> SftRunConfig:
    """A cold start of the policy that an RL run trains, in its renderer and on its mesh.

    Args:
      counts: demonstrations a batch, of each stream.
    """
    streams = tuple(
        DemonstrationStream(demonstrations=demonstrations, renderer=run.renderer, count=count)
        for count in counts
    )
    defaults = {"steps": 2, "sft": SftConfig(micro_batch_rows=4, lm_head_chunk=16)}
    return SftRunConfig(
        policy=run.policy,
        tokenizer=run.tokenizer,
        streams=streams,
        optimizer=run.optimizer,
        pack=run.pack,
        mesh=run.mesh,
        axes=run.axes,
        **(defaults | fields),
    )
