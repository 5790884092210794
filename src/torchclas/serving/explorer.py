"""The part of the page that shows the zoo, as one file for any web server. Needs nothing of the `serve` extra."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from torchclas.atomic import atomic_path
from torchclas.reporting.zoo_overview import zoo_overview

STATIC = Path(__file__).parent / "static"

# In the order in which they need one another. As one script they have no `import` and no `export`.
_MODULES = ("text.js", "dom.js", "frame.js", "chart.js", "card.js", "explore.js")
_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./([\w.]+)\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def write_explorer(path: Path) -> Path:
    """Write the page with its style, scripts and data in it; what it says is what `GET /v1/zoo` says now.

    Raises:
        OutputError: `path` cannot be written, or the cache holds timings of another version of torchclas.
    """
    environment = Environment(loader=PackageLoader("torchclas.serving"), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("explorer.html").render(
        style=Markup((STATIC / "style.css").read_text(encoding="utf-8")),
        script=Markup("".join(map(_inlined, _MODULES))),
        zoo=zoo_overview(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _inlined(module: str) -> str:
    return _EXPORT.sub("", _IMPORT.sub("", (STATIC / module).read_text(encoding="utf-8")))
