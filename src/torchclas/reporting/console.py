"""The one way to a terminal: what is said is put into the user's language, text from strangers is made printable."""

from __future__ import annotations

from typing import Any

import rich.console
import rich.markup
from rich.table import Table
from rich.text import Text

from torchclas.messages import translate
from torchclas.text import printable


def escape(text: str) -> str:
    """`text` as it is to be seen: on one line, nothing in it a command to the terminal or markup of ours."""
    return rich.markup.escape(printable(text))


class Console(rich.console.Console):
    """Rich's, which obeys no text: also where `escape` was forgotten, nothing but line breaks has an effect."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print messages and tables in the user's language; what stands below the headings of a table stays."""
        for item in objects:
            if isinstance(item, Table):
                _translate(item)
        super().print(*(translate(item) if isinstance(item, str) else item for item in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text`, which `print` or the cell of a table was given, made printable line by line."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def _translate(table: Table) -> None:
    """The title and headings, and all of a table without headings: it has names and values."""
    if isinstance(table.title, str):
        table.title = translate(table.title)
    for column in table.columns:
        if isinstance(column.header, str):
            column.header = translate(column.header)
        if not table.show_header:  # names and values
            names = column._cells  # pyright: ignore[reportPrivateUsage] - rich has no other way to change a cell
            names[:] = [translate(name) if isinstance(name, str) else name for name in names]
