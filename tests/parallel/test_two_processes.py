"""Two processes with four devices each train like one with eight, and each other's checkpoints restore."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.several_hosts import STEPS, config_of, late_config_of, run_all, run_further
from helpers.small_runs import CountingTool

from jaxtool.model.peft import load_peft
from jaxtool.parallel.axis_rules import single_device
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.rundir.answer_files import read_answers
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.metrics import read_metrics
from jaxtool.rundir.rollout_journal import FOLDER
from jaxtool.rundir.run_record import read_record
from jaxtool.rundir.trajectory_log import read_trajectories
from jaxtool.train import rl_loop

WORKER = Path(__file__).parents[1] / "helpers" / "one_of_several.py"
pytestmark = pytest.mark.slow
LIMIT_S = 600  # far above the minute that it takes on idle cores


def run_processes(count: int, folder: Path, what: str = "run") -> list[dict]:
    """What each process printed last; all of them are ended when one fails or hangs."""
    ended = ended_processes(count, folder, what)
    for status, _, errors in ended:
        assert status == 0, errors[-3000:]
    return [json.loads(text.splitlines()[-1]) for _, text, _ in ended]


def ended_processes(
    count: int, folder: Path, what: str, **environment: str
) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(WORKER), str(port), str(count)]
    running = [
        subprocess.Popen(
            [*command, str(index), str(folder), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        for index in range(count)
    ]
    try:
        texts = [process.communicate(timeout=LIMIT_S) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(running, texts, strict=True)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the run of two processes, and of the one of this process."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    with ThreadPoolExecutor(1) as thread:  # the processes wait for each other half of their time
        pending = thread.submit(run_processes, 2, two)
        mesh = MeshConfig(fsdp=4, tensor=2)
        run_all(one, mesh)
        late = late_config_of(one, mesh, max_staleness=0, learning_rate=1e-30)
        rl_loop.train(late, workdir=one / "late", seed=1, tool=CountingTool())
        records = pending.result()
    assert [record["process"] for record in records] == [0, 1]
    (two / "versions.json").write_text(json.dumps([record["versions"] for record in records]))
    return two, one


@pytest.fixture(scope="module")
def further_runs(tmp_path_factory):
    """The same of PPO and of an adapter."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(run_processes, 2, two, "further")
        run_further(one, MeshConfig(fsdp=4, tensor=2))
        assert [record["process"] for record in pending.result()] == [0, 1]
    return two, one


def params_of(folder: Path) -> list:
    return jax.tree.leaves(SavedPolicy(path=str(folder / "policy")).load(single_device(), 0)[1])


def assert_equal_params(folder: Path, other: Path) -> None:
    """Adam makes a whole step of a gradient that is nothing but rounding: so all but a few elements."""
    pairs = list(zip(params_of(folder), params_of(other), strict=True))
    apart = np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])
    assert np.mean(apart > 1e-5) < 1e-3, np.sort(apart)[-5:]


def trajectories_of(folder: Path) -> list:
    return [
        (view.step, view.problem_id, [(t.token_id, t.origin) for t in view.tokens])
        for view in read_trajectories(folder / "trajectories.jsonl")
    ]


