"""Real decoding with tool calls of a tiny random policy: any arrival order and latency, and many rows.

JAXTOOL_TEST_TRAJECTORIES=10000 runs the long form of the leak test.
"""

import asyncio
import gc
import os
import random
import resource

import jax
import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.decoding import make_engine
from helpers.tiny_models import random_params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtool.core.types import FinishReason, Problem, ToolResult, ToolStatus
from jaxtool.data.protocol import Protocol, ToolFormat, stop_token_mask
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.sampling import Sampling
from jaxtool.model.config import tiny
from jaxtool.rollout.collector import Collector, RolloutConfig

# A random policy calls now and then, because one piece in 46 is a whole call and six are half of one.
PIECES = (
    "<c>1</c>",
    "<c>",
    "</c",
    ">",
    *"0123456789+=[]abcdefghijklmnopqrstuvwxyz",
    "?",
    "<c>2</c>",
    "</c>",
)
PROTOCOL = Protocol(
    name="tiny",
    messages=(("user", "{question}="),),
    uses_chat_template=False,
    response_prefix="",
    tool=ToolFormat(
        code_open="<c>",
        code_close="</c>",
        fence="```",
        observation="[{output}]",
        max_output_chars=12,
        error_style="last_line",
        empty_output="0",
    ),
    answer_close="",
    answer_style="boxed",
)
CONFIG = EngineConfig(
    slots=8,
    rows=16,
    max_tokens=64,
    window_steps=6,
    refill_below=0.8,
    min_view=64,
    prefill_rows=4,
    min_prompt_bucket=8,
    forced_tokens=6,
    append_rows=2,
)


class Echo:
    """Answers as long as the program; waits as told."""

    name = "echo"

    def __init__(self, seed: int, latency_s: float):
        self._numbers, self._latency_s = random.Random(seed), latency_s

    async def execute(self, code: str) -> ToolResult:
        await asyncio.sleep(self._numbers.random() * self._latency_s)
        return ToolResult(status=ToolStatus.OK, stdout="7" * (1 + len(code) % 12))

    async def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def made():
    tokenizer = VocabularyTokenizer(PIECES)
    model = tiny(tokenizer.vocab_size)
    mask = stop_token_mask(tokenizer, PROTOCOL.stop_tags)
    stops = np.flatnonzero(mask).tolist()
    engine = make_engine(model, random_params(model), CONFIG, stops=stops)
    engine.compile([Sampling()], longest_prompt=8)
    return engine, tokenizer


def collect(made, problems, *, seed=0, latency_s=0.0, samples=2, tool_seed=0):
    engine, tokenizer = made
    collector = Collector(
        engine=engine,
        tokenizer=tokenizer,
        protocol=PROTOCOL,
        tool=Echo(tool_seed, latency_s),
        config=RolloutConfig(max_response_tokens=40, max_tool_calls=3),
    )
    trajectories = asyncio.run(
        collector.collect(
            problems,
            samples=samples,
            sampling=Sampling(),
            seed=seed,
            stream=("many",),
            version=0,
        )
    )
    return {(t.problem.problem_id, t.sample): t for t in trajectories}


def problems_of(count: int) -> list[Problem]:
    return [
        Problem(problem_id=f"p{i}", question="1+2"[: 1 + i % 3], answer="") for i in range(count)
    ]


@pytest.fixture(scope="module")
def expected(made):
    trajectories = collect(made, problems_of(12))
    assert sum(t.num_tool_calls for t in trajectories.values()) > 10
    reasons = {t.finish_reason for t in trajectories.values()}
    assert {FinishReason.LENGTH, FinishReason.EOS} <= reasons
    return trajectories


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    order=st.permutations(range(12)),
    count=st.integers(1, 12),
    latency_s=st.sampled_from([0.0, 0.002, 0.02]),
    tool_seed=st.integers(0, 99),
)
def test_a_row_is_the_same_in_any_order_company_and_latency(
    made, expected, order, count, latency_s, tool_seed
):
    problems = [problems_of(12)[i] for i in order[:count]]
    got = collect(made, problems, latency_s=latency_s, tool_seed=tool_seed)
    assert len(got) == 2 * count
    for key, trajectory in got.items():
        np.testing.assert_array_equal(trajectory.ids, expected[key].ids)
        np.testing.assert_array_equal(trajectory.origins, expected[key].origins)
        np.testing.assert_allclose(
            trajectory.behaviour_logprobs, expected[key].behaviour_logprobs, atol=1e-5
        )


def test_many_trajectories_leak_nothing_and_compile_nothing(made, expected):
    del expected  # has warmed everything up
    engine, _ = made
    count = int(os.environ.get("JAXTOOL_TEST_TRAJECTORIES", "600"))
    rounds = 4
    gc.collect()
    arrays, memory = len(jax.live_arrays()), []
    reprefilled = engine.counts.reprefilled_tokens
    with compilations() as compiled:
        for seed in range(rounds):
            got = collect(made, problems_of(count // (4 * rounds)), seed=seed, samples=4)
            for trajectory in got.values():
                trajectory.check()
            gc.collect()
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert compiled == []
    assert engine.counts.late_programs == 0
    assert len(jax.live_arrays()) <= arrays
    assert engine.num_free == CONFIG.rows
    assert engine.counts.reprefilled_tokens == reprefilled
    assert memory[-1] - memory[0] < 50_000, f"KiB resident after each round: {memory}"
