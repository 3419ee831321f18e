"""`python -m jaxtool.report WORKDIR`: the report of a run, of several runs, or of an evaluation, from its files.

A page that holds more than these files (tables of a test, a comparison) is not replaced: --output writes beside it,
--force replaces it.
"""

import argparse
import pathlib
from collections.abc import Sequence

from jaxtool.report.page import REPORT_NAME, write_report
from jaxtool.report.replacing import lost_by, refusal
from jaxtool.report.run_page import report_of_workdir


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxtool.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "workdir", help="directory of a run, of several runs to compare, or of an evaluation"
    )
    parser.add_argument("--output", help=f"the page; WORKDIR/{REPORT_NAME} by default")
    parser.add_argument("--force", action="store_true", help="replace a page that holds more")
    arguments = parser.parse_args(argv)
    try:
        report = report_of_workdir(arguments.workdir)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    output = pathlib.Path(arguments.output or pathlib.Path(arguments.workdir) / REPORT_NAME)
    if not arguments.force and (lost := lost_by(output, report)):
        parser.error(f"{refusal(output, lost)}; write beside it with --output, or pass --force")
    try:
        print(write_report(output, report))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
