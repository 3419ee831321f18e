"""Overlapped rollouts: equal to the synchronous run at 0; beyond it bounded, whole, resumable, loud."""

import asyncio
import collections
import dataclasses
import json
import os
import signal
import threading
import time
import traceback
from contextlib import ExitStack
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.fakes import ArithmeticTool, FailingTool
from helpers.judging import all_right
from helpers.scripted_engine import ANSWER, CALL, EOS, stage
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.core.types import Origin, ToolUnavailable, trajectories_of
from jaxtool.decode.sampling import Sampling
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.selection import Selection
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.tools.health import ToolHealthConfig, TooManyFailures
from jaxtool.tools.menu import Menu
from jaxtool.train import rl_loop
from jaxtool.train.overlapped_rollouts import OverlappedRollouts, open_rollouts
from jaxtool.train.sources import Sandbox


class LateTool(CountingTool):
    """Other rows decode meanwhile."""

    async def execute(self, code):
        await asyncio.sleep(0.003)
        return await super().execute(code)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("rollouts")]


class Watched:
    """Rollouts of a run that keep what each step drew."""

    def __init__(self):
        self.drawn = {}  # by step, one list of groups a draw
        self.before_update = lambda: None
        self.worker = None

    def open(self, stack, config, worker, *rest):
        self.worker, self.rollouts = worker, open_rollouts(stack, config, worker, *rest)
        return self

    def draw(self, step, draw):
        groups = self.rollouts.draw(step, draw)
        self.drawn[step] = [groups] if not draw else [*self.drawn[step], groups]
        return groups

    def dispatch(self, call):
        self.before_update()
        return self.rollouts.dispatch(call)

    def begin_step(self, step, params):
        self.rollouts.begin_step(step, params)

    def validate(self, problems, version, params):
        return self.rollouts.validate(problems, version, params)

    def metrics(self, groups, step):
        return self.rollouts.metrics(groups, step)

    def unload(self):
        self.rollouts.unload()

    @property
    def queued(self):
        return self.rollouts.queued

    def problems(self):
        """Samples of each problem, by step."""
        return {
            step: collections.Counter(
                t.problem.problem_id for groups in draws for t in trajectories_of(groups)
            )
            for step, draws in self.drawn.items()
        }


@pytest.fixture
def watched():
    return Watched()


def run_config(folder, max_staleness, *, steps=4, **fields):
    config = rl_config(folder, **fields)
    schedule = dataclasses.replace(
        config.schedule, max_staleness=max_staleness, steps=steps, eval_every=2, eval_problems=3
    )
    return dataclasses.replace(config, schedule=schedule)


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in without_clock(row).items() if not k.startswith("staleness/")}
        for row in rows
    ]


def test_at_zero_the_machinery_changes_no_bit(tmp_path):
    """The synchronous run against a stream that may begin nothing ahead."""
    config = run_config(tmp_path, 0)
    train(config, workdir=tmp_path / "turns", seed=1, tool=CountingTool())

    def always(stack, *args):
        return stack.enter_context(OverlappedRollouts(*args))

    stream = tmp_path / "stream"
    train(config, workdir=stream, seed=1, tool=LateTool(), open_rollouts=always)
    assert rows_of(tmp_path / "turns") == rows_of(tmp_path / "stream")
    turns, stream = (
        jax.tree.leaves(SavedPolicy(path=str(tmp_path / d / "policy")).load(single_device(), 0)[1])
        for d in ("turns", "stream")
    )
    for x, y in zip(turns, stream, strict=True):
        np.testing.assert_array_equal(x, y)
    rows = (tmp_path / "turns" / "metrics.jsonl").read_text()
    assert "staleness/" not in rows
    assert "_wait_s" not in rows.replace("timing/tool_wait_s", "")


@pytest.mark.parametrize("max_staleness", [1, 2])
def test_an_overlapped_run_learns_within_its_bound(tmp_path, capsys, watched, max_staleness):
    watched.before_update = lambda: time.sleep(0.1)  # rollouts get as far ahead as they may
    config = run_config(tmp_path, max_staleness, steps=8)
    train(config, workdir=tmp_path / "run", seed=1, tool=LateTool(), open_rollouts=watched.open)
    assert all(sorted(found.values()) == [8, 8] for found in watched.problems().values())
    ages = set()
    for step, [groups] in watched.drawn.items():
        for trajectory in trajectories_of(groups):
            trajectory.check()
            written = trajectory.policy_versions[trajectory.origins == Origin.POLICY]
            assert np.all(np.diff(written) >= 0)
            ages |= set((step - written).tolist())
    assert ages == set(range(max_staleness + 1))
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(8))
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + 0.3
    assert rows[0]["mismatch/max_abs_logprob_nats"] <= 1e-4
    assert rows[-1]["mismatch/max_abs_logprob_nats"] > 1e-2
    assert rows[-1]["policy/correction_weight_mean"] != 1.0
    said = f"is up to {max_staleness} updates behind: TokenTruncation in the loss"
    assert said in capsys.readouterr().out


