"""Every key of a configuration is accounted for: translated, without effect here for a reason, or not supported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

from torchclas.errors import Error
from torchclas.tables import Table
from torchclas.yaml_values import NOTHING, entries

Stage = Literal["train", "evaluate", "predict", "export"]
STAGES: tuple[Stage, ...] = ("train", "evaluate", "predict", "export")

T = TypeVar("T")
D = TypeVar("D")


class ConfigError(Error):
    """A configuration of PaddleClas that cannot be followed; the message names the key."""


@dataclass(frozen=True)
class Finding:
    """A key that has no counterpart here, and why.

    `effect` is `none` where nothing is lost, and `unsupported` where the command would do something else than
    PaddleClas; `stages` are the commands that it matters to.
    """

    key: str
    effect: Literal["none", "unsupported"]
    why: str
    stages: tuple[Stage, ...] = STAGES


@dataclass
class Account:
    """What was found in a file."""

    path: str
    findings: list[Finding] = field(default_factory=list[Finding])

    def section(self, key: str, value: object, stages: tuple[Stage, ...] = STAGES) -> Section:
        """A table of the file; what is no table is an empty one, and not supported."""
        if not isinstance(value, Mapping) and value not in NOTHING:
            self.findings.append(Finding(key, "unsupported", "a table is expected here", stages))
        return Section(self, key, value, stages)

    def refuse(self, key: str, why: str, stages: tuple[Stage, ...] = STAGES) -> None:
        """Note that a key is not supported."""
        self.findings.append(Finding(key, "unsupported", why, stages))

    def note(self, key: str, why: str, stages: tuple[Stage, ...] = STAGES) -> None:
        """Note that a key has no effect here, or one that differs in nothing that is asked for."""
        self.findings.append(Finding(key, "none", why, stages))


class Section(Table):
    """A table of a configuration; `close` notes the keys that nobody took as not supported."""

    def __init__(self, account: Account, key: str, value: object, stages: tuple[Stage, ...]) -> None:
        super().__init__(f"{account.path}: {key}", entries(value), ConfigError)
        self.account, self.key, self.stages = account, key, stages

    def path(self, key: str) -> str:
        """The key as `-o` of PaddleClas spells it."""
        return f"{self.key}.{key}" if self.key else key

    def section(self, key: str, stages: tuple[Stage, ...] | None = None) -> Section:
        """The table at a key; an empty one where it is not there."""
        value = self.take(key, _as_it_is, "")
        return self.account.section(self.path(key), value, self.stages if stages is None else stages)

    @overload
    def needs(self, key: str, read: Callable[[object], T], holds: Callable[[T], bool], why: str) -> T | None: ...
    @overload
    def needs(
        self, key: str, read: Callable[[object], T], holds: Callable[[T], bool], why: str, default: D
    ) -> T | D: ...
    def needs(
        self, key: str, read: Callable[[object], Any], holds: Callable[[Any], bool], why: str, default: Any = None
    ) -> Any:
        """The value of a key, or PaddleClas's default; one of which `holds` is not true is noted as not supported."""
        value = self.take(key, read, default)
        if value is not None and not holds(value):
            self.refuse(key, why, taken=True)
        return value

    def drop(self, key: str, why: str, *, usual: str = "False", stages: tuple[Stage, ...] | None = None) -> None:
        """Note that a key has no effect here, where it is there and is neither off nor what is usual here."""
        if self.take(key, _as_it_is, "False") not in ("False", "false", usual):
            self.account.note(self.path(key), why, stages or self.stages)

    def refuse(self, key: str, why: str, *, stages: tuple[Stage, ...] | None = None, taken: bool = False) -> bool:
        """Note that a key, where it is there, is not supported; whether it is there."""
        if not taken and self.take(key, _as_it_is, None) is None:
            return False
        self.account.refuse(self.path(key), why, stages or self.stages)
        return True

    def close(self) -> None:
        """Note what was not taken."""
        for key in self.rest():
            self.account.refuse(self.path(key), "no such setting is known here", self.stages)


def steps(section: Section, key: str) -> Iterator[Section]:
    """The entries of a list of tables with one key each, as transforms, losses and metrics are written."""
    value = section.take(key, _as_it_is, [])
    items: list[object] = value if isinstance(value, list) else [value]
    for number, item in enumerate(items):
        if not isinstance(item, (dict, str)):
            section.account.refuse(
                f"{section.path(key)}.{number}", "a name with its settings is expected here", section.stages
            )
            continue
        named: Mapping[object, object] = item if isinstance(item, dict) else {item: ""}
        for name, options in named.items():
            yield section.account.section(f"{section.path(key)}.{number}.{name}", options, section.stages)


def _as_it_is(value: object) -> object:
    return value
