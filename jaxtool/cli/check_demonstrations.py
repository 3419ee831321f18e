"""Checks a file of demonstrations: their form, what their programs print, their answers, repetitions, contamination.

  python -m experiments.check_demonstrations data/retool_sft.jsonl --question_after "*user question:*" \\
      --against problem=data/aime24.jsonl --out checked.jsonl

A row of FILE holds `messages`, as `sft` reads them (docs/data.md), and may hold its reference `answer`. Rows without
one are compared with --answers, by their question; where that has none either, the answer is not compared and a line
says so. --out gets the rows that pass, with the sandbox's outputs in them; --rejected the others with their reasons.

--json PATH writes {"rows", "kept", "calls": of those kept, "replaced_outputs", "without_reference", "rejected", "lost":
rows of which the infrastructure left nothing known, "reasons": {"step/reason": rows}, "entered": {step: rows that came
to it}}. The exit code is 1 if rows are lost.
"""

import argparse
import json
import sys

from jaxtool.cli import check_flags, entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=entry.input_path, metavar="FILE", help="JSON lines of messages"
    )
    parser.add_argument(
        "--question_after", help="the question is what follows this in the user's turn"
    )
    parser.add_argument("--answer_key", default="answer", help="of the reference in a row")
    parser.add_argument(
        "--answers", type=entry.input_path, help="JSON lines of `question` and `answer`"
    )
    parser.add_argument("--out", type=entry.writable, help="write the rows that pass here")
    parser.add_argument(
        "--rejected", type=entry.writable, help="write the others here, with reasons"
    )
    check_flags.add(parser)
    entry.add_json_flag(parser, "write the counts here as well")
    arguments = parser.parse_args()
    if arguments.out and arguments.out.absolute() == arguments.file.absolute():
        parser.error(f"--out {arguments.out} is the file that is checked: name another one")
    return arguments


def main() -> None:
    arguments = parse()
    from rich.console import Console

    from jaxtool.cold_start import files, pipeline, source_rows, summary
    from jaxtool.core.files import write_text

    checker = pipeline.read_options(check_flags.options_of(arguments))
    references = {}
    if arguments.answers:
        references = files.read_references(arguments.answers, source_rows.SourceLayout())
    layout = files.DemonstrationLayout(
        answer_key=arguments.answer_key, question_after=arguments.question_after
    )
    candidates = files.read_candidates(arguments.file, layout, references)
    with pipeline.open_tools(checker, tuple(arguments.sandbox)) as tools:
        checked = checker.check(candidates, tools)
    if arguments.out:
        pipeline.write_demonstrations(arguments.out, checked, checker.renderer)
    if arguments.rejected:
        pipeline.write_rejected(arguments.rejected, checked.rejected, checked.lost)
    made = summary.summary_of(checked)
    summary.print_summary(made, Console())
    if arguments.json:
        record = made.as_json() | {"entered": dict(checked.entered)}
        write_text(arguments.json, json.dumps(record, indent=1))
    sys.exit(bool(checked.lost))


if __name__ == "__main__":
    entry.run(main)