def test_killed_and_resumed_no_batch_is_lost_or_repeated(tmp_path, watched):
    """Killed by a tool, with rows of the next batches on their way; oversampling included."""
    config = run_config(
        tmp_path,
        2,
        steps=8,
        selection=Selection(oversampling=2),
        optimizer=OptimizerConfig(learning_rate=1e-4),  # calls stay
    )
    options = {"seed": 1, "open_rollouts": watched.open}
    train(config, workdir=tmp_path / "whole", tool=LateTool(), **options)
    expected = watched.problems()
    assert all(sorted(found.values()) == [16, 16] for found in expected.values())
    watched.drawn.clear()

    class Dies(LateTool):
        async def execute(self, code):
            if 2 in watched.drawn:
                raise KeyError("killed here")
            return await super().execute(code)

    with pytest.raises(KeyError, match="killed here") as caught:
        train(config, workdir=tmp_path / "parts", tool=Dies(), **options)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert "execute" in [frame.name for frame in frames]
    assert 7 not in watched.drawn
    assert (tmp_path / "parts" / "checkpoints" / "2").exists()
    train(config, workdir=tmp_path / "parts", tool=LateTool(), **options)
    assert watched.problems() == expected
    assert [row["step"] for row in rows_of(tmp_path / "parts")] == list(range(8))


def test_groups_of_equal_rewards_are_replaced(tmp_path, watched):
    config = run_config(tmp_path, 1, selection=Selection(max_draws=3, min_reward_std=0.9))
    train(config, workdir=tmp_path / "run", seed=1, tool=LateTool(), open_rollouts=watched.open)
    assert max(len(draws) for draws in watched.drawn.values()) > 1
    for found in watched.problems().values():
        assert set(found.values()) <= {8, 16, 24}


def test_a_sandbox_that_fails_ends_the_run(tmp_path):
    tool = CountingTool(fails_at=1, error=ToolUnavailable("down"))
    health = ToolHealthConfig(max_failure_rate=0.0, min_trajectories=1)
    config = run_config(tmp_path, 1, sandbox=Sandbox(health=health))
    with pytest.raises(TooManyFailures, match="lost to the tool's infrastructure"):
        train(config, workdir=tmp_path / "run", seed=1, tool=tool)


def test_ctrl_c_in_an_update_ends_cleanly(tmp_path, watched):
    def interrupted():
        raise KeyboardInterrupt

    watched.before_update = interrupted
    options = {"tool": LateTool(), "open_rollouts": watched.open}
    with pytest.raises(KeyboardInterrupt):
        train(run_config(tmp_path, 1), workdir=tmp_path / "run", seed=1, **options)
    used = watched.worker
    assert used.engine.num_free == used.engine.config.num_cache_rows
    assert not used.collector.has_work


