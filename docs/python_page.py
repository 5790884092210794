"""How docstrings become the page of the Python API: as Sphinx reads Markdown, with types linked to where they are told.

Inventories of other projects are not fetched: `elsewhere.toml` has the addresses of the few names that occur.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PROJECTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("elsewhere.toml").read_text(encoding="utf-8")
)
# A name, whole or without its module, and where it is told.
ELSEWHERE = {
    short: f"{project['url']}{page}#{name}"
    for project in PROJECTS.values()
    for name, page in project["names"].items()
    for short in (name, name.rpartition(".")[2])
}
_CALLED_HERE = {"Summary": "TrainingSummary"}  # by its module, and by the package
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# A line below `Raises:` that names other functions, where napoleon wants a name and a colon.
_OTHERS = re.compile(r"^( +)W(hat .* do(?:es)?\.)$")
_SIGNATURE_LINES = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)
_PART = re.compile(r"<(/?)dd\b")
_FENCE = re.compile(r"^( *)```(\w*)$")


def read_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write Markdown as reStructuredText, in place: code, fences, and lists, which need a blank line before them."""
    written: list[str] = []
    fence: str | None = None
    for line in lines:
        if (mark := _FENCE.match(line)) is not None:
            fence = mark[1] if fence is None else None
            written += ["", f"{mark[1]}.. code-block:: {mark[2] or 'text'}", ""] if fence is not None else [""]
        elif fence is not None:
            written.append(f"   {line}" if line else "")
        else:
            line = _OTHERS.sub(r"\1Error: w\2", line)
            if line.startswith("- ") and written and written[-1] and not written[-1].startswith(("- ", "  ")):
                written.append("")
            written.append(_CODE.sub(_marked, line))
    lines[:] = written


def _marked(code: re.Match[str]) -> str:
    """A link for what the page has; else code. Letters that stand right behind it are kept apart from the markup."""
    import torchclas

    name = code[1].removeprefix("torchclas.")
    after = code.string[code.end() : code.end() + 1]
    end = "\\ " if after.isalnum() else ""
    return f":py:obj:`~torchclas.{name}`{end}" if name in torchclas.__all__ else f"``{code[1]}``{end}"


def resolve(app: Sphinx, environment: BuildEnvironment, node: pending_xref, child: nodes.Element) -> Any:
    """The link for a type that a signature names without its module: on this page, or in another project's."""
    name = _CALLED_HERE.get(str(node.get("reftarget", "")), str(node.get("reftarget", "")))
    short = name.rpartition(".")[2]
    domain = environment.domains.python_domain
    for target in domain.objects:
        if target.startswith("torchclas.") and target.rpartition(".")[2] == short:
            return domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", target, node, child)
    if (address := ELSEWHERE.get(name) or ELSEWHERE.get(short)) is not None:
        return nodes.reference("", "", child, refuri=address, internal=False)
    return None


def with_plain_lines(body: str) -> str:
    """The page with the lines of long signatures as lines; Sphinx makes a list of definitions without terms of them."""

    def lines(found: re.Match[str]) -> str:
        inner = _PART.sub(r"<\1div", found[1])
        return f'<div class="sig-lines">{inner}</div>'

    return _SIGNATURE_LINES.sub(lines, body)