def assert_equal_metrics(rows: list[dict], others: list[dict]) -> None:
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        for resumed in ("tokens/read_back_answers_count", "timing/drawn_again_s"):
            row.pop(resumed, None)  # what a resume alone has
        assert row.keys() == other.keys()
        for name in without_clock(row):
            np.testing.assert_allclose(row[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_same_tokens_the_same_metrics_the_same_parameters(runs):
    two, one = (folder / "run" for folder in runs)
    assert trajectories_of(two) == trajectories_of(one)
    assert len(trajectories_of(one)) == STEPS * 12
    rows = read_metrics(one / "metrics.jsonl")
    assert all(row["policy/grad_norm"] > 0 for row in rows)
    assert sum(row["tools/calls_per_answer"] for row in rows) > 0
    assert "validation/accuracy_fraction" in rows[-1]
    assert_equal_metrics(read_metrics(two / "metrics.jsonl"), rows)
    assert_equal_params(two, one)


@pytest.mark.nightly
def test_a_critic_with_the_kl_in_the_reward(further_runs):
    two, one = (folder / "ppo" for folder in further_runs)
    rows = read_metrics(one / "metrics.jsonl")
    assert all(row["critic/loss"] > 0 for row in rows)
    assert rows[-1]["policy/grad_norm"] > 0
    assert_equal_metrics(read_metrics(two / "metrics.jsonl"), rows)
    assert_equal_params(two, one)


@pytest.mark.nightly
def test_an_adapter_with_a_kl_to_its_base(further_runs):
    two, one = (folder / "lora" for folder in further_runs)
    rows = read_metrics(one / "metrics.jsonl")
    assert all(row["policy/grad_norm"] > 0 for row in rows)
    assert abs(rows[0]["policy/kl_k3_nats"]) < 1e-6 < rows[1]["policy/kl_k3_nats"]
    assert_equal_metrics(read_metrics(two / "metrics.jsonl"), rows)
    assert_equal_params(two, one)  # merged into the base
    model = SavedPolicy(path=str(one / "policy")).model_config()
    adapters = [load_peft(folder / "adapter", model).tensors for folder in (two, one)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, x in adapters[0].items():
        np.testing.assert_allclose(x, adapters[1][name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_cold_start(runs):
    two, one = (folder / "cold_start" for folder in runs)
    rows = read_metrics(one / "metrics.jsonl")
    assert rows[1]["sft/loss_nats"] < rows[0]["sft/loss_nats"]
    assert_equal_metrics(read_metrics(two / "metrics.jsonl"), rows)
    assert_equal_params(two, one)


def test_a_checkpoint_of_two_processes_goes_on_in_one_on_another_mesh(runs, tmp_path):
    """After step 2 of 3: fsdp=4, tensor=2 on two hosts, then data=2, fsdp=2, tensor=2 on one."""
    two, one = runs
    moved = tmp_path / "run"
    shutil.copytree(two / "run", moved)
    shutil.rmtree(moved / "policy")
    assert (moved / "checkpoints" / "2").is_dir()
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    # Its renderer file is part of what a run is.
    rl_loop.train(
        config_of(two, mesh),
        workdir=moved,
        seed=1,
        init_from=two / "cold_start",
        tool=CountingTool(),
    )
    assert_equal_metrics(
        read_metrics(moved / "metrics.jsonl"), read_metrics(one / "run" / "metrics.jsonl")
    )
    assert_equal_params(moved, one / "run")


def test_both_policies_give_the_same_answers_in_an_evaluation(runs):
    """The end of the way from the cold start over GRPO: the same records in the same files."""
    found = [
        [dataclasses.replace(r, spans=()) for r in read_answers(folder / "evaluation")]
        for folder in runs
    ]
    assert len(found[0]) == 2 * 5 * (1 + 4)
    assert {record.policy for record in found[0]} == {"cold_start", "grpo"}
    assert any(record.num_calls for record in found[0])
    names = [
        sorted(str(p.relative_to(folder)) for p in (folder / "evaluation" / "answers").rglob("*.*"))
        for folder in runs
    ]
    assert names[0] == names[1]
    assert found[0] == found[1]


def test_rows_that_outlive_their_step_and_the_decoder_end_in_the_same_tokens(runs):
    """No update changes a parameter, so the ids of the run in turns are the ones, whenever a swap fell."""
    two, one = (folder / "late" for folder in runs)
    assert trajectories_of(two) == trajectories_of(one)
    rows = read_metrics(two / "metrics.jsonl")
    assert [row["tokens/reprefilled_total"] for row in rows] == [0] * 4


@pytest.mark.parametrize("name", ["late", "late_learning"])
def test_versions_of_tokens_over_several_hosts(runs, name):
    """At most one update behind, never falling within a row, and the same on both hosts."""
    first, second = json.loads((runs[0] / "versions.json").read_text())
    assert first == second
    stale = mixed = 0
    for step, rows in first[name].items():
        assert len(rows) == 12
        for versions in rows:
            assert set(versions) <= {int(step) - 1, int(step)} - {-1}
            assert versions == sorted(versions)
            stale += versions[0] < int(step)
            mixed += len(set(versions)) > 1
    assert stale > 0
    if (
        name == "late"
    ):  # its rows wait for the end of each update; those of the other one may be done by then
        assert mixed > 0
    metrics = read_metrics(runs[0] / name / "metrics.jsonl")
    assert max(row["staleness/max_updates"] for row in metrics) == 1
    assert all(row["policy/grad_norm"] > 0 for row in metrics)


@pytest.mark.nightly
def test_a_host_that_is_stopped_or_killed_ends_the_other_and_the_restart_goes_on(runs):
    """Stopped in the second step of three; killed in the third, after the checkpoint of the second."""
    two, one = runs
    for status, said, errors in ended_processes(2, two, "run_stopped"):
        assert status == 0, errors
        assert "the run stops within 25 s; finished answers are kept" in errors
        assert "error" not in errors, (said, errors)
    assert list((two / "killed" / FOLDER).glob("1.*"))
    (status, _, errors), (killed, _, _) = ended_processes(
        2, two, "run_killed", JAXTOOL_TRACEBACK=""
    )
    assert (status, killed) == (1, -9), errors
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "host 1 of 2 has gone without a word" in lines[0]
    run_processes(2, two, "run_again")
    folder = two / "killed"
    starts = read_record(folder).starts
    assert [start.from_step for start in starts] == [0, 0, 2]
    assert [start.status for start in starts] == ["stopped", "running", "finished"]
    read = [
        row.get("tokens/read_back_answers_count", 0)
        for row in read_metrics(folder / "metrics.jsonl")
    ]
    assert read[0] == 12
    assert 0 < read[1] < 12
    assert trajectories_of(folder) == trajectories_of(one / "run")
    assert_equal_metrics(
        read_metrics(folder / "metrics.jsonl"), read_metrics(one / "run" / "metrics.jsonl")
    )
    assert_equal_params(folder, one / "run")
