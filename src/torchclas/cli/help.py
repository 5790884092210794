"""What `--help` says, in the language of the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter, InlineText

from torchclas.messages import help_text, language

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel


class HelpFormatter(DefaultFormatter):
    """cyclopts' own, with texts that are looked up; in English it changes nothing."""

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        """Print a box of options or commands."""
        if language() != "en":
            entries = [entry.copy(description=_translated(entry.description)) for entry in panel.entries]
            panel = panel.copy(title=help_text(str(panel.title)), entries=entries)
        super().__call__(console, options, panel)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Print what a command does."""
        if language() != "en":
            description = _translated(description)
        super().render_description(console, options, description)


def _translated(text: Any) -> Any:
    """The same text, which may have several paragraphs, where it is plain."""
    if not isinstance(text, InlineText):
        return text
    paragraphs = (" ".join(part.split()) for part in str(text.primary_renderable).split("\n\n"))
    said = "\n\n".join(map(help_text, paragraphs))
    return InlineText.from_format(said, "plaintext", force_empty_end=text.force_empty_end)
