"""What was measured: one row per case, in a folder that belongs to one machine."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torchclas import catalog
from torchclas.atomic import atomic_path
from torchclas.engines.machine import Machine
from torchclas.errors import OutputError, UnknownNameError
from torchclas.text import ANY_NAME, csv_path, csv_text, json_text
from torchclas.vocabulary import EngineChoice, EngineName, Precision

Weights = Literal["published", "own", "random"]


@dataclass(frozen=True)
class Case:
    """One way to run one network. `model` is a published name or a file."""

    model: str
    engine: EngineChoice
    precision: Precision
    batch: int
    threads: int
    device: str = "cpu"

    @property
    def setting(self) -> str:
        """How it is run, whatever the network."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        device = "" if self.device in ("cpu", "auto") else f" on {self.device}"
        return f"{self.engine} {self.precision}, batch {self.batch}, {threads}{device}"

    def __str__(self) -> str:
        return f"{self.model}: {self.setting}"


@dataclass(frozen=True)
class Timing:
    """What one process measured of one case; times are of one batch.

    `ran` and `version` are the engine's, `hardware` is the name of the CPU or GPU. `spread` is the
    interquartile range over the median. `prepare_s` is what the first start took (export, compilation, choice of the
    engine), `load_s` a later one. `peak_mib` is the most memory the process ever held, Python and the engine's own
    included. `others` is how many cores other processes kept busy meanwhile. `timed_as` is the name under which the
    same network was timed, with other weights; empty where that is the case's own.
    """

    ran: EngineName
    version: str
    hardware: str
    weights: Weights
    median_ms: float
    p5_ms: float
    p95_ms: float
    best_ms: float
    spread: float
    images_per_s: float
    repeats: int
    warm_up: int
    load_s: float
    peak_mib: float | None
    load_average: float | None
    others: float | None
    prepare_s: float | None = None
    remark: str = ""
    timed_as: str = ""

    @property
    def remarks(self) -> str:
        """All that should be known of it."""
        twin = f"timed as {self.timed_as}, the same network" if self.timed_as else ""
        return ", ".join(filter(None, (self.remark, twin)))


@dataclass(frozen=True)
class Result:
    """A case with its timing, or the error that stood in the way; `finished` is UTC, ISO 8601."""

    case: Case
    timing: Timing | None
    error: str
    finished: str


class Results:
    """The files of one machine's measurements in `folder`.

    `results.jsonl` only ever grows, a line per case; `results.csv` holds the last row of each case, beside what was
    published about its model; `machine.json` describes the machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "results.jsonl"

    def claim(self, machine: Machine) -> None:
        """Say that the folder's rows come from `machine`; raises `OutputError` where they come from another one."""
        path = self.folder / "machine.json"
        if path.is_file():
            other = json.loads(path.read_text(encoding="utf-8"))
            if other["id"] != machine.id:
                raise OutputError(f"{self.folder} holds what was measured on {other['cpu']}: choose another folder")
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(machine.to_dict(), indent=2) + "\n", encoding="utf-8")

    def read(self) -> dict[Case, Result]:
        """The last row of each case; lines that a killed process left unfinished are passed over."""
        rows: dict[Case, Result] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            try:
                row = _from_dict(values)
            except (TypeError, KeyError) as error:
                problem = f"line {number} is not a row of this version of torchclas ({error}): choose another folder"
                raise OutputError(f"{self.path}: {problem}") from None
            rows.pop(row.case, None)  # a later row stands where it was measured
            rows[row.case] = row
        return rows

    def append(self, row: Result) -> None:
        """Add a row; what is on the disk is complete up to the line before, whatever happens."""
        line = json_text(json.dumps(asdict(row), ensure_ascii=False))
        try:
            with self.path.open("ab+") as file:
                if file.tell() and not self._ends_with_newline():
                    file.write(b"\n")
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error

    def write_csv(self) -> Path:
        """Write the last row of each case to `results.csv`."""
        path = self.folder / "results.csv"
        header = [
            *("model", "arch", "series", "published_top1", "published_gflops", "published_params_m"),
            *(field.name for field in fields(Case) if field.name != "model"),
            *(field.name for field in fields(Timing)),
            *("error", "finished"),
        ]
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            for row in self.read().values():
                record = to_record(row)
                model = csv_path(row.case.model)
                writer.writerow({**record, "model": model, "error": csv_text(row.error)})
        return path

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"


def to_record(row: Result) -> dict[str, Any]:
    """The row as one flat table line; what was published about the model has names of its own."""
    entry = published(row.case.model)
    return {
        "model": row.case.model,
        "arch": None if entry is None else entry.arch,
        "series": None if entry is None else entry.series.id,
        "published_top1": None if entry is None else entry.top1,
        "published_gflops": None if entry is None else entry.gflops,
        "published_params_m": None if entry is None else entry.params_m,
        **asdict(row.case),
        **({} if row.timing is None else {**asdict(row.timing), "remark": row.timing.remarks}),
        "error": row.error,
        "finished": row.finished,
    }


def published(model: str) -> catalog.Entry | None:
    """What the catalog says of a case's model; None where that is a file."""
    try:
        return catalog.find(model)
    except UnknownNameError:
        return None


def settings(rows: Mapping[Case, Result]) -> Iterator[tuple[str, list[Result]]]:
    """The rows that have a timing, by how the networks were run."""
    groups: dict[str, list[Result]] = {}
    for row in rows.values():
        if row.timing is not None:
            groups.setdefault(row.case.setting, []).append(row)
    yield from groups.items()


def _from_dict(values: Mapping[str, Any]) -> Result:
    timing = values["timing"]
    return Result(
        case=Case(**values["case"]),
        timing=None if timing is None else Timing(**timing),
        error=values["error"],
        finished=values["finished"],
    )
