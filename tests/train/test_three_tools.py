"""Code, search and a function of the user's in one trajectory, with real servers, decoder, learner and loop.

What is promised: the ledger is what went through the decoder, token by token; nothing runs twice; only what the policy
wrote carries a loss; each call costs what its tool costs; a run that is killed and resumed ends in the same bits.
"""

import collections
import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from helpers import three_tools
from helpers.search_serving import serving, write_rows
from helpers.small_runs import train
from helpers.three_tools import (
    ANSWER,
    CHARACTERS,
    CODE,
    CORPUS,
    LENGTH,
    PASSAGE,
    PIECES,
    RESULT,
    SEARCH,
    names_of,
)

from jaxtool.core.types import Origin
from jaxtool.data.tokenizer import VocabularyTokenizer, decode
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.trajectory_log import without_times
from jaxtool.tools.local_server import start_local_server
from jaxtool.train import rl_loop

ALL = ("python", "search", "length")
PRICES = {"python": 1.0, "search": 0.5, "length": 0.25}
STEPS = 3


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished run and what it runs on."""

    config: object
    sandbox: str
    policy: object
    workdir: object
    steps: list  # scored samples of each step
    rows: list  # of the decoder, see `three_tools.Rows`


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    corpus = write_rows(folder / "corpus.jsonl", CORPUS)
    with start_local_server() as sandbox, serving("--corpus", str(corpus)) as search:
        config = three_tools.three_tools(folder, search.address)
        policy = three_tools.learned_policy(config, folder / "cold_start")
        rows, steps, learn = three_tools.Rows(), [], rl_loop._learn

        def noted(run, rollouts, batch, step):
            steps.append(batch.samples)
            return learn(run, rollouts, batch, step)

        with pytest.MonkeyPatch.context() as patch:
            rows.watch(patch)
            patch.setattr(rl_loop, "_learn", noted)
            run = {"seed": 3, "init_from": policy, "sandbox_addresses": (sandbox,)}
            train(config, workdir=folder / "run", **run)
        yield Made(config, sandbox, policy, folder / "run", steps, rows.finished)


def rows_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [without_clock(json.loads(line)) for line in lines]


def trajectories(made):
    return [sample.trajectory for samples in made.steps for sample in samples]


def test_every_step_has_trajectories_that_call_all_three(made):
    """Otherwise what follows would say little."""
    assert len(made.steps) == STEPS
    for samples in made.steps:
        called = list(names_of([sample.trajectory for sample in samples]))
        assert called.count(ALL) > 1
        assert len(set(called)) > 1
    assert all(not sample.is_masked for samples in made.steps for sample in samples)


def test_a_ledger_is_its_prompt_its_calls_and_their_results(made):
    """The ids of each part are those of its text, and who wrote it is who wrote it."""
    tokenizer = VocabularyTokenizer(PIECES)
    parts = [
        ("1+2=", Origin.PROMPT),
        (CODE, Origin.POLICY),
        (RESULT, Origin.TOOL),
        (SEARCH, Origin.POLICY),
        (PASSAGE, Origin.TOOL),
        (LENGTH, Origin.POLICY),
        (CHARACTERS, Origin.TOOL),
        (ANSWER, Origin.POLICY),
    ]
    ids = [tokenizer.encode(text) for text, _ in parts]
    origins = [origin for (_, origin), part in zip(parts, ids, strict=True) for _ in part]
    whole = [token for part in ids for token in part]
    found = [t for t in trajectories(made) if t.ids.tolist() == whole]
    assert found, [decode(tokenizer, t.ids) for t in trajectories(made)]
    for t in found:
        t.check()
        assert t.origins.tolist() == origins
        assert [call.arguments for call in t.tool_calls] == [
            {"code": "1+2"},
            {"query": "oslo"},
            {"text": "oslo"},
        ]
        spans = [(call.start, call.stop, call.observation_stop) for call in t.tool_calls]
        ends = np.cumsum([len(part) for part in ids]).tolist()
        assert spans == [tuple(ends[i : i + 3]) for i in (0, 2, 4)]
        assert t.final_text == decode(tokenizer, ids[-1]) == ANSWER


def test_ledgers_are_what_went_through_the_decoder(made):
    """Those of the validation, 4 answers, are rows as well."""
    ledgers = collections.Counter(tuple(t.ids.tolist()) for t in trajectories(made))
    rows = collections.Counter(made.rows)
    assert not ledgers - rows
    assert rows.total() - ledgers.total() == 4


def test_no_token_ran_twice_and_sampler_and_learner_agree(made):
    """A cache that lost or doubled a tool's tokens would give later tokens another log-prob than the learner does."""
    for row in rows_of(made.workdir):
        assert row["tokens/reprefilled_total"] == 0
        assert row["mismatch/max_abs_logprob_nats"] <= 1e-4
        assert row["tools/infrastructure_failed_fraction"] == 0


