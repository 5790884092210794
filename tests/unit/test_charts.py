import re
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from torchclas import catalog
from torchclas.errors import MissingDependencyError
from torchclas.reporting import charts

COMMITTED = Path(__file__).parents[2] / "docs" / "series"

every_kind = pytest.mark.parametrize("kind", charts.CHARTS)


def point_names(svg: str) -> list[str]:
    names = {entry.name for entry in catalog.entries()}
    return [found for found in re.findall(r'<g id="([^"]+)"', svg) if found in names]


def test_every_model_with_both_figures_is_drawn_once() -> None:
    drawn = [entry.name for kind in charts.CHARTS for line in charts.lines(kind) for entry in line.entries]
    devices = {(chart.kind, chart.device) for chart in charts.CHARTS.values()}
    expected = {
        entry.name
        for entry in catalog.entries()
        if entry.top1 is not None and any((entry.series.group.kind, device) in devices for device in entry.latency)
    }
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == expected - set(charts.DOUBTFUL)


def test_the_catalog_says_what_is_doubtful() -> None:
    for name in charts.DOUBTFUL:
        assert "latenc" in catalog.find(name).note


def test_every_pattern_of_a_line_matches() -> None:
    designs = {line.design for kind in charts.CHARTS for line in charts.lines(kind)}
    assert designs >= set(charts.LINES.values())


def test_lines_go_from_fast_to_slow_and_keep_ssld_apart() -> None:
    lines = {line.label: [entry.name for entry in line.entries] for line in charts.lines("server")}
    assert lines["ResNet"] == ["ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"]
    assert lines["ResNet_vd, SSLD"] == ["ResNet34_vd_ssld", "ResNet50_vd_ssld", "ResNet101_vd_ssld"]
    assert lines["ResNeXt 64x4d"] == ["ResNeXt50_64x4d", "ResNeXt101_64x4d", "ResNeXt152_64x4d"]


@every_kind
def test_labels_are_readable(kind: str) -> None:
    axes = charts.plot(kind).axes[0]
    frame = axes.get_window_extent()
    boxes = {label.get_text(): label.get_window_extent() for label in axes.texts}
    assert set(boxes) == {line.label for line in charts.lines(kind)}
    for box in boxes.values():
        assert frame.containsx(box.x0)
        assert frame.containsx(box.x1)
        assert frame.containsy(box.y0)
        assert frame.containsy(box.y1)
    for a, b in combinations(boxes, 2):
        assert not boxes[a].overlaps(boxes[b]), f"{a} overlaps {b}"
    points = [
        (entry.latency[charts.CHARTS[kind].device][0], entry.top1) for x in charts.lines(kind) for entry in x.entries
    ]
    pixels = axes.transData.transform(np.array(points))
    for text, box in boxes.items():
        assert not any(box.contains(x, y) for x, y in pixels), f"{text} covers a point"


@every_kind
def test_svg_names_its_points_and_is_the_committed_one(kind: str, tmp_path: Path) -> None:
    charts.draw(kind, tmp_path / "now.svg")
    now = (tmp_path / "now.svg").read_text(encoding="utf-8")
    committed = (COMMITTED / f"{kind}.svg").read_text(encoding="utf-8")
    expected = [entry.name for line in charts.lines(kind) for entry in line.entries]
    assert point_names(now) == expected
    assert point_names(committed) == expected, "run `make docs`"
    assert "<dc:date>" not in now
    version = re.search(r"Matplotlib v[\d.]+", now)
    assert version
    if version[0] in committed:  # another version of matplotlib writes the same picture differently
        assert now == committed, "run `make docs`"


def test_the_same_network_is_as_fast_with_any_weights() -> None:
    """Two tables were published for the Xeon; a chart must not join their figures."""
    points = {entry.name: entry.latency["xeon6148"] for line in charts.lines("cpu") for entry in line.entries}
    assert len(points) == 11
    for name, latency in points.items():
        assert latency == points[name.removesuffix("_ssld")]


def test_png(tmp_path: Path) -> None:
    charts.draw("mobile", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'torchclas\[plot\]'"):
        charts.draw("server", tmp_path / "chart.svg")
    assert not list(tmp_path.iterdir())
