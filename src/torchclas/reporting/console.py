"""The one way to a terminal: text of ours is translated on its way, and text from strangers made printable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, cast

import rich.console
import rich.markup
import rich.table
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from torchclas.messages import label, say
from torchclas.text import printable

_WIDE = 160  # columns of a table that no terminal limits


def escape(text: str) -> str:
    """`text` as it is to be seen: on one line, nothing in it a command to the terminal or markup of ours.

    What the program says, such as an error, is translated; where that goes into a text, the text is, too.
    """
    return rich.markup.escape(say(printable(text)))


def verbatim(text: str) -> str:
    """`escape` for names of others, such as classes, which may read like something that the program says."""
    return rich.markup.escape(printable(text))


class Console(rich.console.Console):
    """Rich's, which obeys no text: also where `escape` was forgotten, nothing but line breaks has an effect."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, with texts translated; the cells of a table are as they were given."""
        super().print(*(say(item) if isinstance(item, str) else item for item in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text`, which `print` or the cell of a table was given, made printable line by line."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


class Table(rich.table.Table):
    """Rich's, with translated titles and headings."""

    def __init__(self, *, title: str | None = None, **options: Any) -> None:
        super().__init__(title=None if title is None else label(title), **options)

    def add_column(self, header: str = "", **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a column with the translated `header`."""
        super().add_column(label(header), **options)


def print_table(table: Table, console: Console) -> None:
    """Fit a table to a terminal; a pipe gets it whole."""
    (console if console.is_terminal else type(console)(file=console.file, width=_WIDE)).print(table)


def print_whole(table: Table, console: Console) -> None:
    """Tables fit themselves to a terminal; a pipe gets them whole, without the blanks that pad the last column."""
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(file=io.StringIO(), width=10_000)
    wide.print(table)
    console.file.writelines(f"{line.rstrip()}\n" for line in cast("io.StringIO", wide.file).getvalue().splitlines())


def print_pairs(pairs: Sequence[tuple[str, str]], console: Console) -> None:
    """Tensors' names come from strangers: what a terminal would obey is escaped."""
    titles = [printable(label(title)) for title, _ in pairs]
    width = max(map(cell_len, titles))
    for title, (_, text) in zip(titles, pairs, strict=True):
        console.print(
            f"[dim]{escape(set_cell_size(title, width))}[/]  {escape(printable(text))}", soft_wrap=True, highlight=False
        )
