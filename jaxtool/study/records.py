"""Answers of the study's policies, one line each, so that every figure can be worked out again.

For a variant of a seed: greedy and sampled answers to the held-out questions, sampled answers to the
validation questions of its curve (the curve's first point), and how many questions of each level the
policy gets right when it must answer at once ("mental"), which says how many calls are needed.

Answers that the infrastructure lost are asked once more. What is still lost stands in the file as such. Where it
is more than `Schedule.eval_max_lost_fraction` of a part, no file is written, so that the same command asks again.
"""

import dataclasses
import json
from asyncio import Runner
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxtool.core.files import write_text
from jaxtool.core.types import Group, Problem, samples_of
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.judged_answers import calls_by_tool
from jaxtool.rollout.lost import ask_lost_again, lost_to_text
from jaxtool.rundir.checkpoints import SavedPolicy, saved_at
from jaxtool.study.figures import EvalRecord, lost_fraction
from jaxtool.tools.base import CodeRunner
from jaxtool.train import rl_config, run_files
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import GREEDY
from jaxtool.train.rollout_worker import RolloutWorker, open_worker
from jaxtool.train.tool_checks import check_known_answers


def read_answers(path: Path) -> dict[str, list[EvalRecord]]:
    """ "greedy", "sampled", "validation" and "mental" of one variant."""
    parts = json.loads(path.read_text(encoding="utf-8"))["answers"]
    return {part: [EvalRecord(**row) for row in rows] for part, rows in parts.items()}


def are_answers_of(path: Path, asked: Mapping[str, Any], policy: Path) -> bool:
    """Whether a file holds the answers of the policy that is saved there to what is to be asked.

    To all of it: files of before left lost answers out without a word.
    """
    if not path.is_file() or path.stat().st_mtime < saved_at(policy):
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"greedy": "problems", "sampled": "problems", "mental": "mental_problems"}
    return found.get("asked") == asked and all(
        len(rows) == asked[wanted[part]]
        for part, rows in found["answers"].items()
        if part in wanted
    )


def evaluate_variant(
    job: dict[str, Any], *, mesh: Mesh | None = None, tool: CodeRunner | None = None
) -> None:
    """Writes the answers of one policy.

    Args:
      job: "files" (gin files of an RL run, whose task, engine and budgets it takes), "policy"
        (directory), "output" (file), "sandbox", "asked": {"params" (bindings over the files), "renderer",
        "mental_renderer" (of questions without the tool), "mental_problems", "seed", "split", "problems"}.
      mesh: in place of the one that the configuration makes of all devices.
      tool: answers calls in place of the sandbox; the caller closes it.
    """
    asked = job["asked"]
    seed, renderer = asked["seed"], asked["renderer"]
    config = run_files.load_rl_run(job["files"], asked["params"])
    config = dataclasses.replace(config, renderer=renderer)
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        source = SavedPolicy(path=job["policy"])
        sharding, _ = make_shardings(config, source.model_config(), mesh)
        worker, params = open_worker(
            stack, runner, config, source, sharding, seed, (job["sandbox"],), tool
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
            part: _answers(worker, config, name, problems, sampling, part, seed)
            for part, name, problems, sampling in questions
        }
        check_known_answers(worker, seed)
    check_few_are_lost(parts, config.schedule.eval_max_lost_fraction)
    output = Path(job["output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = {part: [dataclasses.asdict(a) for a in answers] for part, answers in parts.items()}
    write_text(output, json.dumps({"asked": asked, "answers": rows}))


def check_few_are_lost(parts: Mapping[str, Sequence[EvalRecord]], max_fraction: float) -> None:
    """Raises ValueError if more of a part is lost than figures may go without."""
    for part, answers in parts.items():
        if lost_fraction(answers) > max_fraction:
            said = lost_to_text(Counter(a.lost_to for a in answers if a.lost_to))
            who = f", {said}," * bool(said)
            raise ValueError(
                f"{sum(a.is_lost for a in answers)} of {len(answers)} {part} answers were "
                f"lost{who} (Schedule.eval_max_lost_fraction allows {max_fraction:.1%}): look at the log of "
                "what lost them; the same command asks again"
            )


def _answers(
    worker: RolloutWorker,
    config: rl_config.RlConfig,
    renderer_name: str,
    problems: Sequence[Problem],
    sampling: Sampling,
    part: str,
    seed: int,
) -> list[EvalRecord]:
    """One answer to each problem; those that the infrastructure lost are marked."""
    renderer = load_renderer(renderer_name)
    if worker.collector.tools.specs:
        renderer = renderer.with_tools(worker.collector.tools.specs)
    collector = Collector(
        engine=worker.engine,
        tokenizer=worker.tokenizer,
        renderer=renderer,
        tools=worker.collector.tools,
        config=config.rollout,
    )
    # "validation" is the stream of the loop's own validations: the curve's points compare.
    stream = ("validation",) if part == "validation" else ("study", part)

    def collect(asked: Sequence[Problem], samples: int | Sequence[Sequence[int]]) -> list[Group]:
        return worker.runner.run(
            collector.collect(
                asked, samples=samples, sampling=sampling, seed=seed, stream=stream, version=0
            )
        )

    groups = ask_lost_again(collect(problems, 1), collect)
    judging = dataclasses.replace(worker.judging, format=renderer.answer)
    none = dict.fromkeys(collector.tools.names, 0)
    return [
        EvalRecord(
            question=t.problem.problem_id,
            level=t.problem.level,
            calls=t.num_tool_calls,
            is_correct=bool(sample.is_correct) and not t.is_masked,
            tokens=t.num_policy_tokens,
            is_lost=t.is_masked,
            lost_to=t.lost_to,
            calls_by_tool=none | calls_by_tool(t),
        )
        for sample in samples_of(judging.judged(groups))
        for t in [sample.trajectory]
    ]