def test_only_what_the_policy_wrote_carries_a_loss(made):
    t = next(t for t in trajectories(made) if t.num_tool_calls == 3)
    batch = to_batch([t], PackConfig(row_tokens=96))
    mask = np.asarray(batch.loss_mask)[0, : len(t.ids)]
    text = decode(VocabularyTokenizer(PIECES), t.ids[mask])
    assert mask.tolist() == (t.origins == Origin.POLICY).tolist()
    assert not np.asarray(batch.loss_mask)[0, len(t.ids) :].any()
    assert RESULT not in text
    assert "Doc" not in text
    assert np.all(np.asarray(batch.behaviour_logprobs)[0, : len(t.ids)][~mask] == 0)


def test_each_call_costs_what_its_tool_costs(made):
    """OTC-GRPO by hand, with c = 3 calls: n is the least m so far of a right answer to the problem."""
    fewest: dict[str, float] = {}
    seen = set()
    for samples in made.steps:
        groups = collections.defaultdict(list)
        for sample in samples:
            groups[sample.trajectory.problem.problem_id].append(sample)
        for problem, members in groups.items():
            costs = [
                sum(PRICES[tool] for tool in names)
                for names in names_of([sample.trajectory for sample in members])
            ]
            right = [m for m, sample in zip(costs, members, strict=True) if sample.is_correct]
            n = min([*right, fewest.get(problem, math.inf)])
            fewest[problem] = n
            for m, sample in zip(costs, members, strict=True):
                if not sample.is_correct:
                    wanted = 0.0
                elif n == 0:
                    wanted = math.cos(m * math.pi / (2 * m + 3))
                else:
                    wanted = math.sin(m * math.pi / (m + n))
                assert sample.score.reward == pytest.approx(wanted)
                seen.add((m, round(sample.score.reward, 4)))
    # All three tools cost 1.75, code alone 1: sin(1.75 π / 2.75) where code alone was right as well.
    assert {(1.0, 1.0), (1.75, 0.9096)} <= seen


def test_figures_by_tool_are_those_of_the_trajectories(made):
    for row, samples in zip(rows_of(made.workdir), made.steps, strict=True):
        called = list(names_of([sample.trajectory for sample in samples]))
        right = sum(sample.is_correct for sample in samples)
        paid = 0.0
        for tool in ALL:
            calls = sum(names.count(tool) for names in called)
            assert row[f"tools/calls_count/{tool}"] >= calls  # those of the validation come with it
            assert row[f"tools/calls_per_answer/{tool}"] == pytest.approx(calls / 16)
            assert row[f"tools/productivity_ratio/{tool}"] == pytest.approx(right / calls)
            assert row[f"reward/call_cost_mean/{tool}"] == pytest.approx(PRICES[tool] * calls / 16)
            paid += PRICES[tool] * calls / 16
        assert row["reward/call_cost_mean"] == pytest.approx(paid)
    last = rows_of(made.workdir)[-1]
    each = sum(last[f"validation/tool_calls_per_answer/{tool}"] for tool in ALL)
    assert each == pytest.approx(last["validation/calls_per_answer"])


def test_killed_and_resumed_equals_uninterrupted_bitwise(made, tmp_path, monkeypatch):
    """Killed in its second step, between rollouts and update, and started again by the same command."""
    learn = rl_loop._learn

    def killed(run, rollouts, batch, step):
        if step == 1:
            raise KeyError("killed here")
        return learn(run, rollouts, batch, step)

    workdir = tmp_path / "run"
    run = {"seed": 3, "init_from": made.policy, "sandbox_addresses": (made.sandbox,)}
    with monkeypatch.context() as patch:
        patch.setattr(rl_loop, "_learn", killed)
        with pytest.raises(KeyError, match="killed here"):
            train(made.config, workdir=workdir, **run)
    assert (workdir / "checkpoints" / "1").exists()
    assert len(rows_of(workdir)) == 1
    train(made.config, workdir=workdir, **run)
    assert rows_of(workdir) == rows_of(made.workdir)
    logged = [(d / "trajectories.jsonl").read_text() for d in (workdir, made.workdir)]
    views = [[without_times(json.loads(line)) for line in text.splitlines()] for text in logged]
    assert views[0] == views[1]
    one, other = (
        jax.tree.leaves(SavedPolicy(path=str(d / "policy")).load(single_device(), 0)[1])
        for d in (workdir, made.workdir)
    )
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)
