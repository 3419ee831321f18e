"""Real decoding with tool calls of a tiny random policy: any arrival, schedule and latency, and many rows.

JAXTOOL_TEST_TRAJECTORIES=10000 runs the long form of the leak test.
"""

import asyncio
import dataclasses
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

from jaxtool.core.types import FinishReason, Problem, ToolResult, ToolStatus, trajectories_of
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.model.config import tiny
from jaxtool.renderers.renderer import Renderer, ToolFormat, stop_token_mask
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.tools.menu import Menu

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
RENDERER = Renderer(
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
    answer=AnswerFormat(),
)
CONFIG = EngineConfig(
    decode_rows=8,
    cache_rows=16,
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

    def __init__(self, seed: int, latency_s: float):
        self._numbers, self._latency_s = random.Random(seed), latency_s

    async def execute(self, code: str) -> ToolResult:
        await asyncio.sleep(self._numbers.random() * self._latency_s)
        return ToolResult(status=ToolStatus.OK, stdout="7" * (1 + len(code) % 12))

    async def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def policy():
    tokenizer = VocabularyTokenizer(PIECES)
    model = dataclasses.replace(tiny(tokenizer.vocab_size), num_layers=1)
    mask = stop_token_mask(tokenizer, RENDERER.stop_tags)
    return model, random_params(model), np.flatnonzero(mask).tolist()


@pytest.fixture(scope="module")
def made(policy):
    tokenizer = VocabularyTokenizer(PIECES)
    model, params, stops = policy
    engine = make_engine(model, params, CONFIG, stops=stops)
    engine.compile([Sampling()], longest_prompt=8)
    return engine, tokenizer


def make_collector(made, *, latency_s=0.0, tool_seed=0, **switches):
    engine, tokenizer = made
    return Collector(
        engine=engine,
        tokenizer=tokenizer,
        renderer=RENDERER,
        tools=Menu.of_code(Echo(tool_seed, latency_s)),
        config=RolloutConfig(max_response_tokens=40, max_tool_calls=3, **switches),
    )


def by_name(trajectories):
    return {(t.problem.problem_id, t.sample): t for t in trajectories}


def collect(made, problems, *, seed=0, samples=2, **options):
    collector = make_collector(made, **options)
    groups = asyncio.run(
        collector.collect(
            problems,
            samples=samples,
            sampling=Sampling(),
            seed=seed,
            stream=("many",),
            version=0,
        )
    )
    return by_name(trajectories_of(groups))


async def collect_arrivals(collector, problems, arrivals):
    """Each problem is a job of its own, that comes when so many windows and waits have gone by."""
    jobs, at = {}, 0
    while len(jobs) < len(problems) or not all(job.is_done for job in jobs.values()):
        for i, problem in enumerate(problems):
            if i not in jobs and arrivals[i] <= at:
                jobs[i] = collector.begin(
                    [problem], samples=2, sampling=Sampling(), seed=0, stream=("many",)
                )
        await collector.advance(0)
        at += 1
    return by_name(trajectories_of(group for job in jobs.values() for group in job.groups()))


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key, trajectory in got.items():
        np.testing.assert_array_equal(trajectory.ids, expected[key].ids)
        np.testing.assert_array_equal(trajectory.origins, expected[key].origins)
        np.testing.assert_allclose(
            trajectory.behaviour_logprobs, expected[key].behaviour_logprobs, atol=1e-5
        )


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
    arrivals=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    latency_s=st.sampled_from([0.0, 0.002, 0.02]),
    tool_seed=st.integers(0, 99),
)
def test_a_row_is_the_same_in_any_order_company_and_latency(
    made, expected, order, arrivals, latency_s, tool_seed
):
    """Rows come while others decode, and each call takes a time of its own."""
    problems = [problems_of(12)[i] for i in order[: len(arrivals)]]
    collector = make_collector(made, latency_s=latency_s, tool_seed=tool_seed)
    got = asyncio.run(collect_arrivals(collector, problems, arrivals))
    names = {problem.problem_id for problem in problems}
    assert_same(got, {key: row for key, row in expected.items() if key[0] in names})


@pytest.fixture(scope="module")
def another(made, policy):
    """An engine that may use programs which `made` does not know, with options of its own."""
    _, tokenizer = made
    model, params, stops = policy
    return lambda **options: (
        make_engine(model, params, dataclasses.replace(CONFIG, **options), stops=stops),
        tokenizer,
    )


