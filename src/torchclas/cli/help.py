"""What `--help` says, in the language of the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter, InlineText

from torchclas.messages import help_text, language

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel


class HelpFormatter(DefaultFormatter):
    """cyclopts' own, with texts that are looked up; in English it changes nothing."""

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        """Print a box of options or commands."""
        if language() != "en":
            panel = panel.copy(title=help_text(str(panel.title)), entries=list(map(_spoken, panel.entries)))
        super().__call__(console, options, panel)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Print what a command does."""
        if language() != "en":
            description = _translated(description)
        super().render_description(console, options, description)


def _spoken(entry: HelpEntry) -> HelpEntry:
    """An option, whose facts in brackets cyclopts would add in English."""
    from rich.text import Text

    description = _translated(entry.description)
    if not isinstance(description, InlineText):
        return entry.copy(description=description)
    facts = (
        ("choices", ", ".join(entry.choices or ())),
        ("default", "" if entry.default in (None, "False") else entry.default),
    )
    for word, value in facts:
        if value:
            description.append(Text(f"[{help_text(word)}: {value}]", f"cyclopts.{word}"))
    if entry.required:
        description.append(Text(f"[{help_text('required')}]", "cyclopts.required"))
    return entry.copy(description=description, choices=None, default=None, required=False)


def _translated(text: Any) -> Any:
    """The same text, which may have several paragraphs, where it is plain."""
    if not isinstance(text, InlineText):
        return text
    paragraphs = (" ".join(part.split()) for part in str(text.primary_renderable).split("\n\n"))
    said = "\n\n".join(map(help_text, paragraphs))
    return InlineText.from_format(said, "plaintext", force_empty_end=text.force_empty_end)
