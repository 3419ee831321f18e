"""Right answers of your own runs as demonstrations: rejection sampling, and the answers with the fewest calls.

  python -m experiments.select_demonstrations --run runs/mine --order fewest_calls --out own_traces.jsonl

Reads the sampled answers that RL runs log, and with --evaluation those of an evaluation's work directory. Of each question it takes those that --order prefers. Check the file next:
`python -m experiments.check_demonstrations own_traces.jsonl`.

--json PATH writes {"answers": read, "chosen", "questions": of those chosen, "calls": of those chosen, "left_out":
{reason: answers}}.
"""

import argparse
import json

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=entry.local_path,
        action="append",
        default=[],
        help="work directory; may be repeated",
    )
    parser.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="WORKDIR[:POLICY]",
        help="work directory of experiments.evaluate, of which answers with tools are taken; may be repeated",
    )
    parser.add_argument(
        "--out", type=entry.writable, required=True, help="the file of demonstrations"
    )
    parser.add_argument(
        "--order",
        choices=("fewest_calls", "shortest", "latest"),
        default="fewest_calls",
        help="which right answers to a question are taken first",
    )
    parser.add_argument("--per_question", type=int, default=1)
    parser.add_argument(
        "--min_calls", type=int, default=0, help="1: only answers that use the tool"
    )
    parser.add_argument("--max_calls", type=int, help="answers with more are left out")
    parser.add_argument("--first_step", type=int, default=0, help="of the run")
    parser.add_argument("--last_step", type=int, help="of the run; without it all")
    entry.add_json_flag(parser, "write the counts here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.cold_start import selection
    from jaxtool.core.files import write_text

    settings = selection.SelectionSettings(
        order=arguments.order,
        per_question=arguments.per_question,
        min_calls=arguments.min_calls,
        max_calls=arguments.max_calls,
        first_step=arguments.first_step,
        last_step=arguments.last_step,
    )
    if not arguments.run and not arguments.evaluation:
        raise ValueError("whose answers? Name a run by --run, or an evaluation by --evaluation")
    answers = [answer for run in arguments.run for answer in selection.read_run(run)]
    for name in arguments.evaluation:
        answers += selection.read_evaluation(name)
    selected = selection.select(answers, settings)
    rows = [selection.demonstration_row(answer) for answer in selected.chosen]
    if not rows:
        left_out = ", ".join(f"{reason} {count}" for reason, count in selected.left_out.items())
        raise ValueError(f"no answer of {len(answers)} is chosen ({left_out}): nothing is written")
    write_text(arguments.out, "".join(json.dumps(row) + "\n" for row in rows))
    calls = sum(answer.calls for answer in selected.chosen)
    questions = len({answer.question for answer in selected.chosen})
    print(
        f"{len(rows)} of {len(answers)} answers, to {questions} questions, with {calls} calls: {arguments.out}"
    )
    for reason, count in selected.left_out.items():
        print(f"  left out: {reason} {count}")
    if arguments.json:
        record = {
            "answers": len(answers),
            "chosen": len(rows),
            "questions": questions,
            "calls": calls,
            "left_out": dict(selected.left_out),
        }
        write_text(arguments.json, json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.run(main)