SWITCHES = ({"schedule": "lockstep"}, {"kv": "reprefill"})


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda x: next(iter(x)))
def test_the_switches_for_comparison_change_no_token(another, expected, switches):
    other = another()
    got = collect(other, problems_of(12), latency_s=0.002, **switches)
    assert_same(got, expected)
    again = other[0].counts.reprefilled_tokens
    # A call of a row is after its prompt of at least one token, which is then run again.
    calls = sum(row.num_tool_calls for row in expected.values())
    assert again > calls if "kv" in switches else again == 0


@pytest.fixture(scope="module")
def paged(another):
    """By tokens of the pool: one row of `max_tokens`, and two and a half."""
    return {
        pool: another(
            pages=PagesConfig(
                page_tokens=8, pool_tokens=pool, headroom_tokens=16, pages_in_flight=2
            )
        )
        for pool in (64, 160)
    }


def assert_pool_is_whole(engine):
    engine._paged.pool.check()
    assert engine._paged.pool.num_free == engine.config.pages.num_pages
    assert engine._paged.host_pages == 0
    assert engine.num_free == engine.config.num_cache_rows


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pool=st.sampled_from([64, 160]),
    order=st.permutations(range(12)),
    arrivals=st.lists(st.integers(0, 9), min_size=4, max_size=12),
    latency_s=st.sampled_from([0.0, 0.002, 0.02]),
    tool_seed=st.integers(0, 99),
)
def test_a_paged_cache_of_any_size_gives_the_same_rows(
    paged, expected, pool, order, arrivals, latency_s, tool_seed
):
    """Rows come while others decode, wait for tools of any latency, and move when the pool is dry."""
    made = paged[pool]
    problems = [problems_of(12)[i] for i in order[: len(arrivals)]]
    collector = make_collector(made, latency_s=latency_s, tool_seed=tool_seed)
    got = asyncio.run(collect_arrivals(collector, problems, arrivals))
    names = {problem.problem_id for problem in problems}
    assert_same(got, {key: row for key, row in expected.items() if key[0] in names})
    assert made[0].counts.reprefilled_tokens == 0
    assert_pool_is_whole(made[0])


def test_a_paged_cache_moves_rows_and_may_also_prefill_again(paged, expected):
    small, large = (paged[pool][0].counts for pool in (64, 160))
    moved = small.moved_rows
    assert_same(collect(paged[64], problems_of(12), latency_s=0.01), expected)
    assert small.moved_rows > moved
    assert_same(collect(paged[160], problems_of(12), kv="reprefill"), expected)
    assert large.reprefilled_tokens > 0
    assert_pool_is_whole(paged[160][0])


def test_the_same_weights_again_before_each_window_change_no_token(
    another, policy, expected, monkeypatch
):
    """Rows go on over a change of weights with the cache that they have."""
    other = another()
    engine, loads = other[0], []
    dispatch = engine.dispatch_window

    def load_and_dispatch(**options):
        loads.append(engine.num_running)
        engine.load(policy[1])
        return dispatch(**options)

    monkeypatch.setattr(engine, "dispatch_window", load_and_dispatch)
    assert_same(collect(other, problems_of(12)), expected)
    assert len(loads) > 6


def test_prompts_that_go_by_chunks_between_windows_change_no_token(another, monkeypatch):
    """Of 2 to 20 tokens by chunks of 4; some of a prompt's chunks run while other rows decode."""
    problems = [
        dataclasses.replace(problem, question=("1+2=" * 5)[: 1 + 6 * (i % 4)])
        for i, problem in enumerate(problems_of(12))
    ]
    expected = collect(another(), problems)
    other = another(prefill_chunk=4)
    engine, between = other[0], []
    advance = engine.advance_prefill

    def watch_and_advance(call):
        between.append(call.done > 0 and engine.is_any_running)
        advance(call)

    monkeypatch.setattr(engine, "advance_prefill", watch_and_advance)
    assert_same(collect(other, problems), expected)
    assert sum(between) >= 3


@pytest.mark.nightly
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
    assert engine.num_free == CONFIG.cache_rows
    assert engine.counts.reprefilled_tokens == reprefilled
    assert memory[-1] - memory[0] < 50_000, f"KiB resident after each round: {memory}"
