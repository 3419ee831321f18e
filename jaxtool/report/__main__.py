"""`python -m jaxtool.report WORKDIR`: rebuilds the report of a run from its files.

A page that holds more than these files (tables of a test, a comparison) is not replaced: --output writes beside it,
--force replaces it.
"""

import argparse
import pathlib
from collections.abc import Sequence

from jaxtool.core.bucket_names import check_local
from jaxtool.report.page import REPORT_NAME, report_of_workdir, write_report
from jaxtool.report.replacing import lost_by, refusal


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxtool.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", help="directory of a run, or of several runs to compare")
    parser.add_argument("--output", help=f"the page; WORKDIR/{REPORT_NAME} by default")
    parser.add_argument("--force", action="store_true", help="replace a page that holds more")
    arguments = parser.parse_args(argv)
    try:
        check_local(arguments.workdir, "WORKDIR")
        check_local(arguments.output or "", "--output")
        report = report_of_workdir(arguments.workdir)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    output = pathlib.Path(arguments.output or pathlib.Path(arguments.workdir) / REPORT_NAME)
    if not arguments.force and (lost := lost_by(output, report)):
        parser.error(f"{refusal(output, lost)}; write beside it with --output, or pass --force")
    print(write_report(output, report))


if __name__ == "__main__":
    main()
