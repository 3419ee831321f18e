"""Evaluates saved policies on the test split of a run's task, greedy and sampled.

  python -m experiments.evaluate --gin_file gin_configs/runs/quickstart_grpo.gin \
      --policy grpo=runs/quickstart/grpo --policy otc=runs/quickstart/otc_grpo

--data NAME[=FILE] asks the questions of test sets, as aime24 or aime24=FILE, in place of the task's test split.

--json PATH writes {"variants": {name: {"greedy"|"sampled": {"accuracy", "accuracy_stderr", "tool_calls",
"tool_calls_stderr", "tool_productivity" (null without calls), "tool_calls_by_tool": {tool: calls}, "by_tool": {tool:
{"tool_calls", "tool_calls_stderr", "tool_productivity", "answers_with_call", "accuracy_with_call" (null without such
answers), "failed_fraction" of its calls (null without any)}}, "problems", "answers", "lost", "levels": {level: the
same}}}}, "paired": {name: {"greedy"|"sampled": against the first policy: "questions", "questions_left_out",
"calls_cut", "calls_difference", "calls_difference_stderr", "accuracy_difference_points",
"accuracy_difference_points_stderr", "productivity_gain", "by_tool": {tool: those about calls}}}}.

"by_tool" has every tool of the run. Its calls and productivity are those of one tool over all answers (TC and TP of
OTC-PO), its accuracy that of the answers that call it. Tables show it where a run has several tools.

Answers that the sandbox lost are asked again once. "lost" are those still missing; "answers" are those that
the figures rest on. Where more than `Schedule.eval_max_lost_fraction` are lost (1 %) there are counts and no
figures, and the exit code is 1.
Without --problems 400 questions of the task's test split are asked, and all of the sets of --data; `--problems all`
asks the whole test split; `--sampling greedy` leaves the other way out, in the tables and in the JSON.
"""

import argparse
import json
from typing import Literal

from experiments import entry

USUAL_PROBLEMS = 400  # of a test split, where --problems says nothing


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        required=True,
        help="an RL run file: task, renderer, engine; further ones are overlays: they win over it",
    )
    parser.add_argument(
        "--gin_param", action="append", default=[], help="one binding, may be repeated"
    )
    parser.add_argument(
        "--policy",
        action="append",
        required=True,
        help="NAME=WEIGHTS, or WEIGHTS: a run such as runs/mine, a step such as runs/mine@100, a Hugging Face "
        "directory, a .gguf file, or org/name on the hub; may be repeated",
    )
    entry.add_data_flag(
        parser, "test set in place of the task's test split; may be repeated", is_repeated=True
    )
    parser.add_argument(
        "--problems",
        type=_number,
        metavar="N|all",
        help=f"questions of the test split ({USUAL_PROBLEMS}), or of each set of --data (all)",
    )
    parser.add_argument(
        "--sampling",
        choices=("greedy", "sampled"),
        action="append",
        help="one of both ways alone, as --sampling greedy (both)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    entry.add_tool_flag(parser)
    parser.add_argument(
        "--html", type=entry.local_path, help="write tables and some trajectories here"
    )
    entry.add_json_flag(parser, "write the figures here as well")
    return parser.parse_args()


def _number(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1, or all")
    return int(text)


def _count(said: int | Literal["all"] | None, data: list[str]) -> int | None:
    """How many questions; None: all, which is the rule for sets of --data."""
    if said is None:
        return None if data else USUAL_PROBLEMS
    return None if said == "all" else said


def main() -> None:
    arguments = parse()
    from jaxtool.config.loader import operative_config
    from jaxtool.core.files import write_text
    from jaxtool.report.page import write_report
    from jaxtool.study import compare
    from jaxtool.train import run_data, run_files, run_tools

    config = run_files.load_rl_run(arguments.gin_file, arguments.gin_param)
    config = run_tools.with_functions(config, arguments.tool, arguments.mcp)
    config = run_data.with_test_data(config, arguments.data)
    problems = _count(arguments.problems, arguments.data)
    policies = named_policies(arguments.policy)
    comparison = compare.compare(
        config,
        policies,
        problems=problems,
        seed=arguments.seed,
        sandbox_addresses=tuple(arguments.sandbox),
        search_addresses=tuple(arguments.search),
        samplings=tuple(dict.fromkeys(arguments.sampling or compare.SAMPLINGS)),
    )
    compare.print_tables(comparison)
    if arguments.html:
        report = compare.comparison_report(
            comparison,
            title="Evaluation",
            subtitle=f"{_asked(problems, arguments.data)}, seed {arguments.seed}",
            headlines=(),
            metrics={},
            views=(),
            config=operative_config(config),
        )
        print(f"page {write_report(arguments.html, report)}")
    if arguments.json:
        variants = dict(comparison.variants)
        first = variants.pop(next(iter(variants)))
        record = comparison.as_json()
        record["paired"] = {
            variant: {way: compare.paired(both[way], first[way]) for way in both}
            for variant, both in variants.items()
        }
        write_text(arguments.json, json.dumps(record, indent=1))
    compare.check_rests_on_enough(comparison)


def named_policies(texts: list[str]) -> dict[str, str]:
    """Names of weights by what they are called in the tables, in order.

    Raises:
      ValueError: two of them are called the same.
    """
    from jaxtool.train.weights import default_name

    policies: dict[str, str] = {}
    for text in texts:
        name, is_named, weights = text.partition("=")
        if not is_named or "/" in name:  # a path may hold an equals sign
            name, weights = default_name(text), text
        if name in policies:
            raise ValueError(
                f"two policies are called {name!r}: say which is which, as --policy NAME={weights}"
            )
        policies[name] = weights
    return policies


def _asked(problems: int | None, data: list[str]) -> str:
    """Which questions, in a few words."""
    if not data:
        return f"{problems or 'all'} questions of the test split"
    return f"{'all' if problems is None else f'up to {problems}'} questions of {', '.join(data)}"


if __name__ == "__main__":
    entry.run(main)
