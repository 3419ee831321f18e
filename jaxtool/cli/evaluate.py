"""Evaluates policies on the same questions: avg@k, pass@k, maj@k, tool calls (TC), tool productivity (TP).

  python -m experiments.evaluate --policy base=runs/quickstart/cold_start --policy grpo=runs/quickstart/grpo \
      --samples 8 --workdir runs/eval

docs/evaluate.md defines every figure. --workdir keeps a record of every answer; the same command goes on after a stop.
Without it nothing is kept but tables, --json and --html. How the questions are asked comes from --gin_file, or else from
the first policy that is an RL run, or else from defaults that fit a model's own files.

--data NAME[=FILE] asks the questions of test sets, as aime24 or aime24=FILE, in place of the run's test split. Without
--problems 400 questions of the test split are asked, and all of the sets of --data; `--problems all` asks the whole test
split; `--sampling greedy` leaves the other way out, in the tables and in the JSON.

Several hosts share the questions: the same command on each, with the flags of "several hosts" and a --workdir that all see.

--json PATH writes {"variants": {name: {way: {"accuracy", "accuracy_stderr", "accuracy_lenient" (null unless the judge
reports it), "tool_calls", "tool_calls_stderr", "tool_productivity" (null without calls), "tool_calls_by_tool": {tool:
calls}, "by_tool": {tool: {"tool_calls", "tool_calls_stderr", "tool_productivity", "answers_with_call",
"accuracy_with_call" (null without such answers), "failed_fraction" of its calls (null without any)}}, "problems",
"answers", "lost", "lost_to" {who: how many}, "levels": {level: the same}}}}, "paired": {name: {way: against the first policy: "questions",
"questions_left_out", "calls_cut", "calls_difference", "calls_difference_stderr", "accuracy_difference_points",
"accuracy_difference_points_stderr", "productivity_gain", "by_tool": {tool: those about calls}}}, "figures": {name: {way:
{"questions", "samples", "answers", "lost", "accuracy_lenient", and as {"value", "low", "high", "over"}: "accuracy" (avg@k),
"accuracy_of_these", "score", "tool_calls", "tool_productivity", "tool_productivity_of_right", "policy_tokens", "tool_tokens",
"pass_at": {k: ...}, "majority_at": {k: ...}}}}, "behaviour": {"measured": {name: {way: {"answers", "lost",
"response_tokens", "policy_tokens", "calls", "code", "purposes", "searches", "need"}}}, "against_first": {name: {way:
{"first", "questions", "left_out", "shares", "intervals"}}}, "offloading": {name: {way: {"questions", "left_out",
"answers_without", "threshold", "curve", "needless", "offloaded", "auc", each of the three with its "..._interval", and
"gap"}}}}, "settings": what identifies the evaluation}. docs/behaviour.md explains "behaviour"; what there is nothing of is
null, and offloading needs --tools on,off.

--suite NAME asks rows of a paper's tables, which --policy names, and prints the paper's figures beside ours; --suite NAME
--list prints all rows with the commands that make them and reads no weights (docs/suites.md). --json PATH then has {"suite",
"title", "paper", "notes", "tables": [{"name", "caption", "citation", "unit": of accuracy, em and tp, "sampling": {"samples",
"temperature", "top_p", "note"}, "rows": [{"name", "method", "model", "tools", "calls", "note", "commands", "why" (there are
none), "answers" and "lost" (null: not run), "figures": [{"figure", "set", "paper": null where it is not reported, "ours":
null or {"value", "low", "high", "over"}}]}]}]}.

A way is "greedy" or "sampled"; with several call budgets, or with and without tools, it is "sampled_calls_2" and
"sampled_no_tools". "by_tool" has every tool of the run: TC and TP of that tool over all answers, and the accuracy of the
answers that call it. Tables show it where a run has several tools.

Answers that a tool or the judge lost are asked again once, and again by the same command. "lost" are those still missing,
"lost_to" {who: how many}; "answers" are those that the figures rest on. Where more than `Schedule.eval_max_lost_fraction`
are lost (1 %) there are counts and no figures, and the exit code is 1.
"""

import argparse
import json
from contextlib import ExitStack
from typing import Literal

from jaxtool.cli import entry

