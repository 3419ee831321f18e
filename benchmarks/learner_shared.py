"""What it brings the learner to read one copy of a prompt for all samples of a problem.

Both ways learn the same trajectories: `apart` with a copy of the prompt for each, in rows of one trajectory,
which waste nothing, four rows a micro-batch; `shared` with one copy for all, in one row, which has as many tokens
as those four. Updates take turns after one that compiles; medians are compared. CPU seconds of all threads stand
beside those of the clock: other jobs on the machine change them less.
"""

import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.learner_setup import make_setup, random_state
from benchmarks.peers import SHAPES
from jaxtool.core.types import Origin, Problem, Trajectory
from jaxtool.learn.grpo_learner import GrpoLearner
from jaxtool.learn.members import Members, Score
from jaxtool.learn.policy_view import PolicyView
from jaxtool.rollout.batching import PackConfig, to_batch

_ROWS = 4  # of a micro-batch with a prompt for each trajectory


@dataclasses.dataclass(frozen=True)
class SharedCase:
    """The samples of one problem."""

    shape: str = "SmolLM2-135M"
    dtype: str = "float32"
    remat: str = "block"  # as gin_configs/models/smollm2.gin has it; "none" takes over 13 GiB
    prompt: int = 250  # tokens
    samples: int = 16
    response: int = 60  # tokens, all of the policy
    rounds: int = 5


def trajectories(case: SharedCase) -> list[Trajectory]:
    """Random tokens; log-probs of the sampler as if every token were as likely as another."""
    numbers, vocab = np.random.default_rng(0), SHAPES[case.shape]["vocab_size"]
    prompt = numbers.integers(3, vocab, case.prompt)
    is_policy = np.arange(case.prompt + case.response) >= case.prompt
    return [
        Trajectory(
            problem=Problem(problem_id="p", question="q", answer="a"),
            sample=sample,
            ids=np.concatenate([prompt, numbers.integers(3, vocab, case.response)]).astype(
                np.int32
            ),
            origins=np.where(is_policy, Origin.POLICY, Origin.PROMPT).astype(np.int8),
            behaviour_logprobs=np.where(is_policy, -np.log(vocab), 0).astype(np.float32),
            policy_versions=np.where(is_policy, 0, -1).astype(np.int32),
        )
        for sample in range(case.samples)
    ]


def shared_prompts(case: SharedCase) -> dict[str, Any]:
    """Seconds of an update both ways, and how far their losses are apart after the first."""
    made = trajectories(case)
    whole = case.prompt + case.response
    together = case.prompt - 1 + case.samples * (case.response + 1)
    ways = {
        "apart": (PackConfig(row_tokens=whole), _ROWS),
        "shared": (PackConfig(row_tokens=together, shares_prompts=True), 1),
    }
    members = Members(
        scores=[Score(reward=float(i % 3), is_correct=i % 3 > 1) for i in range(case.samples)],
        group_ids=np.zeros(case.samples, np.int32),
        is_dropped=np.zeros(case.samples, bool),
    )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    states, first, rows = {}, {}, {}
    for turn in range(case.rounds + 1):
        for name, (pack, micro_batch_rows) in ways.items():
            setup = make_setup(
                *(SHAPES[case.shape], case.dtype, micro_batch_rows, 512),
                scans_layers=True,
                remat=case.remat,
            )
            setup = dataclasses.replace(setup, num_trajectories=case.samples)
            learner = GrpoLearner(setup=setup, view=PolicyView())
            state = states.pop(name, None) or random_state(setup)
            jax.block_until_ready(state)
            started, cpu_started = time.perf_counter(), time.process_time()
            batch = to_batch(made, pack)
            placed, _ = learner.targets(state, batch, members)
            assert placed is not None
            states[name], metrics = learner.update(state, placed)
            jax.block_until_ready((states[name], metrics))
            if turn:
                seconds[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - cpu_started)
            else:
                first[name], rows[name] = metrics, batch.shape
    median, cpu_median = (
        {name: statistics.median(values) for name, values in times.items()}
        for times in (seconds, cpu)
    )
    names = ("policy/loss", "policy/grad_norm", "mismatch/mean_abs_logprob_nats")
    return dataclasses.asdict(case) | {
        "rows": rows,
        "update_s": median,
        "rounds_s": seconds,
        "ratio": median["apart"] / median["shared"],
        "cpu_s": cpu_median,
        "cpu_ratio": cpu_median["apart"] / cpu_median["shared"],
        "first_update": {key: {way: float(first[way][key]) for way in ways} for key in names},
    }
