"""Write what was measured as one HTML file that needs no other: a chart to filter and point at, a table to sort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchclas.benchmarking.results import Result, Results, published, to_record
from torchclas.reporting import charts, pages


def write_page(results: Results) -> list[Path]:
    """Write `index.html`."""
    data = {
        "machine": json.loads((results.folder / "machine.json").read_text(encoding="utf-8")),
        "rows": [_row(row) for row in results.read().values()],
    }
    return [pages.write_page(results.folder / "index.html", "speed.html", data=data)]


def _row(row: Result) -> dict[str, Any]:
    entry = published(row.case.model)
    values = {**to_record(row), "setting": row.case.setting}
    if entry is None:
        return {**values, "model": Path(row.case.model).name, "kind": "", "series_title": "", "design": "", "line": ""}
    design, ssld = charts.design(entry), charts.is_ssld(entry)
    return {
        **values,
        "kind": entry.series.group.kind,
        "series_title": entry.series.title,
        "design": design,
        "ssld": ssld,
        "line": f"{design}, SSLD" if ssld else design,
    }
