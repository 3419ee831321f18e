"""Figures of a finished study out of its files: means over seeds, differences, targets, curves, summary.

Answers that the infrastructure lost are in no figure; how many they are stands beside them. Differences are of the
questions that neither variant lost.

Not covered: how they are shown, see `tables`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.study.figures import (
    EvalRecord,
    accuracy_by_level,
    against,
    against_by_tool,
    best_point,
    by_level,
    by_tool,
    by_tool_over_seeds,
    figures,
    first_step_reaching,
    mean_stderr,
    optimal_calls,
    over_seeds,
    tokens_until,
    whole,
    whole_in_both,
)
from jaxtool.study.matched_tokens import matched_tokens
from jaxtool.study.records import read_answers
from jaxtool.study.runner import Study
from jaxtool.study.suite import Variant
from jaxtool.train.rl_config import RlConfig

SAMPLINGS = ("greedy", "sampled")
PARTS = (*SAMPLINGS, "validation", "mental")
TEXT, TOOL, COLD = "text_rl", "retool_grpo", "cold_start"
OTC = "otc_after_grpo"  # chosen on validation questions, see docs/results.md
OTC_PAPER = "otc_grpo"
PAIRS = (
    (TOOL, COLD),
    ("retool_ppo", COLD),
    (TOOL, TEXT),
    (TEXT, "pretrain"),
    ("torl", "pretrain"),
    (TEXT, "prompted_text"),
    ("torl", "prompted_text"),
    ("torl", "prompted"),
    (COLD, "prompted"),
)
Point = tuple[int, float]


def results(study: Study) -> dict[str, Any]:
    """Everything that docs/results/results.json.gz holds of the study, but how it was run."""
    asked = {
        variant.name: [read_answers(study.answers(variant.name, seed)) for seed in study.seeds]
        for variant in study.variants
    }
    answers = {
        name: [{part: whole(rows) for part, rows in seed.items()} for seed in seeds]
        for name, seeds in asked.items()
    }
    optima = {variant.name: _optima(study, variant, answers) for variant in study.variants}
    each = {
        variant.name: {
            way: [
                figures(seed[way], optimum)
                for seed, optimum in zip(answers[variant.name], optima[variant.name], strict=True)
            ]
            for way in SAMPLINGS
        }
        for variant in study.variants
    }
    curves = {
        variant.name: [_curves(study, variant, i, answers) for i in range(len(study.seeds))]
        for variant in study.variants
    }
    found: dict[str, Any] = {
        "seeds": list(study.seeds),
        "split": study.split,
        "questions_per_seed": study.problems,
        "variants": {},
    }
    for variant in study.variants:
        own = answers[variant.name]
        found["variants"][variant.name] = {
            "what": variant.what,
            "starts_from": variant.start,
            **{way: over_seeds(each[variant.name][way]) for way in SAMPLINGS},
            "rests_on": {
                part: _rests_on([seed[part] for seed in asked[variant.name]]) for part in PARTS
            },
            "by_tool": {
                way: by_tool_over_seeds([by_tool(seed[way]) for seed in own]) for way in SAMPLINGS
            },
            "levels": {way: _levels([seed[way] for seed in own]) for way in SAMPLINGS},
            "mental_accuracy": _over_levels([accuracy_by_level(seed["mental"]) for seed in own]),
            "optimal_calls": optima[variant.name],
            "training": _training(study, variant, curves),
        }
    found["paired"] = _paired(study, asked, optima)
    found["paired_by_tool"] = _paired_by_tool(study, asked)
    found["curves"] = {
        name: {part: _mean_curve([seed[part] for seed in seeds]) for part in seeds[0]}
        for name, seeds in curves.items()
        if len(seeds[0]["accuracy"]) > 1
    }
    found["matched_tokens"] = matched_tokens(study, curves)
    found["summary"] = summary(found)
    return found


def _paired(
    study: Study,
    asked: Mapping[str, Sequence[Mapping[str, Sequence[EvalRecord]]]],
    optima: Mapping[str, Sequence[Mapping[str, int]]],
) -> dict[str, Any]:
    """What one variant changes against another, for the pairs of which the study has both."""
    return {
        f"{new} against {old}": {
            way: over_seeds(
                [
                    _difference(
                        asked[new][i][way], asked[old][i][way], optima[new][i], optima[old][i]
                    )
                    for i in range(len(study.seeds))
                ]
            )
            for way in SAMPLINGS
        }
        for new, old in _pairs(study, asked)
    }


def _paired_by_tool(
    study: Study, asked: Mapping[str, Sequence[Mapping[str, Sequence[EvalRecord]]]]
) -> dict[str, Any]:
    """The same by tool: {pair: {way: {tool: {"calls_cut", "productivity_gain"}}}}."""

    def changes(new: Sequence[EvalRecord], old: Sequence[EvalRecord]) -> dict[str, Any]:
        a, b = whole_in_both(new, old)
        return against_by_tool(by_tool(a), by_tool(b))

    return {
        f"{new} against {old}": {
            way: by_tool_over_seeds(
                [
                    changes(ours[way], theirs[way])
                    for ours, theirs in zip(asked[new], asked[old], strict=True)
                ]
            )
            for way in SAMPLINGS
        }
        for new, old in _pairs(study, asked)
    }


def _pairs(study: Study, asked: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pairs of which the study has both."""
    pairs = (*PAIRS, (OTC, study.suite.equal_steps), *_against_grpo(study))
    return [pair for pair in pairs if set(pair) <= set(asked)]


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The main figures, greedy on the held-out questions; None where a variant is missing.

    `otc_calls_cut` (share), `otc_accuracy_loss_points` (positive: OTC is worse) with its `_stderr`, and
    `otc_productivity_gain` (2.29 is +229 %) are those of `OTC`, OTC-GRPO without the group's standard
    deviation, from the policy that ReTool-GRPO ended with, against ReTool-GRPO, means of the
    differences of each seed; `otc_paper_...` those of OTC-GRPO as in the paper. `otc_calls_over_optimum` is calls / optimum - 1 of `OTC`.
    `rl_gain_over_cold_start_points` and `rl_gain_stderr` are ReTool-GRPO against the cold start;
    `rl_gain_sampled_...` the same of sampled answers; `tool_over_text_points` is ReTool-GRPO against
    text-only RL.
    """
    paired = found["paired"]

    def mean(pair: str, name: str, way: str = "greedy", part: str = "mean") -> Any:
        return paired[pair][way][name][part] if pair in paired else None

    otc, paper = f"{OTC} against {TOOL}", f"{OTC_PAPER} against {TOOL}"
    gain = f"{TOOL} against {COLD}"

    def loss(pair: str) -> float | None:
        points = mean(pair, "accuracy_points")
        return None if points is None else -points

    calls = found["variants"].get(OTC, {}).get("greedy")
    over = None
    if calls is not None:
        over = calls["tool_calls"]["mean"] / calls["optimal_calls"]["mean"] - 1
    return {
        "seeds": len(found["seeds"]),
        "otc_calls_cut": mean(otc, "calls_cut"),
        "otc_accuracy_loss_points": loss(otc),
        "otc_accuracy_loss_stderr": mean(otc, "accuracy_points", part="stderr"),
        "otc_productivity_gain": mean(otc, "productivity_gain"),
        "otc_calls_over_optimum": over,
        "otc_paper_calls_cut": mean(paper, "calls_cut"),
        "otc_paper_accuracy_loss_points": loss(paper),
        "otc_paper_accuracy_loss_stderr": mean(paper, "accuracy_points", part="stderr"),
        "rl_gain_over_cold_start_points": mean(gain, "accuracy_points"),
        "rl_gain_stderr": mean(gain, "accuracy_points", part="stderr"),
        "rl_gain_sampled_points": mean(gain, "accuracy_points", "sampled"),
        "rl_gain_sampled_stderr": mean(gain, "accuracy_points", "sampled", "stderr"),
        "tool_over_text_points": mean(f"{TOOL} against {TEXT}", "accuracy_points"),
    }


def _rests_on(seeds: Sequence[Sequence[EvalRecord]]) -> dict[str, int]:
    """Answers of all seeds that figures are made of, and those lost."""
    lost = sum(answer.is_lost for seed in seeds for answer in seed)
    return {"answers": sum(map(len, seeds)) - lost, "lost": lost}


def _difference(
    new: Sequence[EvalRecord],
    old: Sequence[EvalRecord],
    new_optimum: Mapping[str, int],
    old_optimum: Mapping[str, int],
) -> dict[str, float | None]:
    """What `new` changes in one seed, and the number of questions, which neither side lost."""
    a, b = whole_in_both(new, old)
    counts: dict[str, float | None] = {"questions": len(a), "questions_left_out": len(new) - len(a)}
    return counts | against(figures(a, new_optimum), figures(b, old_optimum))


def _against_grpo(study: Study) -> list[tuple[str, str]]:
    """Every variant against ReTool with its own learner."""
    first = study.suite.default[0].name
    skipped = {first, "prompted", COLD, TOOL, TEXT, "torl", "retool_ppo"}
    return [
        (variant.name, "retool_ppo" if _has_critic(study, variant) else TOOL)
        for variant in study.variants
        if variant.name not in skipped and variant.start != first
    ] + [("retool_ppo", TOOL)]


def _has_critic(study: Study, variant: Variant) -> bool:
    config = study.config(variant)
    return isinstance(config, RlConfig) and config.critic is not None


def _optima(
    study: Study, variant: Variant, answers: Mapping[str, Sequence[Mapping[str, list[EvalRecord]]]]
) -> list[dict[str, int]]:
    """Optimal calls by level of each seed, for the policy that the variant's reinforcement learning began with.

    A stage without rollouts is judged by what it knows itself.
    """
    if line := study.rollout_line(variant):
        assert line[0].start is not None
        variant = study.suite.variants[line[0].start]
    return [
        {
            level: optimal_calls(level, accuracy)
            for level, accuracy in accuracy_by_level(seed["mental"]).items()
        }
        for seed in answers[variant.name]
    ]


def _levels(seeds: Sequence[Sequence[EvalRecord]]) -> dict[str, Any]:
    parts = [by_level(seed) for seed in seeds]
    return {
        level: {
            "accuracy": mean_stderr(
                [sum(a.is_correct for a in part[level]) / len(part[level]) for part in parts]
            ),
            "tool_calls": mean_stderr(
                [sum(a.calls for a in part[level]) / len(part[level]) for part in parts]
            ),
            "answers": len(parts[0][level]),
            "by_tool": by_tool_over_seeds([by_tool(part[level]) for part in parts]),
        }
        for level in sorted(parts[0])
    }


def _over_levels(seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {level: mean_stderr([seed[level] for seed in seeds]) for level in sorted(seeds[0])}


def _curves(
    study: Study,
    variant: Variant,
    index: int,
    answers: Mapping[str, Sequence[Mapping[str, list[EvalRecord]]]],
) -> dict[str, list[Point]]:
    """Sampled accuracy and calls on the validation questions by step.

    Step 0 is the policy that the variant starts from, unless that was asked in another renderer.
    """
    accuracy: list[Point] = []
    calls: list[Point] = []
    if variant.start is None or study.renderer(
        study.suite.variants[variant.start]
    ) == study.renderer(variant):
        start = answers[variant.start or variant.name][index]["validation"]
        accuracy.append((0, sum(a.is_correct for a in start) / len(start)))
        calls.append((0, sum(a.calls for a in start) / len(start)))
    for row in _rows(study, variant, study.seeds[index]):
        if "validation/accuracy_fraction" in row:
            accuracy.append((int(row["step"]) + 1, row["validation/accuracy_fraction"]))
            calls.append((int(row["step"]) + 1, row["validation/calls_per_answer"]))
    return {"accuracy": accuracy, "calls": calls}


def _rows(study: Study, variant: Variant, seed: int) -> list[dict[str, float]]:
    return (
        read_metrics(study.run_dir(variant.name, seed) / METRICS_NAME) if variant.is_trained else []
    )


def _training(
    study: Study, variant: Variant, curves: Mapping[str, Sequence[Mapping[str, list[Point]]]]
) -> dict[str, Any]:
    """Steps, tokens and seconds of the runs; of RL variants also until text-only RL's best accuracy.

    The target is the best sampled validation accuracy of text-only RL of the same seed, and
    `steps_to_target` the first validated step that reaches it; 0 is the policy it started from.
    """
    rows = [_rows(study, variant, seed) for seed in study.seeds]
    training: dict[str, Any] = {
        "steps": int(rows[0][-1]["step"]) + 1 if rows[0] else 0,
        "seconds": mean_stderr([seed[-1]["time_s"] if seed else None for seed in rows]),
    }
    config = study.config(variant)
    if not isinstance(config, RlConfig) or not variant.is_trained:
        return training
    training["validations"] = _validations(rows)
    batch = config.schedule.problems_per_step * config.schedule.samples
    training["tokens"] = mean_stderr([tokens_until(seed, batch, len(seed)) for seed in rows])
    if TEXT in curves:
        bests = [best_point(seed["accuracy"]) for seed in curves[TEXT]]
        reached = [
            first_step_reaching(curve["accuracy"], best)
            for curve, (_, best) in zip(curves[variant.name], bests, strict=True)
        ]
        training["target_accuracy"] = mean_stderr([value for _, value in bests])
        training["steps_to_target"] = mean_stderr(reached)
        training["tokens_to_target"] = mean_stderr(
            [
                None if step is None else tokens_until(seed, batch, step)
                for seed, step in zip(rows, reached, strict=True)
            ]
        )
    return training


def _validations(seeds: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, int]:
    """Answers of all validations of all seeds, those lost, and validations without figures for that."""
    rows = [row for seed in seeds for row in seed if "validation/answers_count" in row]
    return {
        "answers": sum(int(row["validation/answers_count"]) for row in rows),
        "lost": sum(int(row["validation/lost_count"]) for row in rows),
        "refused": sum("validation/accuracy_fraction" not in row for row in rows),
    }


def _mean_curve(seeds: Sequence[Sequence[Point]]) -> list[dict[str, Any]]:
    """Mean and standard error over seeds at each step that all of them have."""
    values = [dict(seed) for seed in seeds]
    steps = [step for step in values[0] if all(step in seed for seed in values)]
    return [{"step": step} | mean_stderr([seed[step] for seed in values]) for step in steps]
