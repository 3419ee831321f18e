"""The RL run: killed and resumed equals uninterrupted, bit by bit; bad input is refused at the door."""

import contextlib
import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from helpers.fakes import ScriptedTool
from helpers.small_runs import (
    MODEL,
    CountingTool,
    SmallTokenizer,
    rl_config,
    train,
    two_tools,
)
from helpers.traces import check_nests, read_trace

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.decode.sampling import Sampling
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.parallel.host_memory import to_host_memory
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.rundir.bottleneck import PARTS
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.health import WatchConfig
from jaxtool.rundir.live_status import read_live
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.metrics import read_metrics
from jaxtool.rundir.run_record import read_record
from jaxtool.rundir.run_start import Launch
from jaxtool.rundir.trace import TRACE
from jaxtool.rundir.trajectory_log import read_trajectories
from jaxtool.tools.health import ToolHealthConfig, TooManyFailures
from jaxtool.tools.known_answers import KnownAnswers, WrongAnswer, snippets_of
from jaxtool.train import rl_loop, rollout_worker, run_state
from jaxtool.train.sources import Sandbox


def rows_of(workdir):
    """Metrics without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [without_clock(json.loads(line)) for line in lines]


def params_of(policy_dir):
    _, params = SavedPolicy(path=str(policy_dir)).load(single_device(), 0)
    return jax.tree.leaves(params)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tool = CountingTool()
    with (folder / "printed").open("w") as file, contextlib.redirect_stdout(file):
        train(two_tools(folder), workdir=folder / "run", seed=1, tool=tool)
    return folder, tool.calls


def test_the_small_run_calls_and_learns(uninterrupted):
    """Otherwise the tests below would compare nothing with nothing."""
    folder, calls = uninterrupted
    assert calls > 4
    rows = rows_of(folder / "run")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["policy/grad_norm"] > 0 for row in rows)
    assert all(row["mismatch/max_abs_logprob_nats"] <= 1e-4 for row in rows)
    assert all(row["policy/clipped_fraction"] == 0 for row in rows)
    assert rows[-1]["tokens/reprefilled_total"] == 0
    _, first = RandomInit(config=MODEL).load(single_device(), 1)
    after = params_of(folder / "run" / "policy")
    assert any(np.any(x != y) for x, y in zip(jax.tree.leaves(first), after, strict=True))


def test_calls_of_both_tools_are_counted_and_a_function_costs_what_it_costs(uninterrupted):
    """The reward of these runs is length / 10 + cost: half a call is in no sum of whole calls and tokens."""
    folder, _ = uninterrupted
    rows = [
        json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    for tool in ("python", "length"):
        assert sum(row.get(f"tools/calls_per_answer/{tool}", 0) for row in rows) > 0
        assert sum(row[f"tools/calls_count/{tool}"] for row in rows) > 0
        assert all(row[f"tools/unavailable_count/{tool}"] == 0 for row in rows)
    for view in read_trajectories(folder / "run" / "trajectories.jsonl"):
        names = [call.tool for call in view.tool_calls]
        cost = names.count("python") + names.count("length") / 2
        assert view.reward == pytest.approx(len(view.tokens) / 10 + cost)


def test_every_program_of_the_decoder_is_compiled_before_the_first_step_and_counted(uninterrupted):
    """Not compiled ahead and compiled ahead both read 0 late programs, so the progress counts too."""
    folder, _ = uninterrupted
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["timing/late_programs_total"] for line in lines] == [0, 0, 0, 0]
    # Prefill of 8 (the longest prompt has 32 - 24 tokens), its copy into cache rows, appends and windows of one view.
    printed = (folder / "printed").read_text()
    compiled, *steps = re.findall(r"^(compile decoder +4/4|run) ", printed, re.M)
    assert compiled == "compile decoder  4/4"
    assert set(steps) == {"run"}


def test_a_decoder_that_leaves_its_memory_to_the_learner_changes_no_number(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    config = dataclasses.replace(two_tools(folder), unloads_decoder=True)
    train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    assert rows_of(tmp_path / "run") == rows_of(folder / "run")


def test_a_learner_that_waits_on_the_host_changes_no_bit(uninterrupted, tmp_path, monkeypatch):
    """Its state leaves the devices for each rollout and validation, and is back for checkpoints."""
    folder, _ = uninterrupted
    config = dataclasses.replace(two_tools(folder), unloads_decoder=True, offloads_learner=True)
    left = []

    def leave(tree):
        left.append(sum(x.size for x in jax.tree.leaves(tree)))
        return to_host_memory(tree)

    monkeypatch.setattr(run_state, "to_host_memory", leave)
    train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    # AdamW's two moments and counts before the decoder gets its copy, the parameters when it has it.
    parameters = sum(x.size for x in params_of(tmp_path / "run" / "policy"))
    assert len(left) >= 2 * 4
    assert all(rest > 2 * parameters for rest in left[::2])
    assert set(left[1::2]) == {parameters}
    assert rows_of(tmp_path / "run") == rows_of(folder / "run")
    for ours, theirs in zip(
        params_of(tmp_path / "run" / "policy"), params_of(folder / "run" / "policy"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_is_watched_all_the_time_has_the_same_numbers(uninterrupted, tmp_path, capsys):
    """Lines and states come as fast as the thread can; the rows say who the step waited for."""
    folder, _ = uninterrupted
    config = dataclasses.replace(two_tools(folder), watch=WatchConfig(line_every_s=1e-3))
    options = {"tool": CountingTool(), "launch": Launch(traces=True)}
    train(config, workdir=tmp_path / "run", seed=1, **options)
    assert rows_of(tmp_path / "run") == rows_of(folder / "run")
    for ours, theirs in zip(
        read_trajectories(tmp_path / "run" / "trajectories.jsonl"),
        read_trajectories(folder / "run" / "trajectories.jsonl"),
        strict=True,
    ):
        assert [token.text for token in ours.tokens] == [token.text for token in theirs.tokens]
    printed = capsys.readouterr().out
    assert re.search(r"^run  step \d/4  \w+ 0:\d\d", printed, re.M)
    assert re.search(
        r"^run  4/4 .* bottleneck (decoder|tool|judge|learner|data) \d+%$", printed, re.M
    )
    last = read_live(tmp_path / "run")
    assert last is not None
    assert (last.step, last.steps, last.phase) == (4, 4, "")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for row in rows:
        shares = [row[f"timing/share_fraction/{part}"] for part in PARTS]
        assert all(share >= 0 for share in shares)
        assert 0 < sum(shares) <= 1 + 1e-6
        assert row["health/beyond_count/late_programs"] == 0
    _check_trace(tmp_path / "run" / TRACE, calls=options["tool"].calls)
    assert not (folder / "run" / TRACE).exists()


def _check_trace(path, calls):
    """A file that can be drawn, with windows, calls, judging, updates and copies where they belong."""
    whole, tracks = read_trace(path)
    assert whole["otherData"]["earlier_spans_left_out"] == 0
    for events in tracks.values():
        check_nests(events)
    names = {track: [event["name"] for event in events] for track, events in tracks.items()}
    assert names["loop"].count("step") == 4
    assert {"weights", "data", "rollouts", "judge", "update", "checkpoint"} <= set(names["loop"])
    assert {"prefill", "window"} <= set(names["decoder"])
    rows = [name for track, held in names.items() if track.startswith("row ") for name in held]
    assert rows.count("tool") >= calls  # and those of the function beside it
    assert sum("/" in name for name in rows) == 4 * 2 * 8  # every sample of every step


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_interrupted_and_resumed_equals_uninterrupted_bitwise(uninterrupted, tmp_path, share):
    """Before the first checkpoint and after it; parameters, metrics and logged trajectories."""
    folder, calls = uninterrupted
    config, workdir = two_tools(folder), tmp_path / "run"
    broken = CountingTool(fails_at=int(share * calls), error=KeyError("killed here"))
    with pytest.raises(KeyError, match="killed here"):
        train(config, workdir=workdir, seed=1, tool=broken)
    assert not (workdir / "policy").exists()
    assert (workdir / "checkpoints" / "2").exists() == (share == 1.0)
    train(config, workdir=workdir, seed=1, tool=CountingTool())
    assert rows_of(workdir) == rows_of(folder / "run")
    whole = params_of(folder / "run" / "policy")
    for x, y in zip(params_of(workdir / "policy"), whole, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_finished_run_is_left_alone_and_another_is_refused(uninterrupted):
    folder, _ = uninterrupted
    config, workdir = two_tools(folder), folder / "run"
    before = (workdir / "metrics.jsonl").read_bytes()
    tool = CountingTool()
    assert train(config, workdir=workdir, seed=1, tool=tool) == workdir / "policy"
    assert tool.calls == 0
    assert (workdir / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match=r"--seed: 1 -> 2"):
        train(config, workdir=workdir, seed=2, tool=tool)
    other = dataclasses.replace(config, sampling=Sampling(temperature=0.5))
    with pytest.raises(ValueError, match=r"Sampling.temperature: 1.0 -> 0.5"):
        train(other, workdir=workdir, seed=1, tool=tool)


def test_a_finished_run_goes_on_with_more_steps_as_if_it_had_been_longer_from_the_start(
    uninterrupted, tmp_path, capsys
):
    """Its optimizer, the order of its problems and its totals; what else may change is said."""
    folder, _ = uninterrupted
    config, workdir = two_tools(folder), tmp_path / "run"
    short = dataclasses.replace(config.schedule, steps=2, checkpoint_every=7, eval_problems=5)
    short_config = dataclasses.replace(config, schedule=short)
    train(short_config, workdir=workdir, seed=1, tool=CountingTool())
    assert (workdir / "policy").exists()
    train(config, workdir=workdir, seed=1, tool=CountingTool())
    assert "changed: Schedule.steps: 2 -> 4\nchanged: Schedule.eval" in capsys.readouterr().out
    record = read_record(workdir)
    assert record is not None
    assert [start.from_step for start in record.starts] == [0, 2]  # and not again from the start
    assert rows_of(workdir) == rows_of(folder / "run")
    whole = params_of(folder / "run" / "policy")
    for x, y in zip(params_of(workdir / "policy"), whole, strict=True):
        np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="holds a run of 4 steps, more than steps=2"):
        train(short_config, workdir=workdir, seed=1, tool=CountingTool())


def test_a_sandbox_that_fails_ends_a_run_of_small_batches_before_its_first_update(
    tmp_path, monkeypatch
):
    """With the default settings and a batch of 16, of which only some call."""
    monkeypatch.setattr(rl_loop, "_learn", lambda *_: pytest.fail("an update was made"))
    tool = CountingTool(fails_at=1, error=ToolUnavailable("down"))
    with pytest.raises(TooManyFailures, match=r"of the last 16 .* lost to the tool's infrastruc"):
        train(rl_config(tmp_path), workdir=tmp_path / "run", seed=1, tool=tool)
    assert 2 < tool.calls < 16
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
    assert not (tmp_path / "run" / "policy").exists()


def test_a_server_that_turns_wrong_ends_the_run_and_what_was_lost_before_teaches_nothing(
    tmp_path, monkeypatch, capsys
):
    """Step 0 loses every trajectory that calls, within a rate that is allowed; in step 1 a server is wrong."""
    tool = CountingTool(fails_at=1, error=ToolUnavailable("down"))
    right = {s.code: s for n in range(2) for s in snippets_of(n)}
    server = ScriptedTool(
        {code: ToolResult(status=ToolStatus.OK, stdout=s.stdout) for code, s in right.items()}
    )

    def open_with_servers(*arguments, **options):
        worker, params = rollout_worker.open_worker(*arguments, **options)
        return dataclasses.replace(worker, known_answers=KnownAnswers({"host:1": server})), params

    monkeypatch.setattr(rl_loop, "open_worker", open_with_servers)
    learned = []
    learn = rl_loop._learn

    def learn_and_note(run, rollouts, batch, step):
        learned.append(sorted({t.problem.problem_id for t in batch.trajectories}))
        assert batch.chosen == []
        learned.append(batch.metrics()["filter/broken_group_fraction"])
        server._results.clear()
        return learn(run, rollouts, batch, step)

    monkeypatch.setattr(rl_loop, "_learn", learn_and_note)
    health = ToolHealthConfig(max_failure_rate=1.0)
    schedule = dataclasses.replace(rl_config(tmp_path).schedule, eval_every=1, eval_problems=3)
    config = rl_config(tmp_path, sandbox=Sandbox(health=health), schedule=schedule)
    with pytest.raises(WrongAnswer, match=r"step 1, before its update: the sandbox at host:1 "):
        train(config, workdir=tmp_path / "run", seed=1, tool=tool)
    assert learned[1:] == [1.0]
    [row] = rows_of(tmp_path / "run")
    assert row["tools/known_answers_count"] == 2
    assert row["validation/lost_count"] > 0
    assert "validation/accuracy_fraction" not in row
    assert "and has no figures" in capsys.readouterr().err


def refused(tmp_path, error, message, **fields):
    tool = CountingTool()
    with pytest.raises(error, match=message) as caught:
        train(rl_config(tmp_path, **fields), workdir=tmp_path / "run", seed=1, tool=tool)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_tokenizer_of_another_policy_is_refused(tmp_path):
    tokenizer = SmallTokenizer(characters="012345+=<>![]?abc")
    message = "tokenizer has 19 tokens, the policy's vocabulary only 17"
    refused(tmp_path, ValueError, message, tokenizer=tokenizer)


def test_a_tokenizer_without_the_tags_is_refused(tmp_path):
    tokenizer = SmallTokenizer(characters="012345+=<![]?")
    refused(tmp_path, ValueError, "tokenizer cannot write '>'", tokenizer=tokenizer)


def test_a_policy_that_is_not_there_is_refused(tmp_path):
    missing = SavedPolicy(path=str(tmp_path / "nowhere"))
    refused(tmp_path, FileNotFoundError, "nowhere holds no saved policy: give", policy=missing)


def test_a_protocol_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path, FileNotFoundError, "no renderer template 'retol'.*'retool'", renderer="retol")


def test_a_mesh_that_does_not_divide_is_refused(tmp_path):
    """The mesh that the configuration asks for, not one that is handed in."""
    config = rl_config(tmp_path, mesh=MeshConfig(data=3))
    with pytest.raises(ValueError, match=r"mesh .*'data': 3.* does not divide 8 devices"):
        rl_loop.train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_sandbox_that_is_not_there_is_refused(tmp_path):
    config = rl_config(tmp_path, sandbox=Sandbox(addresses=(f"unix:{tmp_path}/no",)))
    client = dataclasses.replace(config.sandbox.client, attempts=1)
    sandbox = dataclasses.replace(config.sandbox, client=client)
    config = dataclasses.replace(config, sandbox=sandbox)
    with pytest.raises(Exception, match=r"unix:.*/no") as caught:
        train(config, workdir=tmp_path / "run", seed=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_greedy_sampling_cannot_train(tmp_path):
    with pytest.raises(ValueError, match="all samples of a group would be equal"):
        rl_config(tmp_path, sampling=Sampling(temperature=0.0))
