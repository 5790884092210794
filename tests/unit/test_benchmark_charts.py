"""Charts and the page of what was measured."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.timings import TINY, kept, row
from torchclas import catalog
from torchclas.benchmarking.results import settings
from torchclas.engines.machine import this_machine
from torchclas.errors import MissingDependencyError
from torchclas.reporting import charts, speed_charts, speed_page


def test_charts_hold_the_measured_points(tmp_path: Path) -> None:
    rows = [row("ResNet18", 12), row("ResNet50", 30), row("ResNet50_vd_ssld", 33), row("AlexNet", 9), row(TINY, 2)]
    results = kept(tmp_path, *rows, row(TINY, 14, batch=8), row("PPLCNet_x1_0_text_orientation", 5))
    written = speed_charts.write_charts(results)
    folder = tmp_path / "charts" / "torch-fp32-batch-1-1-thread"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}{suffix}" for name in ("server", "mobile", "other", "pareto") for suffix in (".svg", ".png")
    }
    assert all(path.stat().st_size for path in written)
    ids = {element.get("id") for element in ElementTree.parse(folder / "server.svg").iter()}
    assert {"ResNet18", "ResNet50", "ResNet50_vd_ssld"} <= ids
    assert "AlexNet" not in ids
    ids = {element.get("id") for element in ElementTree.parse(folder / "pareto.svg").iter()}
    assert {each.case.model for each in rows} <= ids

    shown = speed_charts.measured(next(iter(settings(results.read())))[1])
    axes = speed_charts.plot_kind([each for each in shown if each.entry.series.group.kind == "server"], "batch 1").axes[
        0
    ]
    points = {line.get_gid(): tuple(np.ravel(line.get_xydata())) for line in axes.lines if line.get_gid()}
    assert points == {
        model: (ms, catalog.find(model).top1)
        for model, ms in (("ResNet18", 12), ("ResNet50", 30), ("ResNet50_vd_ssld", 33))
    }
    assert "measured" in axes.get_xlabel()
    assert "published" in axes.get_ylabel()


def test_throughput_has_every_model_in_every_setting(tmp_path: Path) -> None:
    rows = kept(tmp_path, row(TINY, 2), row(TINY, 8, batch=8), row("AlexNet", 9)).read()
    axes = speed_charts.plot_throughput(dict(settings(rows))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AlexNet", TINY]
    drawn = {str(line.get_gid()): np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_gid()}
    assert drawn == {
        "torch fp32, batch 1, 1 thread": [[1000 / 9, 0], [500, 1]],
        "torch fp32, batch 8, 1 thread": [[1000, 1]],
    }


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_pareto_front(values: list[tuple[int, int]]) -> None:
    points = [speed_charts.Point(str(number), x, y) for number, (x, y) in enumerate(values)]
    front = speed_charts.pareto_front(points)
    for point in points:
        beaten = any(
            other.x <= point.x and other.y >= point.y and (other.x, other.y) != (point.x, point.y) for other in points
        )
        assert beaten == ((point.x, point.y) not in {(other.x, other.y) for other in front})
    assert front == sorted(front, key=lambda point: point.x)


def test_the_page_holds_its_rows_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    failed = replace(row("AlexNet", 1), timing=None, error="bad </script><b>")
    (page,) = speed_page.write_page(kept(tmp_path, row(TINY, 2), failed))
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert [each["model"] for each in data["rows"]] == [TINY, "AlexNet"]
    assert data["rows"][0]["median_ms"] == 2
    assert data["rows"][1]["error"] == failed.error
    assert data["machine"]["cpu"] == this_machine().cpu
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)


def test_what_is_read_from_files_cannot_end_the_script_of_the_page(tmp_path: Path) -> None:
    rows = [row(f"{tmp_path}/{name}.onnx", 2) for name in ("<!--<script>", "</script>", "a&b")]
    (page,) = speed_page.write_page(kept(tmp_path, *rows))
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    assert [each["model"] for each in json.loads(found[1])["rows"]] == ["<!--<script>.onnx", "script>.onnx", "a&b.onnx"]


def test_the_page_is_small_and_says_when_the_machine_was_busy(tmp_path: Path) -> None:
    busy = row(TINY, 2)
    assert busy.timing is not None
    busy = replace(busy, timing=replace(busy.timing, remark="the machine was busy"))
    (page,) = speed_page.write_page(kept(tmp_path, busy))
    assert page.stat().st_size < 100_000
    assert '"remark": "the machine was busy"' in page.read_text(encoding="utf-8")


def test_without_what_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = kept(tmp_path, row(TINY, 2))
    for module in ["matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        speed_charts.write_charts(results)
    assert speed_page.write_page(results)[0].is_file(), "the page draws its own"


def test_designs_of_published_and_measured_charts_are_the_same() -> None:
    entry = catalog.find("ResNet50_vd_ssld")
    assert (charts.design(entry), charts.is_ssld(entry)) == ("ResNet_vd", True)
