"""Step time of overlapped rollouts against turns: `python -m benchmarks.async_rollouts [--quick] [--json PATH]`.

One run trains the same small policy with `Schedule.max_staleness` 0 and 1, in turn, for tools of several
latencies. The policy has the quickstart's size and random weights, and its tags are one character, so
that it makes calls at once. A step's time is the wall clock from row to row of metrics.jsonl, without
each run's first steps, which compile. Does not measure what staleness costs in learning.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import io
import itertools
import json
import pathlib
import platform
import random
import statistics
import tempfile
from typing import Any

import jax

from jaxtool.cli import entry
from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.problems import Split
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.engine import EngineConfig
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.model.config import ModelConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.rewards.terms import RewardTerms, ToolBonus
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.train.rl_config import RlConfig, Schedule
from jaxtool.train.rl_loop import train

COMPILING_STEPS = 3
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters:
    """A tokenizer of fourteen characters and two special tokens."""

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
            Problem(problem_id=f"sum/{i}", question=f"{i % 6}+{i % 5}", answer=f"{i % 6 + i % 5}")
            for i in range(count)
        ]


def run_config(folder: pathlib.Path, max_staleness: int, steps: int) -> RlConfig:
    renderer = folder / "one_character.toml"
    renderer.write_text(RENDERER)
    model = ModelConfig(
        vocab_size=16,
        d_model=128,
        d_ff=352,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        scans_layers=False,
    )
    return RlConfig(
        policy=RandomInit(config=model),
        tokenizer=Characters(),
        task=Sums(),
        renderer=str(renderer),
        schedule=Schedule(
            steps=steps,
            problems_per_step=8,
            samples=8,
            pool=64,
            checkpoint_every=steps,
            log_trajectories_every=steps,
            max_staleness=max_staleness,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-5),  # lengths must stay those of the first step
        terms=RewardTerms(tool_bonus=ToolBonus()),
        grpo=GrpoConfig(micro_batch_rows=8),
        rollout=RolloutConfig(max_response_tokens=96, max_tool_calls=3),
        engine=EngineConfig(
            decode_rows=64, max_tokens=128, window_steps=8, min_prompt_bucket=16, prefill_rows=8
        ),
        pack=PackConfig(row_tokens=128),
        mesh=MeshConfig(),
    )


class SlowTool:
    """Refuses after a random wait of up to `max_latency_s`: a random policy writes no programs."""

    def __init__(self, seed: int, max_latency_s: float):
        self._random, self._max_latency_s = random.Random(seed), max_latency_s

    async def execute(self, code: str) -> ToolResult:
        await asyncio.sleep(self._random.random() * self._max_latency_s)
        error = "SyntaxError: invalid syntax\n"
        return ToolResult(status=ToolStatus.ERROR, stderr=error, error_type="SyntaxError")

    async def close(self) -> None:
        return None


def measured(max_staleness: int, latency_s: float, steps: int, seed: int) -> dict[str, float]:
    """Medians over the steps of one run that compile nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tool = SlowTool(seed, latency_s)
        config = run_config(folder, max_staleness, steps)
        with contextlib.redirect_stdout(io.StringIO()):
            train(config, workdir=folder / "run", seed=seed, tool=tool)
        rows = read_metrics(folder / "run" / METRICS_NAME)
    after = rows[COMPILING_STEPS:]
    ends = [row["time_s"] for row in rows[COMPILING_STEPS - 1 :]]
    figures = {"step_s": statistics.median(b - a for a, b in itertools.pairwise(ends))}
    for short, metric in (
        ("collect_s", "timing/collect_s"),
        ("update_s", "timing/update_s"),
        ("learner_wait_s", "timing/learner_wait_s"),
        ("decoder_wait_s", "timing/decoder_wait_s"),
        ("older_tokens_fraction", "staleness/older_tokens_fraction"),
        ("calls_per_answer", "tools/calls_per_answer"),
        ("response_tokens", "tokens/response_mean"),
    ):
        figures[short] = statistics.median(row.get(metric, 0.0) for row in after)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Step time of overlapped rollouts against turns.")
    parser.add_argument("--quick", action="store_true", help="one latency, one run of each")
    entry.add_json_flag(parser, "where to write all figures")
    flags = parser.parse_args()
    latencies_s = (0.5,) if flags.quick else (0.0, 0.5, 2.0)
    rounds, steps = (1, 10) if flags.quick else (2, 10)
    rows: list[dict[str, Any]] = []
    for latency_s in latencies_s:
        for seed in range(rounds):
            for max_staleness in (0, 1):
                row = {"max_latency_s": latency_s, "max_staleness": max_staleness, "seed": seed}
                rows.append(row | measured(max_staleness, latency_s, steps, seed))
                print("  ".join(f"{k} {v:.3g}" for k, v in rows[-1].items()), flush=True)
    ratios = {}
    for latency_s in latencies_s:
        step_s = [
            statistics.median(
                row["step_s"]
                for row in rows
                if (row["max_latency_s"], row["max_staleness"]) == (latency_s, max_staleness)
            )
            for max_staleness in (0, 1)
        ]
        ratios[f"{latency_s:g}"] = step_s[0] / step_s[1]
        print(
            f"tools of up to {latency_s:g} s: turns / overlapped = {ratios[f'{latency_s:g}']:.2f}"
        )
    if flags.json:
        machine = {"python": platform.python_version(), "jax": jax.__version__}
        machine["device"] = jax.devices()[0].device_kind
        summary = {"step_ratio_by_max_latency_s": ratios}
        flags.json.write_text(json.dumps({"summary": summary, "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
