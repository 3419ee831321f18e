"""The four search run files, each on a tiny checkpoint with a real search server: one whole step of training.

What is made small is in `SearchWorld.params` and here; renderer, judge, reward, learner, limits and tools are the
files' own. The policy is a Markov chain that searches with 0.8 and answers with 0.2 at each turn.
"""

import dataclasses
import math

import numpy as np
import pytest
from helpers.search_runs import SearchWorld, write_world
from helpers.search_serving import serving
from helpers.small_runs import train

from jaxtool.core.batch import TrainBatch
from jaxtool.core.types import FinishReason, Origin, Sample
from jaxtool.rollout.call_rules import NO_CALLS_LEFT
from jaxtool.rundir.metrics import read_metrics
from jaxtool.study import compare
from jaxtool.train import rl_loop, run_files
from jaxtool.train.evaluation import Evaluation

RUNS = ("search_r1_ppo", "search_r1_grpo", "otc_ppo_search", "otc_grpo_search")
TURN = {"search_r1": "information", "otc": "observation"}
EVALUATED = "otc_grpo_search"
ONE_DEVICE = ("MeshConfig.tensor = 1", "MeshConfig.fsdp = 1", "MeshConfig.may_idle = True")
pytestmark = pytest.mark.slow


def file_of(run: str) -> str:
    return f"gin_configs/runs/{run}.gin"


def is_ppo(run: str) -> bool:
    return "ppo" in run


