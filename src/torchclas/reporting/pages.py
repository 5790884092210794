"""HTML pages from templates: one file each, with everything in it, and every value escaped."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from torchclas.atomic import atomic_path
from torchclas.messages import label, language, say


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill in a file of `templates/` and write it; characters that UTF-8 lacks become question marks."""
    text = _environment().get_template(template).render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path


def embedded(content: bytes, kind: str) -> str:
    """A picture as an address that holds all of it; `kind` is png, jpeg …"""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("torchclas.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(_=label, say=say, language=language)
    return environment
