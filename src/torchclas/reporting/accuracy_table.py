"""Published and measured accuracies of many models, for people, as CSV and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torchclas.inference.accuracy_rows import AccuracyTable, Measured, Row
from torchclas.messages import label
from torchclas.metrics.single_label import Proportion
from torchclas.reporting import pages
from torchclas.reporting.console import Console, Table, escape, print_table, verbatim
from torchclas.reporting.evaluation_report import print_unreadable
from torchclas.reporting.image_rows import write_csv
from torchclas.text import csv_path, csv_text, printable

WIDEST = 2.0  # percentage points of difference to both sides that the page draws; what is beyond stands at the edge


def print_accuracies(table: AccuracyTable, console: Console) -> None:
    """Print a row for each model, what failed, and what to know of the table."""
    rows = [(row, row.measured) for row in table.rows if row.measured is not None]
    if rows:
        drawn = Table(box=None, pad_edge=False)
        drawn.add_column("model", overflow="fold")
        drawn.add_column("top-1 % published", justify="right")
        drawn.add_column("measured", justify="right")
        drawn.add_column("95 % interval", justify="right", no_wrap=True)
        if table.comparable:
            drawn.add_column("agrees")
        drawn.add_column("top-5 % published", justify="right")
        drawn.add_column("measured", justify="right")
        for row, measured in rows:
            drawn.add_row(*_cells(row, measured, comparable=table.comparable))
        print_table(drawn, console)
    for row in table.rows:
        if row.error:
            console.print(f"[bold red]{verbatim(row.model)}:[/] {escape(row.error)}", soft_wrap=True)
    for note in table.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    if table.unreadable:
        print_unreadable(table.unreadable, table.images, console)


def said(row: Row) -> str:
    """One line about a row, as console markup."""
    if row.measured is None:
        return f"{verbatim(row.model)}: [red]{escape(row.error)}[/]"
    published = "" if row.published_top1 is None else f" ({label('published')} {row.published_top1:g})"
    return f"{verbatim(row.model)}: top-1 {100 * row.measured.top1.value:.2f} %{published}"


def write_accuracies(table: AccuracyTable, folder: Path) -> list[Path]:
    """Write the rows as `table.csv` and as `index.html`, and what could not be read as `errors.csv`."""
    written = [folder / "table.csv"]
    records = [_record(row) for row in table.rows]
    write_csv(written[0], [*records[0]], ([*record.values()] for record in records))
    written.append(_write_page(table, folder / "index.html"))
    if table.unreadable:
        written.append(folder / "errors.csv")
        rows = ((csv_path(path), csv_text(error)) for path, error in table.unreadable)
        write_csv(written[-1], ("path", "error"), rows)
    return written


def _cells(row: Row, measured: Measured, *, comparable: bool) -> Sequence[str]:
    return (
        verbatim(row.model),
        _percent(row.published_top1),
        _percent(100 * measured.top1.value),
        _interval(measured.top1),
        *((_agreement(row),) if comparable else ()),
        _percent(row.published_top5),
        _percent(None if measured.top5 is None else 100 * measured.top5.value),
    )


def _agreement(row: Row) -> str:
    if row.agrees is None:
        return "–"
    word, style = ("yes", "green") if row.agrees else ("no", "bold red")
    return f"[{style}]{label(word)}[/]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _interval(proportion: Proportion) -> str:
    low, high = proportion.interval
    return f"{100 * low:.2f} – {100 * high:.2f}"


def _record(row: Row) -> dict[str, object]:
    """A line of the CSV: accuracies are in percent, what is not there stays empty."""
    measured = row.measured
    return {
        "model": csv_path(row.model),
        "arch": row.arch,
        "series": row.series,
        "published_top1": row.published_top1,
        **_percentages("top1", measured and measured.top1),
        "published_top5": row.published_top5,
        **_percentages("top5", measured and measured.top5),
        "difference": row.difference,
        "agrees": None if row.agrees is None else "yes" if row.agrees else "no",
        **{name: getattr(measured, name, None) for name in ("nll", "ece", "images")},
        "unreadable": measured and len(measured.unreadable),
        **{name: getattr(measured, name, None) for name in ("engine", "seconds")},
        "error": csv_text(row.error),
    }


def _percentages(name: str, proportion: Proportion | None) -> dict[str, float | None]:
    values = (None, None, None) if proportion is None else (proportion.value, *proportion.interval)
    names = (name, f"{name}_low", f"{name}_high")
    return {name: None if value is None else 100 * value for name, value in zip(names, values, strict=True)}


class Whisker(NamedTuple):
    """Where the 95 % interval of a measured accuracy and the accuracy itself lie, in 0..100; 50 is as published."""

    low: float
    high: float
    value: float


def _distances(row: Row, measured: Measured) -> tuple[float, float, float] | None:
    """How far the interval's ends and the measured accuracy are from the published one, in percentage points."""
    published = row.published_top1
    if published is None or not row.comparable:
        return None
    low, high = measured.top1.interval
    return 100 * low - published, 100 * high - published, 100 * measured.top1.value - published


def _write_page(table: AccuracyTable, path: Path) -> Path:
    rows = [(row, row.measured, _distances(row, row.measured)) for row in table.rows if row.measured is not None]
    far = [abs(end) for _, _, distances in rows for end in distances or ()]
    reach = min(WIDEST, max(far, default=WIDEST))
    drawn = [
        (row, measured, distances and Whisker(*(50 + 50 * max(-1, min(1, end / reach)) for end in distances)))
        for row, measured, distances in rows
    ]
    figures = [("measured", f"{len(rows):,} / {len(table.rows):,}"), ("images", f"{table.images:,}")]
    if table.comparable:
        found = [row.agrees for row in table.rows]
        figures += [("agree", f"{found.count(True):,}"), ("disagree", f"{found.count(False):,}")]
    return pages.write_page(
        path,
        "accuracies.html",
        table=table,
        rows=drawn,
        figures=figures,
        reach=reach,
    )
