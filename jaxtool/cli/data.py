"""Looks at a file of problems before anything is trained on it; reads no weights.

  python -m experiments.data check gsm8k_train.jsonl --layout gsm8k --against gsm8k=gsm8k_test.jsonl --tokenizer Qwen3-8B
  python -m experiments.data check BytedTsinghua-SIA/DAPO-Math-17k@train --layout dapo_math_17k --judge math
  python -m experiments.data layouts

`check` says how many rows and repeats there are, which rows cannot be read, what of the test sets of --against stands
in the file (n-grams of words: --ngram, --share), what kinds of answers there are and which judge fits, and the longest
prompts by a tokenizer. It ends with 1 where a row cannot be read or --judge cannot judge the answers.
`layouts` lists the layouts that have a name. Layouts and files: docs/data.md.

--json PATH writes {"source", "layout", "rows", "questions", "repeats", "conflicts", "unreadable", "faults": [line],
"levels": {level: problems}, "answers": {"kinds": {kind: problems}, "several", "fitting": judge or null, "judge": line
or null, "is_refused"}, "contamination": [{"set", "questions", "contaminated", "same_question", "n", "least_share",
"examples": [{"test", "found", "share"}]}], "prompts": null or {"renderer", "median", "p99", "longest": [[tokens,
problem id]]}, "examples": [{"problem_id", "question", "references", "level"}]}; of `layouts` {name: {"about", "train",
"test"}}.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jaxtool.cli import entry


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="look at a file")
    check.add_argument(
        "file", help="parquet, JSONL, JSON, CSV, or org/name[:config][@split] on the hub"
    )
    check.add_argument(
        "--layout",
        default="plain",
        help="a name that `layouts` lists, or 'question=prompt[-1].content, answer=reward_model.ground_truth'",
    )
    check.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="a test set, as aime24 or aime24=FILE; may be repeated",
    )
    check.add_argument("--ngram", type=int, default=13, help="words of an n-gram; 13 is GPT-3's")
    check.add_argument(
        "--share",
        type=float,
        default=0.0,
        help="of a test question's n-grams that the file must hold; 0: one is enough",
    )
    check.add_argument(
        "--judge", help="math, exact_match, f1, choice, unit_tests, calls or MODULE:FUNCTION"
    )
    check.add_argument(
        "--tokenizer",
        help="a Hugging Face directory, a .gguf file, a SentencePiece .model file, or smollm2",
    )
    check.add_argument(
        "--renderer", default="retool", help="template of the prompts that are measured"
    )
    entry.add_json_flag(check, "write the figures here as well")
    layouts = commands.add_parser("layouts", help="list the layouts that have a name")
    entry.add_json_flag(layouts, "write the list here as well")
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Prints what the file holds; returns it as JSON, and whether all of it can be used."""
    from jaxtool.data.named_sets import evaluation_data
    from jaxtool.judges.case_files import judge_named
    from jaxtool.report import data_check

    judge = None if arguments.judge is None else judge_named(arguments.judge)
    sets = evaluation_data(arguments.against)
    # 1) The rows.
    readable = data_check.read_all(arguments.file, arguments.layout)
    found, problems = readable.found, readable.found.problems
    _say("rows", str(found))
    if readable.unreadable:
        _say("unreadable", f"{readable.unreadable:,} rows, the first of them:", *readable.faults)
    record: dict[str, Any] = {
        "source": arguments.file,
        "layout": arguments.layout,
        "rows": found.rows + readable.unreadable,
        "questions": len(problems),
        "repeats": found.repeats,
        "conflicts": found.conflicts,
        "unreadable": readable.unreadable,
        "faults": list(readable.faults),
    }
    if not problems:
        _write(arguments.json, record)
        raise ValueError(f"{arguments.file}: no row can be read: {readable.faults[0]}")
    record["levels"] = data_check.levels_of(problems)
    # 2) The answers.
    answers = data_check.check_answers(problems, judge)
    record["answers"] = vars(answers)
    _say("levels", ", ".join(f"{n:,} {level}" for level, n in record["levels"].items()))
    _say("answers", str(answers))
    _say("judge", f"{answers.fitting or 'none of ours'} fits", *filter(None, [answers.judge]))
    # 3) The test sets.
    record["contamination"] = []
    for each in data_check.check_contamination(
        problems, sets, n=arguments.ngram, least_share=arguments.share
    ):
        row = data_check.contamination_row(each)
        record["contamination"].append(row)
        shown = [
            f"{e['share']:.0%}  {_short(e['test'])}  |  {_short(e['found'])}"
            for e in row["examples"]
        ]
        _say("test set", str(each), *shown)
    # 4) The prompts.
    record["prompts"] = None
    if arguments.tokenizer is not None:
        lengths = data_check.prompt_lengths(problems, *_text(arguments))
        record["prompts"] = vars(lengths)
        _say("prompts", str(lengths))
    # 5) Examples.
    record["examples"] = [
        {
            "problem_id": p.problem_id,
            "question": p.question,
            "references": p.references,
            "level": p.level,
        }
        for p in data_check.examples_of(problems)
    ]
    shown = [
        f"{_short(e['question'], 100)}  ->  {' | '.join(e['references'])}"
        for e in record["examples"]
    ]
    _say("examples", *shown)
    return record, not readable.unreadable and not answers.is_refused


def _text(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The renderer and the tokenizer of the flags."""
    from jaxtool.data.tokenizer_files import tokenizer_named
    from jaxtool.renderers.renderer import load_renderer

    return load_renderer(arguments.renderer), tokenizer_named(arguments.tokenizer)


def list_layouts() -> dict[str, dict[str, str | None]]:
    """Prints the layouts that have a name."""
    from jaxtool.data.layouts import PRESETS

    for name, preset in PRESETS.items():
        where = ", ".join(filter(None, (preset.train, preset.test))) or "a file of yours"
        print(f"{name:15}{preset.about}\n{'':15}{where}")
    return {
        name: {"about": preset.about, "train": preset.train, "test": preset.test}
        for name, preset in PRESETS.items()
    }


def _say(name: str, *lines: str) -> None:
    for number, line in enumerate(lines):
        print(f"{name if not number else '':13}{line}", flush=True)


def _short(text: str, length: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def _write(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        from jaxtool.core.files import write_text

        write_text(path, json.dumps(record, indent=1) + "\n")


def main() -> None:
    arguments = parse()
    if arguments.command == "layouts":
        _write(arguments.json, list_layouts())
        return
    record, is_usable = check(arguments)
    _write(arguments.json, record)
    if not is_usable:
        sys.exit(1)


if __name__ == "__main__":
    entry.run(main)
