"""`python -m jaxtool.report WORKDIR`: the report of a run, of several runs, or of an evaluation, from its files.

A page that holds more than these files (tables of a test, a comparison) is not replaced: --output writes beside it,
--force replaces it.

`python -m jaxtool.report PAGE --figures DIR` writes every chart of a page as SVG and every table as CSV and LaTeX; with
a run's directory in place of a page it takes those of the run's files. --svg, --csv and --latex write one kind each.
"""

import argparse
import pathlib
from collections.abc import Sequence

from jaxtool.core.bucket_names import check_local
from jaxtool.report.figure_files import report_of_page, write_figures
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
        "workdir",
        help="directory of a run, of several runs to compare, or of an evaluation; or a page, for its figures",
    )
    parser.add_argument("--output", help=f"the page; WORKDIR/{REPORT_NAME} by default")
    parser.add_argument("--force", action="store_true", help="replace a page that holds more")
    parser.add_argument("--figures", help="directory for all three kinds")
    for kind, what in (("svg", "charts"), ("csv", "tables"), ("latex", "tables")):
        parser.add_argument(f"--{kind}", help=f"directory for the {what} alone")
    arguments = parser.parse_args(argv)
    places = {
        kind: getattr(arguments, kind) or arguments.figures for kind in ("svg", "csv", "latex")
    }
    is_page = pathlib.Path(arguments.workdir).is_file()
    if is_page and not any(places.values()):
        parser.error(f"{arguments.workdir} is a page: say where its figures go, as --figures DIR")
    try:
        for name, place in (("WORKDIR", arguments.workdir), ("--output", arguments.output)):
            check_local(place or "", name)
        for kind, place in places.items():
            check_local(place or "", f"--{kind}")
        report = (report_of_page if is_page else report_of_workdir)(arguments.workdir)
        files = write_figures(
            report, **{kind: place and pathlib.Path(place) for kind, place in places.items()}
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if any(places.values()):
        print(f"{len(files)} files in {', '.join(dict.fromkeys(filter(None, places.values())))}")
        return
    output = pathlib.Path(arguments.output or pathlib.Path(arguments.workdir) / REPORT_NAME)
    if not arguments.force and (lost := lost_by(output, report)):
        parser.error(f"{refusal(output, lost)}; write beside it with --output, or pass --force")
    try:
        print(write_report(output, report))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
