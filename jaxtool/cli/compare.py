"""Compares policies of finished evaluations on the same questions: differences with intervals, behaviour, flipped answers.

  python -m experiments.compare runs/eval:base runs/eval:last [--html PATH] [--show 3] [--csv DIR] [--latex DIR]

A side is [NAME=]RUN:POLICY, where RUN is the --workdir of experiments.evaluate; with commas it is one policy of each seed:
`grpo=runs/e0:grpo,runs/e1:grpo otc=runs/e0:otc,runs/e1:otc`. RUN alone is all of its policies. Every side is compared with
the first, under every condition that all were asked under. Nothing is asked again and no weight is read; docs/compare.md
says what every column means.

--json PATH writes {"sides": {name: [RUN:POLICY of each seed]}, "notes": [what differs, what is compared with nothing],
"compared": [{"new", "old": names, "condition", "seeds", "questions", "questions_with_lost", "questions_only_new",
"questions_only_old", "figures": {"accuracy"|"tool_calls"|"policy_tokens"|"tool_productivity": {"old", "new", "difference"
(null where undefined), "intervals": [{"low", "high", "over"}] of the difference}}, "test": {"name", "better", "worse", "p",
"p_holm"}, "behaviour": {"ME"|"LE"|"MA"|"LA"|"AE": share}, "flipped": [{"seed", "problem_id", "old", "new": [is right, of
each answer]}]}]}. Shares and accuracy are from 0 to 1 there.
"""

import argparse
import json
from pathlib import Path

from jaxtool.cli import entry

ROWS = 10  # of a table on the console; the page and the files have all


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="[NAME=]RUN[:POLICY]",
        help="two policies or more, the first is what others are compared with; commas join seeds",
    )
    parser.add_argument(
        "--may_differ",
        action="append",
        default=[],
        metavar="SETTING",
        help="a setting in which the evaluations may differ, such as renderer; it is said beside the figures; may be "
        "repeated",
    )
    parser.add_argument(
        "--show",
        type=int,
        default=0,
        metavar="N",
        help="print both answers to the first N questions of each comparison that flipped (0)",
    )
    parser.add_argument(
        "--html",
        type=entry.writable,
        metavar="PATH",
        help="write the page here, answers side by side",
    )
    entry.add_json_flag(parser, "write the figures here as well")
    entry.add_figure_flags(parser)
    arguments = parser.parse_args()
    if arguments.show < 0:
        parser.error(f"--show {arguments.show} must be 0 or more questions")
    return arguments


def main() -> None:
    arguments = parse()
    from jaxtool.core.files import write_text
    from jaxtool.report.console_tables import print_tables
    from jaxtool.report.page import write_report
    from jaxtool.study import paired_tables, side_by_side
    from jaxtool.study.compared_sides import parse_sides
    from jaxtool.study.policy_comparison import compare_policies

    found = compare_policies(parse_sides(arguments.sides), arguments.may_differ)
    for note in found.notes:
        print(f"note: {note}")
    for one in found.compared:
        print(f"\n{one.title}")
        print_tables(paired_tables.tables_of(one), max_rows=ROWS)
    print("\nall comparisons")
    print_tables(paired_tables.summary_tables(found))
    if arguments.show and not side_by_side.print_pairs(found, arguments.show):
        print("no question flipped: there is nothing to show")
    page = paired_tables.comparison_page(found, side_by_side.sections(found))
    if arguments.html:
        print(f"page {write_report(Path(arguments.html), page)}")
    entry.write_figures(arguments, page)
    if arguments.json:
        write_text(arguments.json, json.dumps(found.as_json(), indent=1))


if __name__ == "__main__":
    entry.run(main)
