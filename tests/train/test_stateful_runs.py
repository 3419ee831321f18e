"""Runs whose trajectories have an interpreter: killed and resumed equals uninterrupted, and no session is left."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.sandbox_serving import serving
from helpers.small_runs import rl_config, train

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.trajectory_log import read_trajectories
from jaxtool.tools.code_sessions import BlockResult, SessionCounts, SessionLost
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train import rl_loop
from jaxtool.train.run_tools import load_renderer_of, session_needs
from sandbox_server.wire import sandbox_pb2 as pb

LASTING = PythonSandbox(state="trajectory")


class SumSession:
    """Says the sum of the lengths of its programs: what was run before decides what is read."""

    def __init__(self, runner, seed):
        self.is_lost = False
        self._runner, self._sum = runner, seed

    async def execute(self, code):
        runner = self._runner
        runner.calls += 1
        if runner.calls == runner.fails_at:
            raise KeyError("killed here")
        if runner.calls % runner.loses_every == 0:
            raise SessionLost("its server is gone")
        self._sum += len(code)
        result = ToolResult(status=ToolStatus.OK, stdout=str(self._sum % 6))
        return BlockResult(result=result)

    async def close(self):
        self._runner.open.discard(self)


class SumRunner:
    def __init__(self, fails_at=0, loses_every=10**9):
        self.calls, self.fails_at, self.loses_every = 0, fails_at, loses_every
        self.session_counts = SessionCounts()
        self.open = set()

    async def create_session(self, *, name="", has_checkpoints=True, idle_s=0.0):
        session = SumSession(self, sum(name.encode()) % 97)
        self.session_counts.opened += 1
        self.open.add(session)
        return session

    async def execute(self, code):
        raise AssertionError("a program ran without its session")

    async def close(self):
        return None


def stateful(folder, **fields):
    config = rl_config(folder, tools=(LASTING,), **fields)
    schedule = dataclasses.replace(
        config.schedule, steps=3, samples=16, checkpoint_every=1, log_trajectories=32
    )
    rollout = dataclasses.replace(config.rollout, max_tool_calls=4, max_response_tokens=56)
    engine = dataclasses.replace(config.engine, max_tokens=64, min_view=64)
    pack = dataclasses.replace(config.pack, row_tokens=64)
    return dataclasses.replace(config, schedule=schedule, rollout=rollout, engine=engine, pack=pack)


def rows_of(workdir):
    """Metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [without_clock(row) for row in rows]


