"""Tables on terminals that are too narrow for them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table
    from rich.text import Text


def records(table: "Table") -> "Iterator[Text]":
    """Yield each row as lines of a column's name and its cell, and an empty line behind them.

    Args:
        table: whose cells are texts; empty ones are left out.
    """
    from rich.text import Text

    heads = [str(column.header) for column in table.columns]
    widest = max(map(len, heads))
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for head, cell in zip(heads, row, strict=True):
            if str(cell):
                yield Text(f"{head:{widest}}  {cell}")
        yield Text()