USUAL_PROBLEMS = 400  # of a test split, where --problems says nothing


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_gin_flags(parser, "an RL run file: task, renderer, engine", is_required=False)
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        help="NAME=WEIGHTS, or WEIGHTS: a run such as runs/mine, a step such as runs/mine@100, a Hugging Face "
        "directory, a .gguf file, or org/name on the hub; may be repeated",
    )
    entry.add_data_flag(parser, "test set in place of the task's test split")
    parser.add_argument(
        "--problems",
        type=_number,
        metavar="N|all",
        help=f"questions of the test split ({USUAL_PROBLEMS}), or of each set of --data (all)",
    )
    parser.add_argument(
        "--workdir", type=entry.local_path, help="keeps every answer here; the same command goes on"
    )
    _add_suite(parser)
    _add_conditions(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    entry.add_tool_flag(parser)
    parser.add_argument("--html", type=entry.local_path, help="write tables and every answer here")
    entry.add_figure_flags(parser)
    entry.add_json_flag(parser, "write the figures here as well")
    entry.add_host_flags(parser)
    arguments = parser.parse_args()
    _check(parser, arguments)
    return arguments


def _add_suite(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a paper's tables", "docs/suites.md")
    group.add_argument(
        "--suite",
        metavar="NAME|FILE",
        help="retool, torl, search_r1, otc, or a TOML file of yours; --policy then names its rows",
    )
    group.add_argument(
        "--list", action="store_true", help="print the suite's rows and commands, and end"
    )


_OF_A_SUITE = ("sampling", "k", "temperature", "top_p", "tools", "calls")


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with what contradicts itself among the flags."""
    if arguments.list and arguments.suite is None:
        parser.error("--list is for a suite: give --suite NAME as well")
    if not arguments.policy and not arguments.list:
        parser.error("--policy is required, but with --suite NAME --list")
    if arguments.suite is None:
        return
    said = [name for name in _OF_A_SUITE if getattr(arguments, name) is not None]
    said += ["samples"] * (arguments.samples != 1)
    said += [name for name in ("html", "svg", "csv", "latex") if getattr(arguments, name)]
    if said:
        parser.error(
            f"--{said[0]} beside --suite: how rows are asked is the suite's; leave it out, or copy the suite's file "
            "and change it there (docs/suites.md)"
        )
    if arguments.workdir is None and not arguments.list:
        parser.error("--suite needs --workdir, which keeps the rows that were asked")


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how each question is asked")
    group.add_argument(
        "--sampling",
        choices=("greedy", "sampled"),
        action="append",
        help="one of both ways alone, as --sampling greedy (both)",
    )
    group.add_argument(
        "--samples", type=int, default=1, metavar="K", help="sampled answers to each question (1)"
    )
    group.add_argument(
        "--k",
        type=_numbers,
        metavar="K,K,...",
        help="of pass@k and maj@k (1, 2, 4, ... up to the samples)",
    )
    group.add_argument("--temperature", type=float, help="of sampled answers (the run's)")
    group.add_argument(
        "--top_p", type=float, help="probability that sampling is cut to, in (0, 1] (the run's)"
    )
    group.add_argument(
        "--tools",
        type=_switches,
        metavar="on,off",
        help="with tools, or by the renderer's prompt without any, or both, as on,off",
    )
    group.add_argument(
        "--calls",
        type=_numbers,
        metavar="N,N,...",
        help="most calls of an answer, as 0,1,2,4: each is a row of the table (the run's)",
    )
    group.add_argument(
        "--max_response_tokens",
        type=_count,
        help="tokens of an answer, those of tools included (the run's)",
    )


def _number(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1, or all")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, as in 0,1,2")
    return tuple(map(int, text.split(",")))


def _switches(text: str) -> tuple[str, ...]:
    if not text or set(text.split(",")) - {"on", "off"}:
        raise argparse.ArgumentTypeError(f"{text!r} must be on, off, or on,off")
    return tuple(dict.fromkeys(text.split(",")))


def _asked_number(said: int | Literal["all"] | None, data: list[str]) -> int | None:
    """How many questions; None: all, which is the rule for sets of --data."""
    if said is None:
        return None if data else USUAL_PROBLEMS
    return None if said == "all" else said


def _check_several_hosts(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what several hosts cannot do together."""
    from jaxtool.parallel import hosts

    if hosts.is_single():
        return
    if arguments.suite is not None:
        raise ValueError("--suite asks its rows on one host: leave the flags of several hosts out")
    if arguments.workdir is None:
        raise ValueError("several hosts need --workdir, a directory that all of them see")


def evaluate_suite(arguments: argparse.Namespace) -> None:
    """The rows of --policy, and the tables of all that are there."""
    from jaxtool.core.files import write_text
    from jaxtool.study import suite_rows, suite_tables
    from jaxtool.study.suite_files import load_suite

    suite, workdir = load_suite(arguments.suite), arguments.workdir
    results = {}
    if workdir is not None:
        suite_rows.check_workdir(suite, workdir)
    if workdir is not None and not arguments.list:
        asked = suite_rows.SuiteAsked(
            policies=named_policies(arguments.policy),
            data=tuple(arguments.data),
            problems=None if arguments.problems == "all" else arguments.problems,
            seed=arguments.seed,
            gin_files=tuple(arguments.gin_file),
            gin_params=tuple(arguments.gin_param),
            response_tokens=arguments.max_response_tokens,
            tools=tuple(arguments.tool),
            mcp=tuple(arguments.mcp),
        )
        suite_rows.run_rows(
            suite,
            suite_rows.plan_rows(suite, asked),
            workdir,
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
        )
    if workdir is not None:
        results = suite_rows.results_of_rows(suite, workdir)
    suite_tables.print_suite(suite, results)
    if arguments.json:
        write_text(arguments.json, json.dumps(suite_tables.as_json(suite, results), indent=1))
    suite_rows.check_rests_on_enough(results)


def main() -> None:
    arguments = parse()
    entry.join_hosts(arguments)
    _check_several_hosts(arguments)
    if arguments.suite is not None:
        evaluate_suite(arguments)
        return
    from jaxtool.core.files import write_text
    from jaxtool.core.locks import temporary_directory
    from jaxtool.parallel import hosts
    from jaxtool.rundir.run_start import Launch
    from jaxtool.study import (
        comparison_tables,
        evaluating,
        evaluation_config,
        evaluation_plan,
        record_tables,
        suite_rows,
    )
    from jaxtool.train import run_data, run_tools

    if arguments.workdir is not None:
        suite_rows.check_is_no_suite(arguments.workdir)
    policies = named_policies(arguments.policy)
    problems = _asked_number(arguments.problems, arguments.data)
    asked = evaluation_plan.Asked(
        data=", ".join(arguments.data),
        problems=problems,
        seed=arguments.seed,
        samples=arguments.samples,
        samplings=tuple(dict.fromkeys(arguments.sampling or evaluation_plan.SAMPLINGS)),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        tools=arguments.tools,
        calls=arguments.calls,
        ks=arguments.k,
    )
    config, files = evaluation_config.evaluated_config(
        *(arguments.gin_file, arguments.gin_param, policies, arguments.data),
        problems=problems,
        seed=arguments.seed,
        response_tokens=arguments.max_response_tokens,
    )
    config = run_tools.with_functions(config, arguments.tool, arguments.mcp)
    config = run_data.with_test_data(config, arguments.data)
    plan = evaluation_plan.plan_evaluation(config, policies, asked)
    with ExitStack() as stack:
        workdir = arguments.workdir
        if workdir is None:
            workdir = stack.enter_context(temporary_directory("jaxtool-evaluation-"))
        evaluating.run_evaluation(
            plan,
            workdir,
            launch=Launch(files=files),
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
        )
        if not hosts.is_first():
            return  # the first one reads what all of them wrote
        results = record_tables.results_of(workdir, asked.ks)
        comparison_tables.print_tables(results.comparison)
        record_tables.print_figures(results)
        record_tables.print_behaviour(results)
        subtitle = f"{_asked(problems, arguments.data)}, seed {arguments.seed}"
        if arguments.html:
            print(
                f"page {record_tables.write_page(arguments.html, results, plan.config, subtitle)}"
            )
    if any((arguments.svg, arguments.csv, arguments.latex)):
        report = record_tables.evaluation_report(results, plan.config, subtitle)
        entry.write_figures(arguments, report)
    if arguments.json:
        write_text(arguments.json, json.dumps(results.as_json(), indent=1))
    if arguments.workdir:
        print(f"answers {arguments.workdir}")
    comparison_tables.check_rests_on_enough(results.comparison)


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
