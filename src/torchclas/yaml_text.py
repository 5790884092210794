"""YAML of strangers: PyYAML says what stands in a text, and lists, tables and words are made of it, no other objects.

PyYAML's own loaders build objects of whatever tags name, or take anchors that multiply what they stand for; its C
loader overflows the stack when lists are nested. So only its events are used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from torchclas.encoding import read_text
from torchclas.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 4 * 2**20  # 22,000 names of classes take half a million
_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000  # with what aliases repeat
_PLAIN_TAG = re.compile(r"!|tag:yaml\.org,2002:(str|int|float|bool|null|seq|map)")

# Every scalar is text, as it is written: a class that is called `no` or `1e3` keeps its name.
Yaml = str | list["Yaml"] | dict[str, "Yaml"]


def read_yaml(path: Path) -> Yaml:
    """The one document of a file, its scalars as they are written.

    Raises:
        DataError: it is no YAML, or larger or deeper than any configuration, or uses tags, merge keys or repeated keys.
        MissingDependencyError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("PyYAML", "'torchclas[paddle]'") from None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES:,} bytes, and than any configuration")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    text = read_text(path)
    try:
        return _Builder(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))).built()
    except _Refused as error:
        raise DataError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        problem = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: no readable YAML: {problem}") from None


class _Refused(Exception):  # noqa: N818 - internal: becomes a DataError once the file's name is at hand
    """What is not taken."""


class _Builder:
    """Lists and tables from events, without recursion."""

    def __init__(self, events: Iterator[object]) -> None:
        self.events = events
        self.document: Yaml | None = None
        self.stack: list[_Open] = []
        self.anchored: dict[str, tuple[Yaml, int]] = {}

    def built(self) -> Yaml:
        """The document; an empty one is an empty text."""
        import yaml

        for event in self.events:
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchored:
                    raise _Refused("an alias stands for something that holds it, or is not there")
                self.put(*self.anchored[event.anchor])
            elif isinstance(event, yaml.ScalarEvent):
                self.check_tag(event.tag)
                self.finish(event.value, 1, event.anchor)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self.check_tag(event.tag)
                if len(self.stack) >= _MAX_DEPTH:
                    raise _Refused(f"nested more than {_MAX_DEPTH} levels deep")
                self.stack.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.anchor))
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                closed = self.stack.pop()
                self.finish(closed.value, closed.size, closed.anchor)
        return "" if self.document is None else self.document

    def check_tag(self, tag: str | None) -> None:
        """Refuse tags that name anything but plain values."""
        if tag is not None and not _PLAIN_TAG.fullmatch(tag):
            raise _Refused(f"it has the tag {tag[:60]!a}: only plain values are read")

    def finish(self, value: Yaml, size: int, anchor: str | None) -> None:
        """Take a value that is complete, and keep it where it has an anchor."""
        if anchor is not None:
            self.anchored[anchor] = (value, size)
        self.put(value, size)

    def put(self, value: Yaml, size: int) -> None:
        """Put a value where it belongs; `size` is how many values it is made of."""
        if not self.stack:
            if self.document is not None:
                raise _Refused("it has more than one document")
            self.document = value
            return
        outer = self.stack[-1]
        outer.size += size
        if outer.size > _MAX_VALUES:
            raise _Refused(f"with what its aliases repeat, it has more than {_MAX_VALUES:,} values")
        if isinstance(outer.value, list):
            outer.value.append(value)
        elif outer.key is None:
            if not isinstance(value, str) or value == "<<":
                raise _Refused("a key is no text, or merges one table into another: write it out")
            if value in outer.value:
                raise _Refused(f"the key {value[:60]!a} stands twice in a table")
            outer.key = value
        else:
            outer.value[outer.key] = value
            outer.key = None


class _Open:
    """A list or table that is being filled."""

    def __init__(self, value: list[Yaml] | dict[str, Yaml], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.size = 1
        self.key: str | None = None
