"""The page of all commands, made of the commands themselves: what `torchclas COMMAND --help` says of each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torchclas.cli import app
from torchclas.messages import help_text
from torchclas.vocabulary import Language

_OPTION = re.compile(r"\* `(?P<names>[^`]+)`(?:: (?P<help>.*?))?(?P<facts>(?: *(?:\*\*\[|\*\[).*)?)")
_FACT = re.compile(r"\*+\[(required|default|choices)(?:: (.*?))?\]\*+")


def commands(language: Language) -> str:
    """Markdown: a section for each command, by name."""
    sections = re.split(r"^(?=## torchclas )", app.generate_docs(heading_level=1), flags=re.MULTILINE)[1:]
    named = sorted(text for text in sections if not text.startswith("## torchclas --"))  # which are options
    return "\n".join(_section(text, language) for text in named)


def _section(text: str, language: Language) -> str:
    blocks = (block.splitlines() for block in text.strip().split("\n\n"))
    return "\n\n".join("\n".join(_lines(lines, language)) for lines in blocks) + "\n"


def _lines(lines: list[str], language: Language) -> Iterator[str]:
    """A list or a heading line by line; the lines of a paragraph are one text."""
    if lines[0].startswith(("#", "`", "*")):
        return (_line(line, language) for line in lines)
    return iter((help_text(" ".join(lines), language),))


def _line(line: str, language: Language) -> str:
    if line.startswith(("#", "```", "torchclas")):
        return line.replace("```console", "```text")
    if (heading := re.fullmatch(r"\*\*([\w -]+)\*\*:", line)) is not None:
        return f"**{help_text(heading[1], language)}**"
    if (option := _OPTION.fullmatch(line)) is not None:
        said = " ".join(filter(None, (help_text(option["help"] or "", language), *_facts(option["facts"], language))))
        return f"- `{option['names']}`" + (f": {said}" if said else "")
    if (command := re.fullmatch(r"\* (\[.*?\]\(.*?\)): (.*)", line)) is not None:
        return f"- {command[1]}: {help_text(command[2], language)}"
    return line


def _facts(text: str, language: Language) -> Iterator[str]:
    """What may or must be given, and what holds where nothing is; that a switch is off by default needs no word."""
    for name, value in _FACT.findall(text):
        if value == "False":
            continue
        shown = f": `{value or ' '}`" if name == "default" else f": {value}" if value else ""
        yield f"*[{help_text(name, language)}{shown}]*"
