"""Makes cold-start demonstrations: text reasoning, rewritten by a model into reasoning with programs, and checked.

  python -m experiments.cold_start_data --source data/reasoning.jsonl --workdir runs/cold_start_data \\
      --endpoint http://127.0.0.1:8000/v1 --model my-model --budget_tokens 2000000 --dry_run

ReTool's first half (arXiv 2504.11536, section 2.2; docs/cold_start_data.md). A row of --source holds `question`,
`reasoning` and `answer`. Any endpoint with POST {base}/chat/completions will do. Its key comes from the environment
(--api_key_variable) and is never written. --dry_run says what it would cost and asks nothing. The same command resumes
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

from jaxtool.cli import check_flags, entry

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
    _add_endpoint(parser)
    check_flags.add(parser)
    entry.add_json_flag(parser, "write the counts here as well")
    return parser.parse_args()


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "endpoint", "OpenAI's chat completions, of whoever serves them"
    )
    group.add_argument("--endpoint", required=True, help="URL up to /chat/completions")
    group.add_argument("--model", required=True, help="name of the model there")
    group.add_argument(
        "--api_key_variable", default="OPENAI_API_KEY", help="of the environment, with the key"
    )
    group.add_argument("--max_tokens", type=int, default=8192, help="of one reply")
    group.add_argument(
        "--limit_name",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="how the endpoint calls that limit",
    )
    group.add_argument(
        "--temperature", type=float, default=0.7, help="negative: the endpoint's own is not touched"
    )
    group.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    group.add_argument("--timeout_s", type=float, default=600.0, help="of one attempt")
    group.add_argument("--attempts", type=int, default=6)
    group.add_argument("--use_proxy", action="store_true", help="that of HTTPS_PROXY")
    group.add_argument("--budget_tokens", type=int, help="read and written, over all starts")
    group.add_argument("--budget_money", type=float, help="over all starts; needs --prices")
    group.add_argument(
        "--prices",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("PROMPT", "WRITTEN"),
        help="money for a million tokens read and for a million written",
    )


def order_of(arguments: argparse.Namespace) -> "Order":
    from jaxtool.cold_start.chat_client import EndpointConfig
    from jaxtool.cold_start.making import Order
    from jaxtool.cold_start.source_rows import LAYOUTS
    from jaxtool.cold_start.spending import Prices

    keys = {part: getattr(arguments, f"{part}_key") for part in ("question", "reasoning", "answer")}
    changed = keys | {"answer_in": arguments.answer_in}
    changed = {name: value for name, value in changed.items() if value is not None}
    return Order(
        source=arguments.source,
        layout=dataclasses.replace(LAYOUTS[arguments.layout], **changed),
        workdir=arguments.workdir,
        endpoint=EndpointConfig(
            base_url=arguments.endpoint,
            model=arguments.model,
            api_key_variable=arguments.api_key_variable,
            max_tokens=arguments.max_tokens,
            limit_name=arguments.limit_name,
            temperature=None if arguments.temperature < 0 else arguments.temperature,
            timeout_s=arguments.timeout_s,
            attempts=arguments.attempts,
            concurrency=arguments.concurrency,
            uses_proxy=arguments.use_proxy,
        ),
        prices=Prices(prompt=arguments.prices[0], written=arguments.prices[1]),
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
    print(f"prompt tokens about {found.prompt_tokens} (one for three bytes)")
    print(
        f"tokens at most {found.most.total} (a prompt token for each byte, and "
        f"{planned.order.endpoint.max_tokens} written for each request)"
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
    from jaxtool.cold_start.spending import Budget
    from jaxtool.core.files import write_text
    from jaxtool.rundir.progress import ProgressDisplay

    order = order_of(arguments)
    planned = making.plan(order, pipeline.read_options(check_flags.options_of(arguments)))
    if order.endpoint.sends_key_in_the_clear:
        print(
            f"warning: the key in ${arguments.api_key_variable} goes over plain HTTP",
            file=sys.stderr,
        )
    if arguments.dry_run:
        record, is_whole = dry_run(planned), True
    else:
        budget = Budget(tokens=arguments.budget_tokens, money=arguments.budget_money)
        todo = planned.estimate()
        total = todo.requests + todo.recorded
        console = Console()  # given, because a display that asks for its host would start jax
        display = ProgressDisplay("replies", total, initial=todo.recorded, console=console)
        with display:
            made = making.make(
                planned,
                budget,
                sandbox_addresses=tuple(arguments.sandbox),
                on_row=display.update,
            )
        record, is_whole = report(made, order), not made.summary.lost
    if arguments.json:
        write_text(arguments.json, json.dumps(record, indent=1))
    sys.exit(not is_whole)


if __name__ == "__main__":
    entry.run(main)
