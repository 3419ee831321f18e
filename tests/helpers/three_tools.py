"""A run whose policy calls code, search and a function, and a policy that has learned to call them.

Every problem asks the same; what differs are the trajectories: `RESPONSES` says which calls they make, and a cold
start on them makes a policy that answers like one of them. So groups differ by what their calls cost.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from helpers.small_runs import cold_start, cold_start_of, rl_config

from jaxtool.core.types import Problem, Trajectory
from jaxtool.data.problems import Split
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.engine import DecodeEngine, EngineConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.model.config import tiny
from jaxtool.model.sources import RandomInit
from jaxtool.renderers.demonstrations import demonstration
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.outcome import OtcGrpoReward
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.function import Function
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.tools.search import Search
from jaxtool.tools.search_client import SearchClientConfig
from jaxtool.train.rl_config import RlConfig, Schedule

RENDERER = """
[[messages]]
role = "user"
content = "{question}="

[format]
uses_chat_template = false
response_prefix = ""

[tool]
code_open = "<code>"
code_close = "</code>"
fence = ""
observation = "[{output}]"
max_output_chars = 9
error_style = "last_line"
empty_output = "None"

[[calls]]
tool = "search"
argument = "query"
open = "<search>"
close = "</search>"
observation = "<doc>{output}</doc>"

[[calls]]
tool = "length"
argument = "text"
open = "<length>"
close = "</length>"

[answer]
close = "</answer>"
style = "answer_tag"
"""
TAGS = [
    f"<{end}{tag}>" for tag in ("code", "search", "doc", "length", "answer") for end in ("", "/")
]
PIECES = (*TAGS, "\n", *map(chr, range(32, 127)))

CODE, RESULT = "<code>1+2</code>", "[3]"
SEARCH, PASSAGE = "<search>oslo</search>", "<doc>Doc 1(Title: Oslo) Cap</doc>"
LENGTH, CHARACTERS = "<length>oslo</length>", "[4]"
ANSWER = "<answer>3</answer>"
CORPUS = [
    {"id": "oslo", "contents": '"Oslo"\nCapital of Norway.'},
    {"id": "rome", "contents": '"Rome"\nCapital of Italy.'},
]
OBSERVATION_TOKENS = len("Doc 1(Title: Oslo) Cap")  # of a passage, whose head is kept
# All three tools; code alone; function and code.
RESPONSES = (
    CODE + RESULT + SEARCH + PASSAGE + LENGTH + CHARACTERS + ANSWER,
    CODE + RESULT + ANSWER,
    LENGTH + CHARACTERS + CODE + RESULT + ANSWER,
)
COST = CallCost(per_tool=(("search", 0.5), ("length", 0.25)))  # code keeps 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PiecesTokenizer:
    def load(self) -> VocabularyTokenizer:
        return VocabularyTokenizer(PIECES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneQuestion:
    """Problems of one question."""

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        del seed
        return [
            Problem(problem_id=f"{split}/{i}", question="1+2", answer="3", level="sum")
            for i in range(count or 0)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
    def take(self, count, *, seed, index, renderer, tokenizer) -> list[Trajectory]:
        del seed
        [problem] = OneQuestion().problems("train", 1, 0)
        often = (*RESPONSES, RESPONSES[0])  # half of them call all three
        texts = [often[(index * count + i) % len(often)] for i in range(count)]
        return [
            demonstration(problem, text, renderer=renderer, tokenizer=tokenizer) for text in texts
        ]


def three_tools(folder: Path, search_address: str, **fields) -> RlConfig:
    """Three steps of OTC-GRPO with a price for each tool."""
    renderer = folder / "three_tools.toml"
    renderer.write_text(RENDERER)
    client = SearchClientConfig(topk=1)
    search = Search(
        addresses=(search_address,), client=client, max_observation_tokens=OBSERVATION_TOKENS
    )
    defaults = {
        "policy": RandomInit(config=dataclasses.replace(tiny(len(PIECES) + 3), scans_layers=False)),
        "tokenizer": PiecesTokenizer(),
        "task": OneQuestion(),
        "renderer": str(renderer),
        "tools": (PythonSandbox(), search, Function(call="helpers.user_tools:length")),
        "reward": OtcGrpoReward(),
        # The policy shall change, and still make every kind of trajectory in the last step.
        "optimizer": OptimizerConfig(learning_rate=1e-3),
        "call_cost": COST,
        "schedule": Schedule(
            steps=3,
            problems_per_step=2,
            samples=8,
            pool=4,
            checkpoint_every=1,
            eval_every=3,
            eval_problems=4,
            log_trajectories_every=1,
            log_trajectories=16,  # all of a step
        ),
        "rollout": RolloutConfig(max_response_tokens=80, max_tool_calls=3),
        "engine": EngineConfig(
            decode_rows=8,
            max_tokens=96,
            window_steps=8,
            min_view=96,
            prefill_rows=2,
            min_prompt_bucket=8,
            forced_tokens=8,  # results of code and function ride a window, passages go by chunks
            append_rows=2,
        ),
        "pack": PackConfig(row_tokens=96),
    }
    return rl_config(folder, **(defaults | fields))


def learned_policy(run: RlConfig, workdir: Path, steps: int = 140) -> Path:
    """A policy that answers like `RESPONSES`, most of the time."""
    config = cold_start_of(run, [8], Demonstrations(), steps=steps, log_every=steps)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(learning_rate=1e-2))
    return cold_start(config, workdir=workdir, seed=1)


class Rows:
    """Every row that a decoder answered, from what went into its cache and came out of it, in order.

    Nothing of it comes from a ledger: prompts as they were placed, tokens as a window gave them, tools' tokens as they
    were appended.
    """

    def __init__(self):
        self.finished: list[tuple[int, ...]] = []
        self._live: dict[tuple[int, int], list[int]] = {}

    def watch(self, patch) -> None:
        """Notes what passes the verbs of every engine, as long as the patch lasts."""
        place, append, fetch, release = (
            getattr(DecodeEngine, name) for name in ("place", "append", "fetch", "release")
        )

        def placed(engine, placements):
            for placement in placements:
                self._live[id(engine), placement.cache_row] = list(placement.prompt.ids)
            return place(engine, placements)

        def appended(engine, outputs):
            for cache_row, ids in outputs.items():
                self._live[id(engine), cache_row] += ids
            return append(engine, outputs)

        def fetched(engine, flight):
            window = fetch(engine, flight)
            for (owner, cache_row), ids in self._live.items():
                if owner == id(engine):
                    steps = np.flatnonzero(window.is_sampled[:, cache_row])
                    ids += window.tokens[steps, cache_row].tolist()
            return window

        def released(engine, cache_row):
            self.finished.append(tuple(self._live.pop((id(engine), cache_row))))
            return release(engine, cache_row)

        for name, method in (
            ("place", placed),
            ("append", appended),
            ("fetch", fetched),
            ("release", released),
        ):
            patch.setattr(DecodeEngine, name, method)


def names_of(trajectories: Sequence[Trajectory]) -> Iterator[tuple[str, ...]]:
    """Tools that each called, in order."""
    for trajectory in trajectories:
        yield tuple(call.tool for call in trajectory.tool_calls)
