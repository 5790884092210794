"""What the command line says, in another language than English.

The sources say everything in English; `zh.toml` has the Chinese of each such template. A finished English text is
translated where it meets the user: the template that it was made from is found, and what was filled in is translated
in turn, because errors contain errors. What has no translation stays English. Nothing is read while the language is
English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources
from itertools import islice
from typing import NamedTuple

from torchclas.vocabulary import LANGUAGES, Language

_language: Language = "en"

_PLACEHOLDER = re.compile(r"\{(\d+)(:n|:label)?\}")
_NUMBER = r"[-+]?[\d.,]+(?:e[-+]?\d+)?%?|-?inf|nan|None"
_DEEPEST = 8  # texts within each other
_JOINED = 3  # texts beside each other that no template joins
_LONGEST = 4000  # characters; longer texts are lists of names
_WAYS = 10_000  # to find the parts of a template in a text: names of files may be made to have very many
_FEW = 11  # characters: such a template says so little that only a number between them is taken for a match
_JOINTS = ((": ", "："), ("; ", "；"))
_SERIES = ((", ", "，"), (" and ", "，"))


def use(language: Language) -> None:
    """Choose the language of this process's messages."""
    global _language
    _language = language


def language() -> Language:
    """The language of this process's messages."""
    return _language


def named(name: str) -> Language | None:
    """The language that has this name, such as zh."""
    return next((known for known in LANGUAGES if known == name), None)


def of_environment(environment: Mapping[str, str]) -> Language:
    """The language that the locale asks for: the first of LC_ALL, LC_MESSAGES and LANG that is set."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def say(text: str) -> str:
    """A finished English text in the language of this process."""
    return text if _language == "en" else translate(text, _language)


def label(text: str, *values: object) -> str:
    """The name of a column, a figure or a kind of thing, or a template of a page with its `values`, in this language.

    Such words are translated only where they are known to be ours: a class may be called `model`, too.
    """
    if _language != "en":
        table = _table(_language)
        text = table.labels.get(text) or table.messages.get(text) or translate(text, _language)
    return text.format(*values) if values else text


def help_text(text: str, language: Language | None = None) -> str:
    """A paragraph of a command's help, or a heading or word of it, in `language` (default: that of this process)."""
    chosen = _language if language is None else language
    return text if chosen == "en" else _table(chosen).help.get(text, text)


def translate(text: str, language: Language) -> str:
    """A finished English text in `language`, or as it is where there is no translation."""
    return text if language == "en" else _translate(text, language, 0)


class Template(NamedTuple):
    """A translation: the English text it belongs to, as a pattern, and its own words."""

    english: str
    words: str
    pattern: re.Pattern[str]
    ending: re.Pattern[str] | None  # of what follows something else: `, 3 of them failed`
    beginning: re.Pattern[str] | None  # of what something else follows: `3 images: `
    parts: tuple[str, ...]  # of the English text, which a match must contain; the longest comes first
    weight: int  # characters that are not filled in

    def may_fit(self, text: str) -> bool:
        """Whether `text` holds all parts, and not so often that a search would take long."""
        if self.parts[0] not in text:
            return False
        ways = 1
        for part in self.parts[1:]:
            ways *= text.count(part)
        return 0 < ways <= _WAYS


class _Table(NamedTuple):
    messages: Mapping[str, str]
    labels: Mapping[str, str]
    help: Mapping[str, str]
    templates: tuple[Template, ...]  # those that say most come first


@cache
def _table(language: Language) -> _Table:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none
    text = resources.files(__name__).joinpath(f"{language}.toml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, str]] = tomllib.loads(text)
    messages = tables["messages"] | tables["foreign"]
    templates = sorted((_template(*pair) for pair in messages.items()), key=lambda each: -each.weight)
    return _Table(messages, tables["labels"], tables["help"], tuple(templates))


def _template(english: str, words: str) -> Template:
    pieces = _PLACEHOLDER.split(english)  # text, number, format, text …
    texts = pieces[::3]
    weight = sum(map(len, texts))
    vague = len(texts) == 2 and weight < _FEW and english[0] in " ,;:{"
    pattern, follows = re.escape(texts[0]), False
    for number, form, text in zip(pieces[1::3], pieces[2::3], texts[1:], strict=True):
        if form or vague:
            pattern += f"(?P<_{number}>{_NUMBER})"
        elif not follows:  # of texts without anything between them, the first is taken for all
            pattern += f"(?P<_{number}>.*?)"
        follows = not (form or text)
        pattern += re.escape(text)
    ending = re.compile(f"(.+?){pattern}", re.DOTALL) if english[:1] in " ,;:" and english.strip(" ,;:{}0n") else None
    beginning = re.compile(f"{pattern}(.+)", re.DOTALL) if english.endswith((": ", "; ")) else None
    parts = tuple(sorted(filter(None, texts), key=len, reverse=True))
    return Template(english, words, re.compile(pattern, re.DOTALL), ending, beginning, parts, weight)


@lru_cache(maxsize=4096)
def _translate(text: str, language: Language, depth: int) -> str:
    if depth > _DEEPEST or len(text) > _LONGEST or not re.search(r"[a-z]{2}", text):
        return text
    return next(_attempts(text, language, depth), text)


def _attempts(text: str, language: Language, depth: int) -> Iterator[str]:
    table = _table(language)
    possible = [template for template in table.templates if template.may_fit(text)]
    for template in possible:
        if (match := template.pattern.fullmatch(text)) is not None:
            yield _filled(template.words, match, table, language, depth)
        if template.beginning is not None and (match := template.beginning.fullmatch(text)) is not None:
            tail = _translate(match[match.re.groups], language, depth + 1)
            yield _filled(template.words, match, table, language, depth) + tail
    for template in possible:
        if template.ending is not None and (match := template.ending.fullmatch(text)) is not None:
            head = _translate(match[1], language, depth + 1)
            yield head + _filled(template.words, match, table, language, depth)
    inner = text.strip()
    if inner != text and (translated := _translate(inner, language, depth + 1)) != inner:
        yield text.replace(inner, translated)
    if text.endswith(":") and (translated := _translate(text[:-1], language, depth + 1)) != text[:-1]:
        yield f"{translated}："
    for joint, joined in _JOINTS:
        for place in islice(re.finditer(joint, text), _JOINED if depth < _JOINED else 0):
            parts = text[: place.start()], text[place.end() :]
            translated = [_translate(part, language, depth + 1) for part in parts]
            if translated != [*parts]:
                yield joined.join(translated)
    for joint, joined in _SERIES:
        parts = text.split(joint)
        translated = [_translate(part, language, depth + 1) for part in parts] if len(parts) > 1 else []
        if translated and all(map(str.__ne__, parts, translated)):
            yield joined.join(translated)


def _filled(words: str, match: re.Match[str], table: _Table, language: Language, depth: int) -> str:
    values = match.groupdict()

    def value(found: re.Match[str]) -> str:
        text = values.get(f"_{found[1]}") or ""
        if found[2] == ":label" and text in table.labels:
            return table.labels[text]
        return _translate(text, language, depth + 1)

    return _PLACEHOLDER.sub(value, words)
