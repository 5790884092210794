"""The contact sheet shows the pictures, their classes, and why others are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchclas.data.loader import Batch
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error, ImageError
from torchclas.inference.classifier import Prediction
from torchclas.reporting import contact_sheet as montage
from torchclas.reporting.contact_sheet import BAR, BLANK, GAP, TILE, TRACK, open_montage
from torchclas.spec import find_model

ORANGE = (230, 120, 20)


@pytest.fixture
def classifier() -> Any:
    spec = find_model()
    return SimpleNamespace(
        spec=spec, preprocess=Preprocess(spec.preset)
    )  # a montage asks for no more, so no weights are needed


def batch_of(classifier: Any, colours: list[tuple[int, int, int] | None]) -> Batch:
    """Images of one colour each, normalised; None stands for one that could not be read."""
    preset = classifier.spec.preset
    pixels = [(np.array(colour) / 255 - preset.mean) / preset.std for colour in colours if colour is not None]
    images = np.broadcast_to(np.array(pixels, np.float32).reshape(-1, 3, 1, 1), (len(pixels), 3, 224, 224))
    errors = tuple(ImageError("no such file") if colour is None else None for colour in colours)
    return Batch(tuple(f"{i}.jpg" for i in range(len(colours))), errors, images)


def rows_of(batch: Batch, label: str = "espresso", score: float = 0.5) -> list[Prediction]:
    fine = Prediction("", "ok", (label,), (score,), ("n07920052",))
    failed = Prediction("", "error", error="?")
    pairs = zip(batch.sources, batch.errors, strict=True)
    return [replace(fine if error is None else failed, source=source) for source, error in pairs]


def draw(path: Path, classifier: Any, batch: Batch, rows: list[Prediction]) -> Image.Image:
    with open_montage(path, classifier) as sheet:
        sheet.add(batch, rows)
    with Image.open(path) as image:
        return image.convert("RGB")


def test_pictures_scores_and_gaps(tmp_path: Path, classifier: Any) -> None:
    batch = batch_of(classifier, [ORANGE, None, (0, 0, 255)])
    sheet = draw(tmp_path / "sheet.png", classifier, batch, rows_of(batch))
    assert sheet.width == 2 * (TILE + GAP) + GAP, "three pictures stand in two columns"
    left, middle = GAP, GAP + TILE // 2
    assert sheet.getpixel((middle, middle)) == pytest.approx(ORANGE, abs=1)
    assert sheet.getpixel((left + TILE + GAP + 3, GAP + 3)) == hex_colour(BLANK)
    bar = GAP + TILE + 4
    assert sheet.getpixel((left + TILE // 2 - 3, bar)) == hex_colour(BAR)
    assert sheet.getpixel((left + TILE // 2 + 3, bar)) == hex_colour(TRACK), "half a bar for a score of one half"


def test_the_first_64(tmp_path: Path, classifier: Any) -> None:
    batch = batch_of(classifier, [ORANGE] * 70)
    sheet = draw(tmp_path / "sheet.png", classifier, batch, rows_of(batch))
    assert sheet.width == 8 * (TILE + GAP) + GAP
    assert sheet.height == 8 * (TILE + montage.CAPTION + GAP) + GAP


def test_chinese_labels_need_a_font(
    tmp_path: Path, classifier: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = batch_of(classifier, [ORANGE])
    english = draw(tmp_path / "en.png", classifier, batch, rows_of(batch))
    assert not capsys.readouterr().err
    monkeypatch.setattr(montage, "chinese_font", lambda: None)
    chinese = draw(tmp_path / "zh.png", classifier, batch, rows_of(batch, "意式浓缩咖啡"))
    assert "no font with Chinese" in capsys.readouterr().err
    assert chinese.tobytes() == english.tobytes()


def test_nothing_readable(tmp_path: Path, classifier: Any) -> None:
    batch = batch_of(classifier, [None])
    reason = "is not an image: " + "/a/very/long/path" * 30
    sheet = draw(tmp_path / "sheet.png", classifier, batch, [Prediction("x", "error", error=reason)])
    assert sheet.width == TILE + 2 * GAP


def test_a_format_that_pillow_does_not_know(tmp_path: Path, classifier: Any) -> None:
    with pytest.raises(Error, match=r"end it in \.png"), open_montage(tmp_path / "sheet.doc", classifier):
        pass


def hex_colour(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text[1:]))