def params_of(policy_dir):
    _, params = SavedPolicy(path=str(policy_dir)).load(single_device(), 0)
    return jax.tree.leaves(params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    runner = SumRunner()
    train(stateful(folder), workdir=folder / "run", seed=1, tool=runner)
    return folder, runner


def test_the_run_calls_twice_in_a_trajectory_and_leaves_no_session(whole):
    """Otherwise the tests below would say nothing of state."""
    folder, runner = whole
    views = read_trajectories(folder / "run" / "trajectories.jsonl")
    assert len(views) == 96
    assert sum(len(view.tool_calls) > 1 for view in views) >= 2
    assert runner.session_counts.opened > 3
    assert not runner.open


def test_killed_and_resumed_equals_uninterrupted_bitwise(whole, tmp_path):
    """Unfinished trajectories are drawn again from their keys, in sessions that open anew."""
    folder, runner = whole
    config, workdir = stateful(folder), tmp_path / "run"
    broken = SumRunner(fails_at=runner.calls - 2)
    with pytest.raises(KeyError, match="killed here"):
        train(config, workdir=workdir, seed=1, tool=broken)
    assert not broken.open
    assert (workdir / "checkpoints" / "1").exists()
    resumed = SumRunner()
    train(config, workdir=workdir, seed=1, tool=resumed)
    assert 0 < resumed.calls < runner.calls
    assert not resumed.open
    assert rows_of(workdir) == rows_of(folder / "run")
    for x, y in zip(
        params_of(workdir / "policy"), params_of(folder / "run" / "policy"), strict=True
    ):
        np.testing.assert_array_equal(x, y)


def test_sessions_lost_and_replayed_change_nothing(whole, tmp_path):
    folder, _ = whole
    losing = SumRunner(loses_every=7)
    train(stateful(folder), workdir=tmp_path / "run", seed=1, tool=losing)
    counts = losing.session_counts
    assert counts.lost == counts.replayed > 0
    assert (counts.masked, len(losing.open)) == (0, 0)
    assert rows_of(tmp_path / "run") == rows_of(folder / "run")


@pytest.fixture(scope="module")
def server():
    """With as many sessions as a run of these has rows."""
    with serving("--concurrency", "1", "--session-capacity", "8") as started:
        yield started


@pytest.mark.nightly
def test_killed_and_resumed_on_a_real_server_equals_uninterrupted_counters_included(
    server, tmp_path, monkeypatch
):
    config, addresses = stateful(tmp_path), (server.address,)
    train(config, workdir=tmp_path / "whole", seed=1, sandbox_addresses=addresses)
    learn, steps = rl_loop._learn, []

    def killed(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise KeyError("killed here")
        return learn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rl_loop, "_learn", killed)
        with pytest.raises(KeyError, match="killed here"):
            train(config, workdir=tmp_path / "run", seed=1, sandbox_addresses=addresses)
    assert server.stub.Info(pb.InfoRequest(), timeout=10).sessions == 0
    train(config, workdir=tmp_path / "run", seed=1, sandbox_addresses=addresses)
    assert server.stub.Info(pb.InfoRequest(), timeout=10).sessions == 0
    rows = rows_of(tmp_path / "run")
    whole = rows_of(tmp_path / "whole")
    # Answers that were finished before the kill are read back: their programs do not run again, and are not counted.
    executed, unbroken = ([row.pop("tools/executions_total") for row in of] for of in (rows, whole))
    assert executed[:-1] == unbroken[:-1]
    assert executed[-2] <= executed[-1] <= unbroken[-1]
    assert rows == whole
    assert rows[-1]["tools/sessions_opened_total"] > 3


def test_overlapped_rollouts_leave_no_session(tmp_path):
    """Rows keep their sessions over updates."""
    config, runner = stateful(tmp_path), SumRunner(loses_every=11)
    schedule = dataclasses.replace(config.schedule, max_staleness=1)
    config = dataclasses.replace(config, schedule=schedule)
    train(config, workdir=tmp_path / "run", seed=1, tool=runner)
    assert runner.session_counts.opened > 3
    assert runner.session_counts.lost == runner.session_counts.replayed > 0
    assert not runner.open


def test_a_server_that_does_not_do_is_refused_before_weights_are_read(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(RandomInit, "load", lambda *_: pytest.fail("weights were read"))
    config = rl_config(tmp_path, tools=(LASTING,))
    engine = dataclasses.replace(config.engine, decode_rows=16)
    config = dataclasses.replace(config, engine=engine)
    message = "16 rows in flight have 16 sessions at once, and the sandbox keeps 8"
    with pytest.raises(PreflightError, match=message) as error:
        train(config, workdir=tmp_path / "run", seed=1, sandbox_addresses=(server.address,))
    assert "\n" not in str(error.value)


def test_a_run_has_a_session_for_each_row_in_flight(tmp_path):
    config = rl_config(tmp_path, tools=(dataclasses.replace(LASTING, session_idle_s=900.0),))
    for fields, sessions, setting in (
        ({}, 8, "decode_rows"),
        ({"cache_rows": 24}, 24, "cache_rows"),
        ({"decode_rows": 0}, 256, "most_decode_rows"),
    ):
        run = dataclasses.replace(config, engine=dataclasses.replace(config.engine, **fields))
        needs = session_needs(run, run.tools)
        assert (needs.sessions, needs.setting) == (sessions, f"EngineConfig.{setting}")
        assert (needs.idle_s, needs.hosts) == (900.0, 1)
    assert session_needs(config, (PythonSandbox(),)) is None


def test_a_prompt_that_denies_the_state_is_refused(tmp_path):
    retool = rl_config(tmp_path, tools=(LASTING,), renderer="retool")
    with pytest.raises(ValueError, match=r"set RlConfig\.renderer = 'retool_session'"):
        load_renderer_of(retool)
    load_renderer_of(dataclasses.replace(retool, renderer="retool_session"))
    load_renderer_of(dataclasses.replace(retool, tools=None))
