"""Flags that the commands which check demonstrations share."""

import argparse
from typing import TYPE_CHECKING

from jaxtool.cli import entry

if TYPE_CHECKING:
    from jaxtool.cold_start.pipeline import CheckOptions


def add(parser: argparse.ArgumentParser) -> None:
    """Flags of form, programs, answer, repetitions and contamination."""
    group = parser.add_argument_group("checks", "docs/cold_start_data.md says what each step wants")
    group.add_argument(
        "--renderer", default="retool", help="template with the tags, by name or path"
    )
    group.add_argument(
        "--judge", default="math", help="of the final answer, as experiments.judge knows it"
    )
    group.add_argument(
        "--outputs",
        choices=("must_equal", "replace"),
        default="must_equal",
        help="a written output must be what the program prints, or is replaced by it",
    )
    group.add_argument(
        "--state",
        choices=("stateless", "session"),
        default="stateless",
        help="each program starts from nothing, or those of a row share names",
    )
    group.add_argument(
        "--keep_errors", action="store_true", help="keep rows with programs that raise"
    )
    group.add_argument("--per_question", type=int, default=1, help="demonstrations of one question")
    group.add_argument(
        "--near",
        type=float,
        default=0.8,
        help="similarity from which two questions are the same; 0: only equal ones are",
    )
    group.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="[KEY=]FILE",
        help="an evaluation set, JSON lines with the question under KEY; may be repeated",
    )
    group.add_argument("--max_chars", type=int, default=100_000, help="of a response")
    group.add_argument(
        "--tokenizer", type=entry.input_path, help="directory of the policy's tokenizer"
    )
    group.add_argument("--row_tokens", type=int, help="longest row in tokens; needs --tokenizer")
    group.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )


def options_of(arguments: argparse.Namespace) -> "CheckOptions":
    """The options that the flags say."""
    from jaxtool.cold_start.checking import CheckSettings
    from jaxtool.cold_start.pipeline import CheckOptions
    from jaxtool.cold_start.running import RunSettings

    return CheckOptions(
        settings=CheckSettings(
            run=RunSettings(
                outputs=arguments.outputs,
                state=arguments.state,
                keeps_errors=arguments.keep_errors,
            ),
            max_chars=arguments.max_chars,
            per_question=arguments.per_question,
            near=arguments.near or None,
        ),
        renderer=arguments.renderer,
        judge=arguments.judge,
        against=tuple(arguments.against),
        tokenizer=arguments.tokenizer,
        row_tokens=arguments.row_tokens,
    )
