"""The one way to a terminal: text from strangers is made printable on its way."""

from __future__ import annotations

from typing import Any

import rich.console
import rich.markup
from rich.text import Text

from torchclas.text import printable


def escape(text: str) -> str:
    """`text` as it is to be seen: on one line, nothing in it a command to the terminal or markup of ours."""
    return rich.markup.escape(printable(text))


class Console(rich.console.Console):
    """Rich's, which obeys no text: also where `escape` was forgotten, nothing but line breaks has an effect."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text`, which `print` or the cell of a table was given, made printable line by line."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)
