"""Lines and tables for a terminal, or for whoever reads its output in a file: nothing is cut, no column dropped."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDEST = 1000


def print_line(console: Console, line: str) -> None:
    """One line that is not broken, so that a path or a command can be copied from it."""
    console.print(Text(line), soft_wrap=True)


def table_of(columns: Sequence[str], names: int = 1) -> Table:
    """A table whose first columns are `names` and whose other columns are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        is_name = number < names
        table.add_column(
            Text(column), justify="left" if is_name else "right", no_wrap=not is_name, min_width=len(column) * is_name,
            overflow="fold",
        )  # fmt: skip
    return table


def print_table(console: Console, table: Table) -> None:
    """A table as wide as its longest words and all its numbers: a terminal that is narrower breaks the lines.

    Left to itself rich drops whole columns where they do not fit, and takes what is no terminal to have 80 characters.
    """
    wide = console.options.update(max_width=_WIDEST)
    for column in table.columns:
        if column.no_wrap:  # what has blanks is one word there, such as an interval
            cells = (column.header, *column.cells)
            column.min_width = max(Measurement.get(console, wide, cell).maximum for cell in cells)
    needed = Measurement.get(console, wide, table).minimum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)
