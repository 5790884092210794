"""Write what was measured as one HTML file that needs no other: a chart to filter and hover over, a table to sort."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from torchclas.atomic import atomic_path
from torchclas.benchmarking.results import Result, Results, published, to_record
from torchclas.errors import MissingDependencyError
from torchclas.reporting import charts


def write_page(results: Results) -> list[Path]:
    """Write `index.html`; raises `MissingDependencyError` without plotly, whose script goes into the page."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingDependencyError("plotly", "'torchclas[benchmark]'") from None

    data = {
        "machine": json.loads((results.folder / "machine.json").read_text(encoding="utf-8")),
        "rows": [_row(row) for row in results.read().values()],
    }
    template = resources.files(__package__ or "").joinpath("speed_page.html").read_text(encoding="utf-8")
    before, _, rest = template.partition("/* plotly */")
    between, _, after = rest.partition("/* data */")
    # Inside a script element only `</` could end it early; in JSON's strings `<\/` means the same.
    content = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    path = results.folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text("".join((before, get_plotlyjs(), between, content, after)), encoding="utf-8")
    return [path]


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
