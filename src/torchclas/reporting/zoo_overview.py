"""The whole zoo as one value: what was published, and what was measured on this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from torchclas import catalog
from torchclas.benchmarking.results import Result, Results, published
from torchclas.catalog import Entry
from torchclas.engines.machine import this_machine
from torchclas.reporting.charts import design, is_ssld
from torchclas.version import __version__
from torchclas.weights.cache import cache_dir


def zoo_overview(*, timings: bool = True) -> dict[str, Any]:
    """Devices, series and models of the catalog in plain values, and the timings of `benchmark` and `recommend`.

    `here` has the name of this machine's processor and a row for each case that was timed on it: milliseconds of a
    batch; none without `timings`. No value says where on this machine a file is.

    Raises:
        OutputError: the cache holds timings of another version of torchclas.
    """
    found = catalog.catalog()
    machine = this_machine()
    timed = Results(cache_dir() / "benchmark" / machine.id).read() if timings else {}
    return {
        "version": __version__,
        "devices": [{**asdict(device), "columns": list(device.columns)} for device in found.devices.values()],
        "series": [
            {
                "id": series.id,
                "names": {"en": series.title, "zh": series.title_zh},
                "kind": series.group.kind,
                "papers": [asdict(paper) for paper in series.papers],
                "note": series.note,
            }
            for series in found.series
        ],
        "models": [_model(entry) for entry in found.entries],
        "here": {"cpu": machine.cpu, "rows": list(_timings(timed.values()))},
    }


def _model(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "arch": entry.arch,
        "series": entry.series.id,
        "line": f"{design(entry)}, SSLD" if is_ssld(entry) else design(entry),
        "top1": entry.top1,
        "top5": entry.top5,
        "gflops": entry.gflops,
        "params_m": entry.params_m,
        "latency": {device: list(milliseconds) for device, milliseconds in entry.latency.items()},
        "num_classes": entry.num_classes,
        "labels": entry.labels,
        "preset": entry.preset.to_dict(),
        "has_weights": entry.weights is not None,
        "quantized_from": entry.quantized_from,
        "recipe": entry.recipe,
        "note": entry.note,
    }


def _timings(rows: Iterable[Result]) -> Iterator[dict[str, Any]]:
    """Of models of the catalog; files have no place among them."""
    for row in rows:
        entry = published(row.case.model)
        if row.timing is None or entry is None:
            continue
        yield {
            "model": entry.name,
            "setting": row.case.setting,
            "ms": row.timing.median_ms,
            "engine": row.timing.ran,
            "remark": row.timing.remarks,
        }
