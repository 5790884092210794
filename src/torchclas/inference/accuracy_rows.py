"""Rows of a table of accuracies, and the folder where they outlive an interruption."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from torchclas.atomic import atomic_path
from torchclas.errors import OutputError
from torchclas.metrics.single_label import Proportion

LOCK_PATIENCE = 2  # seconds: a process that is killed leaves its lock to what it started for a moment


@dataclass(frozen=True)
class Measured:
    """What was measured of a model: `nll` in nats, `ece` in 0..1; `top5` is None for five classes or fewer.

    The figures are over the `images` that could be read; `unreadable` has the others, and why.
    """

    top1: Proportion
    top5: Proportion | None
    nll: float
    ece: float
    images: int
    unreadable: tuple[tuple[str, str], ...]
    engine: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """A model: what was published of it, in percent, and what was measured, or the `error` that stood in the way.

    `model` is a published name, or a file. `comparable` says whether the published figures are of the same images.
    """

    model: str
    arch: str = ""
    series: str = ""
    published_top1: float | None = None
    published_top5: float | None = None
    comparable: bool = False
    measured: Measured | None = None
    error: str = ""

    @property
    def difference(self) -> float | None:
        """Measured less published top-1 accuracy, in percentage points; None where they cannot be compared."""
        if self.measured is None or self.published_top1 is None or not self.comparable:
            return None
        return 100 * self.measured.top1.value - self.published_top1

    @property
    def agrees(self) -> bool | None:
        """Whether all published figures lie in the 95 % intervals of the measured ones; None where nothing is said."""
        if self.measured is None or not self.comparable:
            return None
        pairs = (self.published_top1, self.measured.top1), (self.published_top5, self.measured.top5)
        found = [_holds(measured, published) for published, measured in pairs if published and measured]
        return all(found) if found else None


@dataclass(frozen=True)
class AccuracyTable:
    """A row for each model, in the order in which they were asked for, measured on the `images` images of `data`."""

    data: str
    images: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether published figures are of the same images."""
        return any(row.comparable for row in self.rows)

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """The images that could not be read, which are the same for all models but for accidents."""
        return max((row.measured.unreadable for row in self.rows if row.measured is not None), key=len, default=())

    @property
    def passed(self) -> bool:
        """Whether every model was measured on every image, and no published figure was found to be another."""
        return all(
            row.measured is not None and not row.measured.unreadable and row.agrees is not False for row in self.rows
        )


class Records:
    """Rows in a folder, a file for each model; `manifest.json` says what all of them were asked.

    Use it as a context manager; one process at a time has a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self._lock = FileLock(folder / ".lock")

    def __enter__(self) -> Records:
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise OutputError(f"{self.folder}: another process is measuring into it; wait for its end") from None
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def claim(self, question: dict[str, Any]) -> None:
        """Say what the rows are asked; raises `OutputError` where those that are here were asked something else.

        `question` has `data`, which is only shown, `images`, a digest of them for each set of classes, and settings.
        """
        path = self.folder / "manifest.json"
        known = _read(path)
        if known:
            digests: dict[str, str] = known.get("images", {})
            if any(digests.get(classes, digest) != digest for classes, digest in question["images"].items()):
                raise OutputError(
                    f"{self.folder}: was measured on other images ({known['data']}): choose another folder"
                )
            for name in sorted({*known, *question} - {"data", "images"}):
                if known.get(name) != question.get(name):
                    raise OutputError(
                        f"{self.folder}: holds what was measured with {name} {known.get(name)}, not "
                        f"{question.get(name)}: choose another folder"
                    )
            question = {**question, "images": {**digests, **question["images"]}}
        _write(path, question)

    def find(self, model: str, identity: dict[str, Any]) -> Measured | None:
        """What was measured of a model with this identity: its weights, its preprocessing."""
        values = _read(self._path(model))
        if values.get("identity") != json.loads(json.dumps(identity)):
            return None
        names = [field.name for field in fields(Measured)]
        try:
            top5 = None if values["top5"] is None else Proportion(**values["top5"])
            figures: dict[str, Any] = {name: values[name] for name in names}
            unreadable = tuple((source, error) for source, error in values["unreadable"])
            figures |= {"top1": Proportion(**values["top1"]), "top5": top5, "unreadable": unreadable}
            return Measured(**figures)
        except (TypeError, ValueError, KeyError):
            return None  # of another version

    def keep(self, model: str, identity: dict[str, Any], measured: Measured) -> None:
        """Keep what was measured."""
        _write(self._path(model), {"model": model, "identity": identity, **asdict(measured)})

    def _path(self, model: str) -> Path:
        if re.fullmatch(r"\w+", model):
            return self.models / f"{model}.json"
        return self.models / f"{Path(model).name[:64]}-{short_digest(model)}.json"


def short_digest(*facts: object) -> str:
    """Tells one from another, in 16 hexadecimal digits."""
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _holds(measured: Proportion, published: float) -> bool:
    low, high = measured.interval
    return 100 * low <= published <= 100 * high


def _read(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing where there is none, or it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
