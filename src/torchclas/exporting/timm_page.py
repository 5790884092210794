"""What is written of a network in timm, in English: the page in its folder, and a part of its card on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from torchclas.text import printable
from torchclas.weights.metadata import Metadata

_ROUNDING = 1e-3  # levels of 255 by which equal pixels may differ once they are normalised


@dataclass(frozen=True)
class OnTimm:
    """What timm calls a network, and how images that it prepares differ from ours, in a sentence or more."""

    name: str
    preprocessing: str


@dataclass(frozen=True)
class Difference:
    """How images that timm prepares differ from ours: in 255 levels of intensity, and in logits of the largest."""

    levels: float
    logits: float
    same: int
    pictures: int


def said(difference: Difference | None, metadata: Metadata) -> str:
    """What timm's own preprocessing costs."""
    if difference is None:
        return f"Images of {metadata.in_channels} channels are prepared by whoever has them."
    if difference.levels < _ROUNDING:
        return "timm prepares images as torchclas does: on sample images no pixel differs."
    by = "OpenCV, without antialiasing" if metadata.preset.backend == "opencv" else "Pillow"
    return (
        f"The weights were evaluated with images resized by {by} ({metadata.preset.interpolation}). timm resizes with "
        f"Pillow and rounds sizes its own way. On {difference.pictures} sample images intensities differ by "
        f"{difference.levels:.2f} of 255 levels in the mean, and logits by {difference.logits:.1e} of the largest; the "
        f"first class is the same for {difference.same} of {difference.pictures}. For the published pixels, prepare "
        "images with torchclas.preprocess_for."
    )


def card(there: OnTimm, metadata: Metadata) -> str:
    """The page of a folder, in Markdown."""
    import jinja2

    text = resources.files("torchclas.exporting").joinpath("timm_card.md.jinja").read_text(encoding="utf-8")
    template = jinja2.Template(text, keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return template.render(
        name=printable(metadata.name or metadata.arch),
        metadata=metadata,
        timm=there.name,
        preprocessing=there.preprocessing,
    )
