"""What `evaluate` measured, for people, and the files that it leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from torchclas.atomic import atomic_path
from torchclas.errors import DataError, OutputError
from torchclas.inference.evaluation import EvaluationReport
from torchclas.messages import label
from torchclas.metrics.single_label import ClassCounts, Proportion, Tally
from torchclas.reporting import multi_label
from torchclas.reporting.confusion import draw
from torchclas.reporting.console import Console, Table, escape, verbatim
from torchclas.reporting.image_rows import write_csv
from torchclas.text import csv_path, csv_text, printable

FIGURES, CLASS_FIGURES = "report.json", "per_class.csv"
SHOWN = 10  # rows of a printed list; the files have all


def print_report(report: EvaluationReport, console: Console) -> None:
    """Print the figures, the classes that do worst and the commonest confusions."""
    figures = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("model", report.model if report.model == report.arch else f"{report.model} ({report.arch})"),
        ("engine", report.engine),
        ("images", f"{report.images:,} of {report.samples:,}"),
        ("views", report.tta or ""),
        ("classes that compete", "" if report.competing is None else f"{report.competing:,}"),
        *_main_figures(report),
        ("time", f"{report.seconds:.1f} s, {report.samples / report.seconds:,.1f} images/s"),
    ]
    for title, text in rows:
        if text:
            figures.add_row(label(title), escape(text))
    console.print(figures)
    console.print(_class_table(report))

    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    if report.unreadable:
        print_unreadable(report.unreadable, report.samples, console)
    for path in report.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def print_unreadable(images: Sequence[tuple[str, str]], total: int, console: Console) -> None:
    """Say which images could not be read, and why."""
    console.print(
        f"[bold red]{len(images):,} of {total:,} images could not be read;[/] the figures are over the others:"
    )
    for source, error in images[:SHOWN]:
        console.print(f"  {escape(source)}: {escape(error)}", soft_wrap=True)
    if len(images) > SHOWN:
        console.print(f"  … and {len(images) - SHOWN:,} more")


def _main_figures(report: EvaluationReport) -> list[tuple[str, str]]:
    if report.multi_label is not None:
        return multi_label.figure_rows(report.multi_label)
    return [
        ("top-1", _percent(report.top1)),
        ("top-5", "" if report.top5 is None else _percent(report.top5)),
        ("top-1 by ReaL", "" if report.real is None else _percent(report.real)),
        ("TPR at FPR", _recall_at_fpr(report)),
        ("NLL", f"{report.nll:.4f}"),
        ("ECE", f"{100 * report.ece:.2f} %"),
    ]


def _recall_at_fpr(report: EvaluationReport) -> str:
    """Of two classes, how many images of the second are found."""
    if report.recall_at_fpr is None:
        return ""
    return f"{100 * report.recall_at_fpr:.2f} % at {100 * report.max_fpr:g} % ({report.class_names[1]})"


def _class_table(report: EvaluationReport) -> Table:
    """The classes that do worst."""
    if report.multi_label is not None:
        return multi_label.class_table(report.multi_label, report.class_ids, report.class_names, SHOWN)
    tested = [row for row in report.classes if row.support]
    worst = sorted(tested, key=lambda row: (row.recall or 0.0, -row.support, row.index))[:SHOWN]
    table = Table(title=f"The {len(worst)} classes with the lowest recall" if len(tested) > SHOWN else "Classes")
    for column in ("id", "name"):
        table.add_column(column)
    for column in ("images", "precision", "recall"):
        table.add_column(column, justify="right")
    table.add_column("mistaken for")
    for row in worst:
        confused = "" if row.confused_with is None else f"{report.class_names[row.confused_with]} ({row.confused})"
        shares = ("–" if share is None else f"{100 * share:.1f} %" for share in (row.precision, row.recall))
        names = report.class_ids[row.index], report.class_names[row.index]
        table.add_row(*map(verbatim, names), f"{row.support:,}", *shares, verbatim(confused))
    return table


def write_files(report: EvaluationReport, tally: Tally, output: Path) -> tuple[Path, ...]:
    """Write the figures, those of each class, the unreadable images and, with matplotlib, a chart of confusions."""
    errors = output / "errors.csv"
    written = *write_figures(report, output), errors
    write_csv(errors, ("path", "error"), ((csv_path(path), csv_text(error)) for path, error in report.unreadable))
    if report.multi_label is not None or find_spec("matplotlib") is None:
        return written
    picture = output / "confusion.png"
    title = f"{report.model} on {Path(report.data).name}: top-1 {_percent(report.top1)}, ECE {100 * report.ece:.2f} %"
    with atomic_path(picture) as path:
        draw(tally.confusion, [*map(printable, report.class_names)], report.calibration, title, path)
    return *written, picture


def write_figures(report: EvaluationReport, output: Path) -> tuple[Path, Path]:
    """Write the figures, and those of each class."""
    figures, per_class = output / FIGURES, output / CLASS_FIGURES
    with atomic_path(figures) as path:
        path.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if report.multi_label is not None:
        rows = (multi_label.class_row(row, report.class_ids, report.class_names) for row in report.multi_label.classes)
        write_csv(per_class, multi_label.CLASS_COLUMNS, rows)
    else:
        header = ("id", "name", "support", "predicted", "correct", "precision", "recall", "confused_with", "confused")
        write_csv(per_class, header, (_class_row(report, row) for row in report.classes))
    return figures, per_class


class ClassRow(NamedTuple):
    """A class in a file of figures: its name, its images, and the share of them that was found."""

    name: str
    support: int
    recall: float


def read_class_figures(path: Path) -> list[ClassRow]:
    """The classes that images are of, of what `write_figures` wrote; none where there is no such file.

    Raises:
        DataError: it is another file.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["name"], int(row["support"]), row["recall"]) for row in csv.DictReader(file)]
        return [ClassRow(name, support, float(recall)) for name, support, recall in rows if support and recall]
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged, or not written by torchclas: remove it ({error})") from error


def _class_row(report: EvaluationReport, row: ClassCounts) -> Sequence[object]:
    return (
        csv_text(report.class_ids[row.index]),
        csv_text(report.class_names[row.index]),
        row.support,
        row.predicted,
        row.hits,
        row.precision,  # None becomes an empty field
        row.recall,
        None if row.confused_with is None else csv_text(report.class_ids[row.confused_with]),
        row.confused,
    )


def make_folder(folder: Path) -> None:
    """Make the folder of a report; raises `OutputError` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder: {error.strerror}") from error


def _percent(proportion: Proportion) -> str:
    low, high = proportion.interval
    return f"{100 * proportion.value:.2f} %  (95 % interval {100 * low:.2f} – {100 * high:.2f})"
