"""Makes cold-start demonstrations: text reasoning, rewritten by a model into reasoning with programs, and checked.

  python -m experiments.cold_start_data --source data/reasoning.jsonl --workdir runs/cold_start_data \\
      --endpoint http://127.0.0.1:8000/v1 --model my-model --budget_tokens 2000000 --dry_run

  python -m experiments.cold_start_data --source data/reasoning.jsonl --workdir runs/cold_start_data \\
      --policy Qwen2.5-7B-Instruct --max_tokens 4096

ReTool's first half (arXiv 2504.11536, section 2.2; docs/cold_start_data.md). A row of --source holds `question`,
`reasoning` and `answer`. Any endpoint with POST {base}/chat/completions will do. Its key comes from the environment
(--api_key_variable) and is never written. --policy in place of --endpoint rewrites with weights of any name
(docs/weights.md) on this machine's devices. --dry_run says what it would cost and asks nothing. The same command resumes
after a kill, a full budget or an outage: what was answered is never asked again.

Writes into --workdir: demonstrations.jsonl for `sft`, rejected.jsonl with a reason for each row, journal.jsonl.

--json PATH writes {"rows", "kept", "calls", "replaced_outputs", "without_reference", "rejected", "lost", "reasons":
{"step/reason": rows}, "not_asked": replies that the budget left out, "prompt_tokens", "written_tokens": as replies report
them, "uncertain_tokens": of requests without a reply, at most, "money": of all three, "failed_attempts": {status or error:
count}}; with --dry_run {"rows", "screened_out", "requests", "recorded", "prompt_tokens": expected, "most_tokens",
"most_money", "spent_tokens", "spent_money"}. The exit code is 1 if rows are lost to the infrastructure.
"""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from jaxtool.cli import check_flags, entry, rewriter_flags

if TYPE_CHECKING:
    from jaxtool.cold_start.making import Made, Order, Plan


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", type=entry.input_path, required=True, help="JSON lines of text reasoning"
    )
    parser.add_argument(
        "--workdir", type=entry.local_path, required=True, help="directory of this data set"
    )
    parser.add_argument(
        "--layout",
        choices=("plain", "gsm8k", "open_thoughts"),
        default="plain",
        help="where a row keeps question, reasoning and answer",
    )
    for part in ("question", "reasoning", "answer"):
        parser.add_argument(f"--{part}_key", help=f"path to the {part}, in place of the layout's")
    parser.add_argument(
        "--answer_in",
        choices=("whole", "boxed", "hashes"),
        help="what of the answer's text is the answer: all, the last \\boxed, what follows ####",
    )
    parser.add_argument("--rows", type=int, help="only the first rows of the file")
    parser.add_argument("--samples", type=int, default=1, help="replies for each row")
    parser.add_argument("--prompt", type=entry.input_path, help="template of your own")
    parser.add_argument("--dry_run", action="store_true", help="say what it costs, and end")
    rewriter_flags.add(parser)
    check_flags.add(parser)
    entry.add_json_flag(parser, "write the counts here as well")
    arguments = parser.parse_args()
    rewriter_flags.check(parser, arguments)
    return arguments


def order_of(arguments: argparse.Namespace) -> "Order":
    from jaxtool.cold_start.making import Order
    from jaxtool.cold_start.source_rows import LAYOUTS

    keys = {part: getattr(arguments, f"{part}_key") for part in ("question", "reasoning", "answer")}
    changed = keys | {"answer_in": arguments.answer_in}
    changed = {name: value for name, value in changed.items() if value is not None}
    return Order(
        source=arguments.source,
        layout=dataclasses.replace(LAYOUTS[arguments.layout], **changed),
        workdir=arguments.workdir,
        rewriter=rewriter_flags.rewriter_of(arguments),
        prices=rewriter_flags.prices_of(arguments),
        rows=arguments.rows,
        samples=arguments.samples,
        prompt=arguments.prompt,
    )


def dry_run(planned: "Plan") -> dict[str, float]:
    """Prints the estimate; its record."""
    found, prices = planned.estimate(), planned.order.prices
    rows = len(planned.screened.rows)
    record = {
        "rows": rows + len(planned.screened.rejected),
        "screened_out": len(planned.screened.rejected),
        "requests": found.requests,
        "recorded": found.recorded,
        "prompt_tokens": found.prompt_tokens,
        "most_tokens": found.most.total,
        "most_money": prices.of(found.most),
        "spent_tokens": found.spent.total,
        "spent_money": prices.of(found.spent),
    }
    print(
        f"rows {record['rows']}, of which {record['screened_out']} fall out before they are asked"
    )
    print(f"requests {found.requests}, and {found.recorded} replies are recorded already")
    print(f"prompt tokens about {found.prompt_tokens}")
    print(
        f"tokens at most {found.most.total}, of which {found.most.written} written: each reply at its limit"
    )
    print(f"money at most {record['most_money']:.4f}; spent so far {record['spent_money']:.4f}")
    return record


def report(made: "Made", order: "Order") -> dict[str, object]:
    """Prints what became of the rows; its record."""
    from rich.console import Console

    from jaxtool.cold_start.summary import print_summary

    rewritten, prices = made.rewritten, order.prices
    print_summary(made.summary, Console())
    money = prices.of(rewritten.spent + rewritten.uncertain)
    print(
        f"tokens: {rewritten.spent.prompt} read, {rewritten.spent.written} written, at most "
        f"{rewritten.uncertain.total} more for requests without a reply; money {money:.4f}"
    )
    if rewritten.failures:
        failed = ", ".join(f"{name} {count}" for name, count in rewritten.failures.items())
        print(f"attempts that came to nothing: {failed}")
    if rewritten.not_asked:
        print(f"the budget ended before {rewritten.not_asked} replies were asked for")
    print(f"demonstrations {made.demonstrations}\nrejected {made.rejected}")
    return made.summary.as_json() | {
        "not_asked": rewritten.not_asked,
        "prompt_tokens": rewritten.spent.prompt,
        "written_tokens": rewritten.spent.written,
        "uncertain_tokens": rewritten.uncertain.total,
        "money": money,
        "failed_attempts": rewritten.failures,
    }


def main() -> None:
    arguments = parse()
    from rich.console import Console

    from jaxtool.cold_start import making, pipeline
    from jaxtool.core.files import write_text
    from jaxtool.rundir.progress import progress_of

    order = order_of(arguments)
    planned = making.plan(order, pipeline.read_options(check_flags.options_of(arguments)))
    rewriter_flags.warn(arguments, order.rewriter)
    if arguments.dry_run:
        record, is_whole = dry_run(planned), True
    else:
        budget = rewriter_flags.budget_of(arguments)
        todo = planned.estimate()
        total = todo.requests + todo.recorded
        # Console: given, because a display that asks for its host would start jax.
        with progress_of("replies", initial=todo.recorded, console=Console()) as told:
            made = making.make(
                planned,
                budget,
                sandbox_addresses=tuple(arguments.sandbox),
                on_row=lambda done: told(done, total, ""),
            )
        record, is_whole = report(made, order), not made.summary.lost
    if arguments.json:
        write_text(arguments.json, json.dumps(record, indent=1))
    sys.exit(not is_whole)


if __name__ == "__main__":
    entry.run(main)
