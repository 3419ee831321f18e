"""Each overlay of gin_configs/tools sets the tools of a run, beside any overlay of gin_configs/algos."""

import dataclasses
from pathlib import Path

import pytest

from jaxtool.config import loader
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.rl_config import RlConfig

CONFIGS = Path(__file__).parents[2] / "gin_configs"
RUN = CONFIGS / "runs" / "quickstart_grpo.gin"
TOOLS = {"python_session": (PythonSandbox(state="trajectory"),)}
ALGOS = sorted((CONFIGS / "algos").glob("*.gin"))


def overlay(name):
    return CONFIGS / "tools" / f"{name}.gin"


def test_every_overlay_is_listed():
    assert {path.stem for path in (CONFIGS / "tools").glob("*.gin")} == set(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_an_overlay_chooses_the_tools_and_nothing_else(name):
    plain = loader.load(RlConfig, files=[RUN])
    assert plain.tools is None
    chosen = loader.load(RlConfig, files=[RUN, overlay(name)])
    assert chosen == dataclasses.replace(plain, tools=TOOLS[name])


@pytest.mark.parametrize("name", TOOLS)
def test_tools_and_algorithms_compose_in_both_orders(name):
    assert len(ALGOS) > 40
    for other in ALGOS:
        pair = [overlay(name), other]
        one, two = (loader.load(RlConfig, files=[RUN, *files]) for files in (pair, pair[::-1]))
        assert one == two, other
        assert one.tools == TOOLS[name], other


def test_the_stateful_run_keeps_what_its_regime_asks_for():
    """A session for each row of a host fits a server as it comes; the longest answer fits the model's positions."""
    run = loader.load(RlConfig, files=[CONFIGS / "runs" / "stateful_qwen3_4b_v6e_64.gin"])
    [tool] = run.tools
    assert (tool.state, tool.has_checkpoints, tool.on_lost_session) == (
        "trajectory",
        True,
        "replay",
    )
    assert (run.rollout.max_tool_calls, run.rollout.max_response_tokens) == (64, 32768)
    assert run.engine.num_cache_rows <= 64
    assert run.engine.max_tokens <= 40_960
