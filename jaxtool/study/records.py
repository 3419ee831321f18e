"""Answers of the study's policies, one line each, so that every figure can be worked out again.

For a variant of a seed: greedy and sampled answers to the held-out questions, sampled answers to the
validation questions of its curve (the curve's first point), and how many questions of each level the
policy gets right when it must answer at once ("mental"), which says how many calls are needed.
"""

import dataclasses
import json
import os
from asyncio import Runner
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtool.core.types import Problem, samples_of
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rollout.collector import Collector
from jaxtool.rundir.checkpoints import SavedPolicy, saved_at
from jaxtool.study.figures import EvalRecord
from jaxtool.train import rl_config, run_files
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import GREEDY
from jaxtool.train.rollout_worker import RolloutWorker, open_worker


def read_answers(path: Path) -> dict[str, list[EvalRecord]]:
    """ "greedy", "sampled", "validation" and "mental" of one variant."""
    parts = json.loads(path.read_text(encoding="utf-8"))["answers"]
    return {part: [EvalRecord(**row) for row in rows] for part, rows in parts.items()}


def are_answers_of(path: Path, asked: Mapping[str, Any], policy: Path) -> bool:
    """Whether a file holds the answers of the policy that is saved there to what is to be asked."""
    if not path.is_file() or path.stat().st_mtime < saved_at(policy):
        return False
    return json.loads(path.read_text(encoding="utf-8")).get("asked") == asked


def evaluate_variant(job: dict[str, Any]) -> None:
    """Writes the answers of one policy.

    Args:
      job: "files" (gin files of an RL run, whose task, engine and budgets it takes), "policy"
        (directory), "output" (file), "sandbox", "asked": {"params" (bindings over the files), "renderer",
        "mental_renderer" (of questions without the tool), "mental_problems", "seed", "split", "problems"}.
    """
    asked = job["asked"]
    seed, renderer = asked["seed"], asked["renderer"]
    config = run_files.load_rl_run(job["files"], asked["params"])
    config = dataclasses.replace(config, renderer=renderer)
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        source = SavedPolicy(path=job["policy"])
        sharding, _ = make_shardings(config, source.model_config())
        worker, params = open_worker(
            stack, runner, config, source, sharding, seed, (job["sandbox"],)
        )
        worker.engine.load(params)
        validation = config.task.problems("validation", config.schedule.eval_problems, seed)
        mental = config.task.problems("validation", asked["mental_problems"], seed)
        held_out = config.task.problems(asked["split"], asked["problems"], seed)
        # A policy that is asked without a tool answers at once anyway.
        at_once = asked["mental_renderer"] if load_renderer(renderer).tool else renderer
        questions = (
            ("greedy", renderer, held_out, GREEDY),
            ("sampled", renderer, held_out, config.sampling),
            ("validation", renderer, validation, config.sampling),
            ("mental", at_once, mental, GREEDY),
        )
        parts = {
            part: [
                dataclasses.asdict(answer)
                for answer in _answers(worker, config, name, problems, sampling, part, seed)
            ]
            for part, name, problems, sampling in questions
        }
    output = Path(job["output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".writing")
    temporary.write_text(json.dumps({"asked": asked, "answers": parts}), encoding="utf-8")
    os.replace(temporary, output)


def _answers(
    worker: RolloutWorker,
    config: rl_config.RlConfig,
    renderer_name: str,
    problems: Sequence[Problem],
    sampling: Sampling,
    part: str,
    seed: int,
) -> list[EvalRecord]:
    """One answer to each problem that the infrastructure let finish."""
    renderer = load_renderer(renderer_name)
    collector = Collector(
        engine=worker.engine,
        tokenizer=worker.tokenizer,
        renderer=renderer,
        tool=worker.collector.tool,
        config=config.rollout,
    )
    # "validation" is the stream of the loop's own validations: the curve's points compare.
    stream = ("validation",) if part == "validation" else ("study", part)
    groups = worker.runner.run(
        collector.collect(
            problems, samples=1, sampling=sampling, seed=seed, stream=stream, version=0
        )
    )
    judging = dataclasses.replace(worker.judging, format=renderer.answer)
    return [
        EvalRecord(
            question=t.problem.problem_id,
            level=t.problem.level,
            calls=t.num_tool_calls,
            is_correct=bool(sample.is_correct),
            tokens=t.num_policy_tokens,
        )
        for sample in samples_of(judging.judged(groups))
        for t in [sample.trajectory]
        if not t.is_masked
    ]
