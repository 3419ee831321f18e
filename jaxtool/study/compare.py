"""Variants of an experiment on one untouched test set, evaluated in one process: answers stay in memory.

Not covered: tables (`comparison_tables`), differences (`paired`), evaluations that go on after a kill (`evaluating`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from jaxtool.core.types import Score, samples_of
from jaxtool.judges.references import check_references
from jaxtool.rundir.progress import progress_of
from jaxtool.rundir.trajectory_log import TrajectoryView, logged_views
from jaxtool.study.comparison_tables import Comparison
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import GREEDY, Evaluation, Runner, evaluate
from jaxtool.train.problem_sets import fitting
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import RolloutWorker, load_text, open_worker
from jaxtool.train.tool_checks import check_known_answers
from jaxtool.train.weights import check_same_model, weights_named

SAMPLINGS = ("greedy", "sampled")


def compare(
    config: RlConfig,
    policies: Mapping[str, str | Path],
    *,
    problems: int | None,
    seed: int,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
    samplings: Sequence[str] = SAMPLINGS,
) -> Comparison:
    """Every variant on questions of the test split: greedy, and one sample at `config.sampling`.

    Args:
      policies: names of weights (`weights_named`) by variant.
      problems: how many questions; None: all, where there is a last one.
      search_addresses: running search servers, in place of what `config.tools` name.
      samplings: of SAMPLINGS, in the order of the tables.
    """
    ways = {"greedy": GREEDY, "sampled": config.sampling}
    sources = {
        variant: weights_named(policy, config.policy) for variant, policy in policies.items()
    }
    first, source = next(iter(sources.items()))
    for variant, other in sources.items():
        check_same_model(variant, other.model_config(), first, source.model_config())
    variants: dict[str, dict[str, Evaluation]] = {}
    views: list[TrajectoryView] = []
    text = load_text(config)
    questions = fitting(
        config,
        config.task.problems("test", problems, seed),
        *text,
        "the test problems",
    )
    print(f"judge: {check_references(config.judge, questions)}", flush=True)
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        sharding, _ = make_shardings(config, source.model_config())
        worker, _ = open_worker(
            *(stack, runner, config, source, sharding, seed, sandbox_addresses),
            text=text,
            search_addresses=search_addresses,
        )
        for variant, other in sources.items():
            _, params = other.load(sharding, seed)
            worker.engine.load(params)
            if variant == first:
                with progress_of("compile decoder") as report:
                    worker.compile(report, *(ways[name] for name in samplings))
            variants[variant] = {
                name: evaluate(
                    worker.collector,
                    runner,
                    worker.judging,
                    questions,
                    samples=1,
                    sampling=ways[name],
                    seed=seed,
                    stream=("test",),
                    version=0,
                    max_lost_fraction=config.schedule.eval_max_lost_fraction,
                )
                for name in samplings
            }
            check_known_answers(worker, len(variants))
            views += _views(worker, variant, variants[variant][samplings[0]])
    return Comparison(
        variants=variants,
        views=tuple(views),
        max_lost_fraction=config.schedule.eval_max_lost_fraction,
    )


def _views(
    worker: RolloutWorker, variant: str, evaluation: Evaluation, count: int = 24
) -> list[TrajectoryView]:
    samples = [
        s
        if s.is_masked
        else dataclasses.replace(s, score=Score(reward=float(right), is_correct=right))
        for s in samples_of(evaluation.groups)
        for right in [bool(s.is_correct)]
    ]
    return logged_views(
        samples,
        count,
        variant=variant,
        step=None,
        token_text=worker.token_text,
        control_tokens=worker.tokenizer.control_tokens,
        advantages=None,
    )
