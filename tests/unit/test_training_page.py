"""The page of a training run tells what happened, whatever its classes are called, in Chinese as well."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchclas import messages
from torchclas.metrics.multi_label import figures
from torchclas.metrics.single_label import Tally
from torchclas.reporting import confusion, svg_chart, training_page
from torchclas.reporting.fonts import chinese_font, matplotlib_fonts, pillow_font
from torchclas.reporting.mistakes import Mistake, draw_mistakes
from torchclas.reporting.svg_chart import Curve
from torchclas.reporting.training_page import Run
from torchclas.training.loop import Epoch

NAMES = ("<b>bold</b>", "意式浓缩咖啡", "blue & green")


def tally_of(classes: int) -> Tally:
    """Three images of each class; of class 0 one is called class 1."""
    tally = Tally(classes)
    labels = np.repeat(np.arange(classes), 3)
    scores = np.full((len(labels), classes), 0.1 / classes, np.float32)
    scores[np.arange(len(labels)), np.where(np.arange(len(labels)) == 0, 1, labels)] += 0.9
    tally.add(scores, labels)
    return tally


def run_of(names: Sequence[str], epochs: int = 3) -> Run:
    history = [
        Epoch(epoch, 9, 0.1 / epoch, 1 / epoch, 2 / epoch, 1 - 1 / epoch, 0.9, 10, 1) for epoch in range(1, epochs + 1)
    ]
    pixels = np.zeros((8, 12, 3), np.uint8)
    return Run(
        title="model: run",
        figures=[("top-1 accuracy", "88 %")],
        facts=[("data", "/data/花卉: 9 images")],
        notes=["one note"],
        recipe='name = "finetune"',
        history=history,
        best=history[-1],
        tally=tally_of(len(names)),
        names=names,
        mistakes=[Mistake("/data/x.jpg", names[0], names[1], 0.9, pixels)],
        confusion=None,
    )


def test_the_page_in_chinese(tmp_path: Path) -> None:
    messages.use("zh")
    try:
        page = training_page.write(tmp_path / "report.html", run_of(NAMES)).read_text(encoding="utf-8")
    finally:
        messages.use("en")
    for text in (
        '<html lang="zh">',
        "top-1 准确率",
        "/data/花卉：9 张图像",
        "one note",
        "训练轮次",
        "认作 意式浓缩咖啡（90 %）",
    ):
        assert text in page
    assert "<h2>Epochs" not in page


def test_of_several_classes_the_missed_and_the_added_ones_have_their_scores(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    heat = np.eye(3, dtype=np.float32)
    wrong = {"missed": (("hat", 0.02), ("coat", 0.4)), "added": (("dog", 0.97),)}
    mistake = Mistake("x.jpg", "hat, coat", "hat", 0.02, pixels, heat, **wrong)
    scores, labels = np.array([[0.02, 0.4, 0.97]]), np.array([[1, 1, 0]])
    run = replace(run_of(NAMES), tally=figures(scores, labels), mistakes=[mistake])
    texts = page_of(run, tmp_path).texts
    assert [text for text in texts if text.startswith(("missed", "added", "said", "heat map"))] == [
        "missed hat 2%, coat 40%",
        "added dog 97%",
        "heat map: hat",
    ]
    draw_mistakes([mistake], tmp_path / "sheet.png")
    draw_mistakes([replace(mistake, missed=())], tmp_path / "shorter.png")
    heights = [Image.open(tmp_path / name).height for name in ("sheet.png", "shorter.png")]
    assert heights[0] - heights[1] == 18, "a line for each kind of mistake"


class Text(HTMLParser):
    """The tags and the text of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def page_of(run: Run, folder: Path) -> Text:
    parsed = Text()
    parsed.feed(training_page.write(folder / "report.html", run).read_text(encoding="utf-8"))
    return parsed


def test_the_page_has_classes_recipe_and_data(tmp_path: Path) -> None:
    page = page_of(run_of(NAMES), tmp_path)
    cells = [text for text in page.texts if text]
    at = cells.index("<b>bold</b>")
    assert cells[at : at + 5] == ["<b>bold</b>", "66.7", "3", "意式浓缩咖啡 (1)", "100.0"]
    assert "/data/花卉: 9 images" in page.texts
    assert 'name = "finetune"' in page.texts
    assert "one note" in page.texts
    assert page.tags.count("svg") == 4
    assert all(address.startswith("data:image/") for address in page.fetched)


