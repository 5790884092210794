"""Pictures and a page of a training run. The page is one file with everything in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from torchclas.atomic import atomic_path
from torchclas.training.loop import Epoch

TILE, CAPTION, GAP, COLUMNS = 144, 40, 12, 8  # pixels, but for the last
LARGE_RANGE = 30  # of losses: drawn on a logarithmic scale
TABLE_ROWS = 60  # more epochs than this are thinned out in the page

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --faint: #667085; --paper: #fff; --line: #e4e7ec; --good: #2f6fde }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --faint: #98a2b3; --paper: #14181f; --line: #2c3440; --good: #7aa7ff }
  img.chart { filter: invert(.9) hue-rotate(180deg) }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
.big { display: flex; flex-wrap: wrap; gap: 2.5rem; margin: 1.2rem 0 } .big b { display: block; font-size: 2rem }
.big span, figcaption, caption { color: var(--faint) }
img.chart { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } caption { text-align: left }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child { text-align: left } tr.best { color: var(--good); font-weight: 600 }
.facts td { text-align: left } .facts td:first-child { color: var(--faint) }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; image-rendering: auto; border-radius: 4px }
figcaption { font-size: .85rem; line-height: 1.3; overflow-wrap: anywhere } figcaption b { color: var(--ink) }
code { background: var(--line); padding: .1rem .3rem; border-radius: 4px } .wide { overflow-x: auto }
""".strip()


@dataclass(frozen=True, eq=False)
class Mistake:
    """A validation image, as the network saw it (uint8 [H, W, 3]), that it gave the wrong class with this score."""

    source: str
    truth: str
    said: str
    score: float
    pixels: npt.NDArray[np.uint8]


def draw_curves(history: Sequence[Epoch], paths: Iterable[Path]) -> None:
    """Loss, accuracy and learning rate over the epochs, one file for each path. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) < 40 else None
    best = max(history, key=lambda row: (row.val_top1, -row.val_loss))
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "torchclas"}):
        figure = Figure(figsize=(13, 4), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        loss.plot(epochs, [row.train_loss for row in history], label="training", marker=marker, markersize=3)
        loss.plot(epochs, [row.val_loss for row in history], label="validation", marker=marker, markersize=3)
        loss.set(title="Loss", xlabel="epoch")
        losses = [value for row in history for value in (row.train_loss, row.val_loss) if value > 0]
        if losses and max(losses) > LARGE_RANGE * min(losses):  # or a bad start would flatten all the rest
            loss.set_yscale("log")
        loss.legend()
        accuracy.plot(epochs, [100 * row.val_top1 for row in history], label="top-1", marker=marker, markersize=3)
        if any(row.val_top5 < 1 for row in history):
            accuracy.plot(epochs, [100 * row.val_top5 for row in history], label="top-5", marker=marker, markersize=3)
        accuracy.plot(best.epoch, 100 * best.val_top1, "*", color="tab:red", markersize=12,
                      label=f"best: {100 * best.val_top1:.2f} %, epoch {best.epoch}")  # fmt: skip
        accuracy.set(title="Validation accuracy (%)", xlabel="epoch")
        accuracy.legend(loc="lower right")
        rate.plot(epochs, [row.lr for row in history], marker=marker, markersize=3, color="tab:green")
        rate.set(title="Learning rate at the epoch's end", xlabel="epoch", ylim=(0, None))
        for axes in (loss, accuracy, rate):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for path in paths:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_mistakes(mistakes: Sequence[Mistake], path: Path, font: Path | None) -> None:
    """A contact sheet: what each image is, and below it what it was taken for."""
    columns = max(1, min(COLUMNS, len(mistakes)))
    rows = max(1, -(-len(mistakes) // columns))
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP), GAP + rows * (TILE + CAPTION + GAP)), "#ffffff")
    pen = ImageDraw.Draw(sheet)
    letters = ImageFont.load_default(13) if font is None else ImageFont.truetype(str(font), 13)
    for index, mistake in enumerate(mistakes):
        left = GAP + index % columns * (TILE + GAP)
        top = GAP + index // columns * (TILE + CAPTION + GAP)
        sheet.paste(_tile(mistake), (left, top))
        lines = ((mistake.truth, "#1c2330", 17), (f"said {mistake.said} ({mistake.score:.0%})", "#b42318", 35))
        for text, colour, below in lines:
            while text and letters.getlength(text) > TILE:
                text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
            pen.text((left, top + TILE + below), text, colour, letters, anchor="ls")
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def write_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Sequence[tuple[str, str]],
    history: Sequence[Epoch],
    best: Epoch,
    charts: Sequence[tuple[str, Path]],
    mistakes: Sequence[Mistake],
    notes: Sequence[str] = (),
) -> None:
    """Write an HTML page that needs no other file: figures, charts, the log, mistakes, and how the run was made."""
    big = "".join(f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for name, value in figures)
    pictures = "".join(
        f'<h2>{_text(name)}</h2><img class="chart" alt="{_text(name)}" src="{_embedded(chart.read_bytes())}">'
        for name, chart in charts
    )
    step = max(1, -(-len(history) // TABLE_ROWS))
    shown = [row for row in history if row.epoch % step == 0 or row in (best, history[-1])]
    rows = "".join(
        f"<tr{' class=best' if row is best else ''}><td>{row.epoch}<td>{row.train_loss:.4f}<td>{row.val_loss:.4f}"
        f"<td>{100 * row.val_top1:.2f}<td>{100 * row.val_top5:.2f}<td>{row.lr:.2e}<td>{row.images_per_second:,.0f}"
        for row in shown
    )
    tiles = "".join(
        f'<figure><img alt="" src="{_embedded(_jpeg(mistake))}"><figcaption><b>{_text(mistake.truth)}</b><br>'
        f"said {_text(mistake.said)} ({mistake.score:.0%})<br>{_text(Path(mistake.source).name)}</figcaption></figure>"
        for mistake in mistakes
    )
    table = "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in facts)
    remarks = "".join(f"<p>{_text(note)}" for note in notes)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
        f'<h1>{_text(title)}</h1><div class="big">{big}</div>{remarks}{pictures}'
        + (f'<h2>The surest mistakes</h2><div class="tiles">{tiles}</div>' if mistakes else "")
        + '<h2>Epochs</h2><div class="wide"><table><tr><th>epoch<th>training loss<th>validation loss<th>top-1 %'
        f"<th>top-5 %<th>learning rate<th>images/s{rows}</table></div>"
        f'<h2>How</h2><div class="wide"><table class="facts">{table}</table></div></html>\n'
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _tile(mistake: Mistake) -> Image.Image:
    small = mistake.pixels.shape[0] < TILE
    how = Image.Resampling.BICUBIC if small else Image.Resampling.LANCZOS
    return Image.fromarray(mistake.pixels).resize((TILE, TILE), how)


def _jpeg(mistake: Mistake) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    _tile(mistake).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _embedded(content: bytes) -> str:
    kind = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpeg"}.get(content[:4], "svg+xml")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