def is_otc(run: str) -> bool:
    return run.startswith("otc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What one step of a run sampled and learned from."""

    samples: list[Sample]
    packed: TrainBatch
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """All runs, and an evaluation of one of their policies."""

    steps: dict[str, Step]
    evaluation: Evaluation


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SearchWorld:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def found(world, tmp_path_factory) -> Found:
    """One step of each run, fifty answers each, and the test split with one policy; all on one server."""
    folder, steps = tmp_path_factory.mktemp("runs"), {}
    with serving("--corpus", str(world.corpus)) as server:
        params = world.params((server.address,))
        for run in RUNS:
            size = f"Schedule.problems_per_step = {50 if is_ppo(run) else 10}"
            steps[run] = _one_step(file_of(run), [*params, size], folder / run)
        evaluation = _greedy([*params, *ONE_DEVICE], folder / EVALUATED / "policy")
    return Found(steps=steps, evaluation=evaluation)


@pytest.fixture(scope="module")
def steps(found) -> dict[str, Step]:
    return found.steps


def _greedy(params: list[str], policy) -> Evaluation:
    """`experiments.evaluate --problems all --sampling greedy`."""
    config = run_files.load_rl_run([file_of(EVALUATED)], params)
    asked = {"problems": None, "seed": 0, "samplings": ("greedy",)}
    return compare.compare(config, {EVALUATED: policy}, **asked).variants[EVALUATED]["greedy"]


def _one_step(file: str, params: list[str], workdir) -> Step:
    kept: dict[str, object] = {}

    def keep(name: str):
        of = getattr(rl_loop, name)

        def keeping(*arguments):
            kept[name] = of(*arguments)
            return kept[name]

        return keeping

    with pytest.MonkeyPatch.context() as patch:
        for name in ("gather", "to_batch"):
            patch.setattr(rl_loop, name, keep(name))
        train(run_files.load_rl_run([file], params), workdir=workdir, seed=0)
    [row] = read_metrics(workdir / "metrics.jsonl")
    return Step(samples=kept["gather"].samples, packed=kept["to_batch"], metrics=row)


def r_tool(run: str, calls: int, fewest: int) -> float:
    """Equations 5 and 6 of OTC-PO with c = 4; 1 without OTC."""
    if not is_otc(run):
        return 1.0
    if is_ppo(run) or not fewest:
        return math.cos(calls * math.pi / (2 * calls + 4))
    return math.sin(math.pi * calls / (calls + fewest))


@pytest.mark.parametrize("run", RUNS)
def test_a_policy_searches_at_most_four_times_and_reads_passages_of_the_server(steps, run):
    samples, metrics = steps[run].samples, steps[run].metrics
    assert len(samples) == 50
    calls = [sample.trajectory.num_tool_calls for sample in samples]
    assert {0, 1, 2, 4} <= set(calls) <= {0, 1, 2, 3, 4}
    tag = TURN["otc" if is_otc(run) else "search_r1"]
    for sample in samples:
        for call in sample.trajectory.tool_calls:
            country = call.arguments["query"]
            assert call.tool == "search"
            assert country in ("Norway", "Italy")
            assert f"of {country}." in call.result.stdout  # the passage of its capital
        text = sample.trajectory.response_text
        assert text.count(f"<{tag}>Doc 1(Title: ") == sample.trajectory.num_tool_calls
    assert metrics["tools/calls_per_answer"] == pytest.approx(np.mean(calls))
    assert metrics["tokens/reprefilled_total"] == 0
    assert not any(sample.is_masked for sample in samples)


def test_a_fifth_search_is_told_once_to_answer(steps):
    """Behind the notice the chain answers with 0.2; one more search ends the response."""
    endings = []
    for run in RUNS:
        ledgers = [sample.trajectory for sample in steps[run].samples]
        told = [ledger for ledger in ledgers if NO_CALLS_LEFT in ledger.response_text]
        assert told
        for ledger in told:
            assert ledger.num_tool_calls == 4
            assert ledger.response_text.count(NO_CALLS_LEFT) == 1
            is_answer = ledger.final_text.endswith("</answer>")
            assert (ledger.finish_reason is FinishReason.TOOL_LIMIT) is not is_answer
            assert ledger.unexecuted_calls == (1 if is_answer else 2)
            endings.append(is_answer)
    assert set(endings) == {True, False}


@pytest.mark.parametrize("run", RUNS)
def test_only_policy_tokens_carry_a_loss(steps, run):
    """Of what is learned from, every token of a passage has mask 0, and every sampled one mask 1."""
    step = steps[run]
    learned = [s.trajectory for s in step.samples if s.is_chosen and not s.is_dropped]
    assert learned
    packed = step.packed
    assert packed.loss_mask.sum() == sum(t.num_policy_tokens for t in learned)
    masks = {}
    for tokens, segments, mask in zip(
        packed.tokens, packed.segment_ids, packed.loss_mask, strict=True
    ):
        for segment in set(segments.tolist()) - {0}:
            at = segments == segment
            masks.setdefault(tuple(tokens[at].tolist()), mask[at])
    for trajectory in learned:
        mask = masks[tuple(trajectory.ids.tolist())]
        np.testing.assert_array_equal(mask, trajectory.origins == Origin.POLICY)
    assert any(np.any(t.origins == Origin.TOOL) for t in learned)


@pytest.mark.parametrize("run", RUNS)
def test_the_reward_is_exact_match_and_searches_cost_in_otc_alone(steps, run):
    rewards = set()
    for sample in steps[run].samples:
        trajectory, score = sample.trajectory, sample.score
        said = trajectory.final_text.removeprefix("<answer>").removesuffix("</answer>")
        is_right = said.strip() == trajectory.problem.references[1]
        assert score.is_correct is is_right
        fewest = 0 if score.fewest_calls is None else int(score.fewest_calls)
        expected = r_tool(run, trajectory.num_tool_calls, fewest) if is_right else 0.0
        assert score.reward == pytest.approx(expected)
        rewards.add(round(score.reward, 6))
    assert (len(rewards) > 2) is is_otc(run)


@pytest.mark.parametrize("run", RUNS)
def test_ppo_has_a_critic_and_both_stay_near_the_first_policy(steps, run):
    metrics = steps[run].metrics
    assert ("critic/loss" in metrics) is is_ppo(run)
    assert metrics["policy/grad_norm"] > 0
    assert "policy/kl_k3_nats" in metrics
    assert metrics["mismatch/max_abs_logprob_nats"] < 1e-3


def test_a_greedy_evaluation_has_em_and_calls_of_each_set(found):
    """The likeliest token always searches: four times, then told to answer, and once more."""
    evaluation = found.evaluation
    assert set(evaluation.levels) == {"nq", "hotpotqa"}
    for part in (evaluation.overall, *evaluation.levels.values()):
        assert (part["accuracy"], part["tool_calls"], part["lost"]) == (0.0, 4.0, 0)
    assert evaluation.overall["answers"] == 16  # the whole test file
    ledgers = [sample.trajectory for group in evaluation.groups for sample in group.samples]
    assert len({ledger.response_text for ledger in ledgers}) == 1