def test_mistakes_have_heat_maps_beside_them(tmp_path: Path) -> None:
    run = run_of(("a", "b"))
    plain = training_page.write(tmp_path / "plain.html", run).read_text()
    hot = replace(run, mistakes=[replace(run.mistakes[0], heat=np.eye(4, dtype=np.float32))])
    page = training_page.write(tmp_path / "hot.html", hot).read_text()
    assert (plain.count("data:image/jpeg"), page.count("data:image/jpeg")) == (1, 2)
    assert ("Red is what spoke" in plain, "Red is what spoke" in page) == (False, True)


def test_many_classes_have_a_picture_in_place_of_the_matrix(tmp_path: Path) -> None:
    run = run_of([f"class {number}" for number in range(30)])
    drawn = tmp_path / "confusion.png"
    assert isinstance(run.tally, Tally)
    confusion.draw(run.tally.confusion, run.names, run.tally.calibration, "top-1", drawn)
    page = page_of(replace(run, confusion=drawn), tmp_path)
    assert "was called" in page.texts
    assert sum(address.startswith("data:image/png") for address in page.fetched) == 1


def test_long_runs_have_a_short_table(tmp_path: Path) -> None:
    page = page_of(run_of(NAMES, epochs=600), tmp_path)
    assert page.tags.count("tr") < 100


def test_charts_bear_values_that_are_not_finite_and_runs_of_one_epoch() -> None:
    one = svg_chart.line_chart("loss", [Curve("training", 0, [(1, 0.5)])])
    assert one.shapes[0].dots
    chart = svg_chart.line_chart(
        "loss", [Curve("training", 0, [(1, 0.5), (2, math.nan), (3, math.inf), (4, 100.0)])], logarithmic=True
    )
    places = [point for shape in chart.shapes for point in shape.dots]
    assert len(places) == 2
    assert all(chart.left <= x <= chart.right and 0 <= y <= chart.bottom for x, y in places)
    assert not svg_chart.line_chart("nothing", [Curve("training", 0, [])]).shapes[0].path


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (1.0, 12.0), (1.0, 300.0), (62.1, 62.4), (1e-6, 1e-3), (0.3, 2.6)]
)
def test_axes_have_a_few_round_numbers(low: float, high: float) -> None:
    chart = svg_chart.line_chart("any", [Curve("any", 0, [(low, low), (high, high)])])
    assert 3 <= len(chart.y_ticks) <= 8
    assert all(len(tick.text) <= 6 for tick in chart.y_ticks), "there is room for no more"


needs_font = pytest.mark.skipif(chinese_font() is None, reason="this machine has no font with Chinese characters")


@needs_font
def test_matplotlib_draws_chinese_characters_and_not_the_same_box_for_each() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def drawn(text: str) -> bytes:
        with matplotlib_fonts([text]):
            figure = Figure(figsize=(1, 1))
            figure.text(0.2, 0.5, text)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            return bytes(canvas.buffer_rgba())

    assert len({drawn("狗"), drawn("猫"), drawn(" ")}) == 3


@needs_font
def test_pillow_draws_chinese_characters() -> None:
    masks = [pillow_font(text, 20).getmask(text) for text in ("狗", "猫")]
    assert bytes(masks[0]) != bytes(masks[1])  # pyright: ignore[reportArgumentType]


def test_the_contact_sheet_takes_pictures_of_any_shape(tmp_path: Path) -> None:
    shapes = [(8, 12, 3), (300, 20, 3), (400, 900, 3)]
    mistakes = [
        Mistake("x", "狗", "a very long name of a class indeed", 0.9, np.zeros(shape, np.uint8)) for shape in shapes
    ]
    draw_mistakes(mistakes, tmp_path / "sheet.png")
    assert re.match(rb"\x89PNG", (tmp_path / "sheet.png").read_bytes())
    hot = [replace(mistake, heat=np.eye(3, dtype=np.float32)) for mistake in mistakes[1:]]
    draw_mistakes([mistakes[0], *hot], tmp_path / "hot.png")
    assert Image.open(tmp_path / "hot.png").width > Image.open(tmp_path / "sheet.png").width
