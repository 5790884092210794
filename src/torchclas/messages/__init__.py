"""What the command line says, in the user's language.

Messages are written in English where they arise. On their way to the terminal they are looked up here by the template
that the source has for them: `zh.toml` says what "{}: cannot be read: {}" is in Chinese. What has no entry stays
English.
Names of classes, columns and keys are no messages; they never change with the language.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

Language: TypeAlias = Literal["en", "zh"]

_GAP = re.compile(r"\{\d*\}")
_language: Language = "en"


def use(language: Language) -> None:
    """Say everything from now on in this language."""
    global _language  # one process talks to one user
    _language = language


def language() -> Language:
    """The language in use."""
    return _language


def of_locale(environment: Mapping[str, str] = os.environ) -> Language:
    """The language of the locale, as POSIX has it: the first variable that is set decides."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def translate(text: str) -> str:
    """`text` in the language in use."""
    return text if _language == "en" or not text.strip() else _translated(text)


def _translated(text: str, depth: int = 4) -> str:
    """The entry whose literal text is longest wins; what fills its gaps is translated likewise."""
    whole = catalog().get(text)
    if whole is not None:
        return whole
    for pattern, chinese in _patterns():
        if match := pattern.fullmatch(text):
            filled = match.groups()
            return chinese.format(*(_translated(part, depth - 1) if depth and part else part for part in filled))
    return text


@cache
def catalog() -> dict[str, str]:
    """English template → Chinese one."""
    content = resources.files(__name__).joinpath("zh.toml").read_text(encoding="utf-8")
    return {english: chinese for part in tomllib.loads(content).values() for english, chinese in part.items()}


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    templates = [english for english in catalog() if _GAP.search(english)]
    templates.sort(key=lambda english: len(_GAP.sub("", english)), reverse=True)
    return [(pattern(english), catalog()[english]) for english in templates]


def pattern(template: str) -> re.Pattern[str]:
    """What a message that was made from a template looks like; gaps are taken as short as possible."""
    return re.compile("(.*?)".join(map(re.escape, _GAP.split(template))), re.DOTALL)
