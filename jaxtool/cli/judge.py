"""Judges the responses of a file: what a data set and a judge make of them, before anything is trained.

  python -m experiments.judge --judge math --cases cases.jsonl

A row of the file holds `gold` (or `answer`): a text, a number, or a list of acceptable ones; and `response`:
what a policy wrote, with its tag and box. Optional are `id`, `want` (true or false), `judge` in place of the
flag, and `note`: a row whose `want` is disputed, which is printed and does not count.

Judges: math, exact_match, f1, choice, unit_tests, calls, or MODULE:FUNCTION for your own. Exits with 1 where a verdict
differs from `want`.

--json PATH writes {"cases": [{"id", "got": true or false, "want": null, true or false, "how", "score", "answer":
what was judged or null, "judge", "counts": whether it is compared with want}], "differ": how many are not as wanted}.
"""

import argparse
import json
import sys

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", default="math", help="for rows that name none")
    parser.add_argument("--cases", type=entry.input_path, required=True, help="JSON lines")
    parser.add_argument(
        "--renderer",
        help="template whose answer tag and box count; without it <answer> and \\boxed",
    )
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running server, for unit_tests"
    )
    parser.add_argument("--quiet", action="store_true", help="print only what is not as wanted")
    entry.add_json_flag(parser, "write the verdicts here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.core.files import write_text
    from jaxtool.judges import case_files
    from jaxtool.judges.answer_format import AnswerFormat
    from jaxtool.renderers.renderer import load_renderer

    rows = case_files.read_cases(arguments.cases, arguments.judge)
    form = load_renderer(arguments.renderer).answer if arguments.renderer else AnswerFormat()
    outcomes = case_files.judge_rows(rows, form, tuple(arguments.sandbox))
    for outcome in outcomes:
        if outcome.differs or not arguments.quiet:
            print(outcome.line())
    differ = sum(outcome.differs and outcome.counts for outcome in outcomes)
    wanted = sum(outcome.want is not None and outcome.counts for outcome in outcomes)
    right = sum(outcome.got for outcome in outcomes)
    print(f"{len(outcomes)} rows, {right} right; {wanted - differ} of {wanted} as wanted")
    if arguments.json:
        record = {"cases": [outcome.as_json() for outcome in outcomes], "differ": differ}
        write_text(arguments.json, json.dumps(record, indent=1))
    if differ:
        sys.exit(1)


if __name__ == "__main__":
    entry.run(main)
