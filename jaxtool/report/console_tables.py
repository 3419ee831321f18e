"""Tables of a report on the console. Cells may hold untrusted text: it is neither markup nor control characters there."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jaxtool.report.page import Table
from jaxtool.report.table_files import cell_text, is_figure, printable


def print_tables(
    tables: Iterable[Table], console: Console | None = None, *, max_rows: int = 60
) -> None:
    """Prints tables with their notes; of a long one the first `max_rows`, which is said."""
    console = console or Console()
    for table in tables:
        rows = table.rows[:max_rows]
        note = table.note
        if len(rows) < len(table.rows):
            note = f"{note} Shown are {len(rows)} of {len(table.rows)} lines.".strip()
        rich = RichTable(
            title=Text(table.title),
            title_justify="left",
            caption=Text(note) if note else None,
            caption_justify="left",
        )
        for index, column in enumerate(table.columns):
            is_right = all(is_figure(row[index]) for row in rows)
            rich.add_column(Text(column), justify="right" if is_right else "left", overflow="fold")
        for row in rows:
            rich.add_row(*(Text(printable(cell_text(value))) for value in row))
        console.print(rich)
