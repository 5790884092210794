"""What the catalog says of models, as tables for people and as JSON. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len

from torchclas import catalog
from torchclas.catalog import Entry
from torchclas.messages import label, say
from torchclas.reporting.amounts import mebibytes
from torchclas.reporting.console import Console, Table, escape, print_whole
from torchclas.sizes import show_size
from torchclas.vocabulary import Order
from torchclas.weights import cache
from torchclas.weights.location import converted_path, is_converted

SERIES_FROM = 118  # columns a terminal needs before names, series and figures stand side by side


def print_list(entries: Sequence[Entry], console: Console, notes: Console, *, order: Order = "catalog") -> None:
    """Print a table on `console`, and on `notes` what it amounts to; where the output is piped, nothing is cut off."""
    device = order.removeprefix("latency-") if order.startswith("latency-") else None
    cached = {entry.name for entry in entries if is_converted(entry)}
    latency = [] if device is None else [f"{device} ms"]
    header = ["name", "series", "top-1", "params", "GFLOPs", "input", *latency, "weights"]
    header = [label(title) for title in header]
    table = [header, *(_row(entry, device, cached=entry.name in cached) for entry in entries)]
    if console.is_terminal and console.width < SERIES_FROM:
        table = [[row[0], *row[2:]] for row in table]
    # Not a rich.Table: 219 rows of it take longer than all the rest.
    for number, line in enumerate(_aligned(table) if entries else ()):
        console.print(line, style="bold" if number == 0 else None, markup=False, highlight=False, soft_wrap=True)
    notes.print(_summary(entries, len(cached)), style="dim", highlight=False, soft_wrap=True)


def rows(entries: Sequence[Entry]) -> str:
    """A JSON list of everything the catalog says of `entries`, and whether and where their weights are cached."""
    return json.dumps([to_dict(entry) for entry in entries], ensure_ascii=False, indent=2)


def to_dict(entry: Entry) -> dict[str, Any]:
    """Plain values that JSON can hold; figures are those published, None where there were none."""
    devices = catalog.catalog().devices
    return {
        "name": entry.name,
        "arch": entry.arch,
        "series": entry.series.id,
        "papers": [asdict(paper) for paper in entry.series.papers],
        "top1": entry.top1,
        "top5": entry.top5,
        "gflops": entry.gflops,
        "params_m": entry.params_m,
        "latency_ms": {
            device: dict(zip(devices[device].columns, milliseconds, strict=False))
            for device, milliseconds in entry.latency.items()
        },
        "num_classes": entry.num_classes,
        "labels": entry.labels,
        "preprocess": entry.preset.to_dict(),
        "recipe": entry.recipe,
        "weights": None if entry.weights is None else asdict(entry.weights),
        "alternates": [asdict(weights) for weights in entry.alternates],
        "cached": is_converted(entry),
        "path": None if entry.weights is None else str(converted_path(entry)),
        "license": entry.license,
        "note": " ".join(filter(None, (entry.note, entry.series.note))),
    }


def print_info(entry: Entry, console: Console, *, computed: Sequence[tuple[str, str]] = ()) -> None:
    """Print everything the catalog says of `entry`; `computed` are more lines for the figures."""
    console.print(f"[bold]{entry.name}[/]", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in (*_info(entry), *computed):
        table.add_row(label(title), say(text))
    print_whole(table, console)


def _info(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.arch != entry.name:
        yield "architecture", entry.arch
    yield "series", f"{entry.series.title} (--series {entry.series.id})"
    for paper in entry.series.papers:
        yield "paper", f"{escape(f'{paper.title}. {paper.authors}, {paper.venue} {paper.year}')}\n{escape(paper.url)}"
    accuracy = [f"top-{k} {value:.2f} %" for k, value in ((1, entry.top1), (5, entry.top5)) if value is not None]
    yield "published", ", ".join(accuracy) + " on ImageNet-1k" if accuracy else "no accuracy"
    if entry.params_m is not None:
        yield "", f"{entry.params_m:g} M parameters"
    if entry.gflops is not None:
        yield "", f"{entry.gflops:g} GFLOPs (10⁹ multiply-adds)"
    for device_id, milliseconds in entry.latency.items():
        device = catalog.catalog().devices[device_id]
        columns = zip(device.columns, milliseconds, strict=False)
        yield "latency", escape(f"{device.title}: " + ", ".join(f"{ms:g} ms ({column})" for column, ms in columns))
    for note in filter(None, (entry.note, entry.series.note)):
        yield "[yellow]note[/]", f"[yellow]{escape(note)}[/]"
    preset = entry.preset
    yield "preprocessing", f"short side to {preset.resize_short}, centre crop {show_size(preset.size)}"
    yield "", f"{preset.interpolation} ({preset.backend})"
    yield "", f"mean {_triple(preset.mean)}, std {_triple(preset.std)}"
    yield "classes", f"{entry.num_classes:,} ({entry.labels})"
    yield "recipe", entry.recipe or "none published"
    yield "licence", entry.license
    yield from _weights(entry)


def _weights(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.weights is None:
        yield "weights", "none were published"
        return
    for number, weights in enumerate((entry.weights, *entry.alternates)):
        origin = (weights.url,) if weights.url else (str(weights.path), f"in the package {weights.package}")
        lines = *origin, f"({weights.layout} layout)"
        yield "also" if number else "weights", "\n".join(map(escape, lines))
    path = converted_path(entry)
    here = f"{path} ({mebibytes(path.stat().st_size)})" if is_converted(entry) else "not yet; fetched at first use"
    yield "cached", escape(here)


def _row(entry: Entry, device: str | None, *, cached: bool) -> list[str]:
    figures = [_figure(entry.top1, ".2f"), _figure(entry.params_m, ".2f", " M"), _figure(entry.gflops, ".3g")]
    latency = [] if device is None else [_figure(next(iter(entry.latency.get(device, ())), None), ".2f")]
    state = "none" if entry.weights is None else "cached" if cached else ""
    return [entry.name, entry.series.title, *figures, show_size(entry.preset.size), *latency, state]


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of padded cells; columns of figures, which all but their header are, stand to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # Chinese headings are two cells wide a character.
    wider = [cell_len(cell) - len(cell) for cell in table[0]]
    widths = [max(width, cell_len(cell)) for cell, width in zip(table[0], widths, strict=True)]
    right = [all(cell[:1] in "–0123456789" for cell in column) for column in zip(*table[1:], strict=True)]
    for number, row in enumerate(table):
        room = widths if number else [width - more for width, more in zip(widths, wider, strict=True)]
        cells = zip(row, room, right, strict=True)
        yield "  ".join(cell.rjust(width) if figures else cell.ljust(width) for cell, width, figures in cells).rstrip()


def _summary(entries: Sequence[Entry], cached: int) -> str:
    everything = len(catalog.entries())
    if not entries:
        return f"none of {everything} models meets all conditions"
    series = len({entry.series.id for entry in entries})
    many = "1 model" if len(entries) == 1 else f"{len(entries)} models"
    share = "" if len(entries) == everything else f" of {everything}"
    of_series = f" in {series} series" if series > 1 else ""
    return f"{many}{share}{of_series}, {cached} cached in {cache.cache_dir()}"


def _figure(value: float | None, style: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{style}}{unit}"


def _triple(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
