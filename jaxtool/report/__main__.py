"""`python -m jaxtool.report WORKDIR`: rebuilds the report of a run from its files."""

from jaxtool.report.page import main

if __name__ == "__main__":
    main()