@pytest.mark.nightly
def test_on_eight_devices(tmp_path, watched):
    config = run_config(tmp_path, 1)
    grpo = dataclasses.replace(config.grpo, micro_batch_rows=8)
    engine = dataclasses.replace(config.engine, decode_rows=8, prefill_rows=8)
    config = dataclasses.replace(config, grpo=grpo, engine=engine)
    rl_loop.train(
        config, workdir=tmp_path / "run", seed=1, tool=LateTool(), open_rollouts=watched.open
    )
    assert len(watched.drawn) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rollout": RolloutConfig(schedule="lockstep")}, "schedule='lockstep' does not go with"),
        ({"selection": Selection(tool_free_samples=1)}, "tool_free_samples does not go with"),
    ],
)
def test_what_needs_the_decoder_for_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        run_config(tmp_path, 1, **fields)
    with pytest.raises(ValueError, match=r"Schedule\.max_staleness must be >= 0, got -1"):
        run_config(tmp_path, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    steps: int = 3
    samples: int = 1
    max_staleness: int = 1
    eval_samples: int = 1
    eval_sampling: Sampling | None = None
    share_by: str = "samples"


@pytest.fixture
def scripted():
    """One problem a step, p0, p1, ...; p5 refills and p6 validates. Rows of one cache row."""
    scripts = [[[*CALL, *ANSWER]]] + [[["a", EOS]] * 2 for _ in range(6)]
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        made = stage(scripts, tool=ArithmeticTool(), decode_rows=1)
        config = SimpleNamespace(schedule=Plan(), selection=Selection(), sampling=Sampling())
        parts = SimpleNamespace(
            engine=made.engine,
            collector=made.collector,
            runner=runner,
            judging=all_right(),
        )
        yield made, config, parts


def names(groups):
    return names_of(trajectories_of(groups))


def names_of(trajectories):
    return [t.problem.problem_id for t in trajectories]


def test_batches_are_drawn_as_far_ahead_as_they_may_begin(scripted):
    made, config, parts = scripted
    drawn = iter([[problem] for problem in made.problems])
    with OverlappedRollouts(config, parts, drawn, 0) as rollouts:
        for step in range(3):
            rollouts.begin_step(step, f"weights {step}")
            queued = [[p.problem_id for p in batch] for batch in rollouts.queued]
            assert queued == [["p0"], ["p1"]] if step == 0 else queued[0] == [f"p{step}"]
            assert len(queued) == min(2, 3 - step)  # nothing beyond the last step
            assert names(rollouts.draw(step, 0)) == [f"p{step}"]
        assert rollouts.queued == []
        assert names(rollouts.draw(2, 1)) == ["p3"]  # a refill
        [answer] = trajectories_of(rollouts.validate([made.problems[6]], 3, "weights 3"))
        assert set(answer.policy_versions.tolist()) == {-1, 3}
    assert [weights for weights, _ in made.engine.loads] == [f"weights {i}" for i in range(4)]
    assert made.engine.num_free == 1


def test_tools_are_called_beside_the_windows_and_lost_validations_are_asked_again():
    """The first call of the validation fails; the second try is a second row of the same problem."""
    scripts = [[[*CALL, *ANSWER]] * 2, [[*CALL, *ANSWER]]]
    tool = FailingTool(ArithmeticTool(), failures=1)
    made = stage(scripts, tool=tool, decode_rows=1)
    config = SimpleNamespace(schedule=Plan(), selection=Selection(), sampling=Sampling())
    with asyncio.Runner() as runner:
        parts = SimpleNamespace(
            engine=made.engine, collector=made.collector, runner=runner, judging=all_right()
        )
        with OverlappedRollouts(config, parts, iter([]), 0) as rollouts:
            answers = trajectories_of(rollouts.validate(made.problems, 0, "weights"))
            result = rollouts.call_tools(lambda: tool.execute("1+2"))
    assert [answer.num_tool_calls for answer in answers] == [1, 1]
    assert names_of(answers) == ["p0", "p1"]
    assert result.last_value == "3"


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where the tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_the_learner_waits_cancels_calls_and_frees_slots(scripted):
    made, config, parts = scripted
    ended = []

    class Interrupts(ArithmeticTool):
        async def execute(self, code):
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(code)

    made.collector.tools = Menu.of_code(Interrupts())
    drawn = iter([[problem] for problem in made.problems])
    with OverlappedRollouts(config, parts, drawn, 0) as rollouts:
        rollouts.begin_step(0, "weights 0")
        with pytest.raises(KeyboardInterrupt):
            rollouts.draw(0, 0)
    assert ended == ["2+2"]
    assert made.engine.num_free == 1


def test_batches_of_a_checkpoint_come_before_new_ones(scripted):
    made, config, parts = scripted
    drawn = iter([[made.problems[4]]])
    with OverlappedRollouts(config, parts, drawn, 0, queued=[[made.problems[2]]]) as rollouts:
        rollouts.begin_step(1, "weights 1")
        assert names(rollouts.draw(1, 0)) == ["p2"]
        rollouts.begin_step(2, "weights 2")
        assert names(rollouts.draw(2, 0)) == ["p4"]


def test_a_token_that_is_too_old_is_an_error(scripted):
    made, config, parts = scripted
    drawn = iter([[problem] for problem in made.problems])
    with OverlappedRollouts(config, parts, drawn, 0) as rollouts:
        rollouts.begin_step(0, "weights 0")
        rollouts.draw(0, 0)
        config.schedule = Plan(max_staleness=0)
        with pytest.raises(RuntimeError, match="1 updates behind step 1, allowed are 0 to 0"):
            rollouts.begin_step(1, "weights 1") or rollouts.draw(1, 0)
