"""The page about a model that stands beside its weights, as the Hugging Face Hub shows it; made of facts alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torchclas.complexity import complexity
from torchclas.digest import sha256_of
from torchclas.errors import Error
from torchclas.exporting.files import WEIGHTS
from torchclas.layers.network import Network
from torchclas.sizes import show_size
from torchclas.text import printable
from torchclas.version import __version__
from torchclas.weights.hub import address_of
from torchclas.weights.location import CARD
from torchclas.weights.metadata import Metadata

_ROUNDING = 1e-3  # levels of 255 by which equal pixels may differ once they are normalised
_NAMED = 20  # classes that are listed by their names
_MARKS = re.compile(r"([\\`*\[\]<>|#~&])")  # of Markdown and HTML
# What our files say of their making, in the order of the page.
_MAKING = {
    "trained_by": "Trained by",
    "recipe": "Recipe",
    "data": "Data",
    "from": "Began from",
    "epoch": "Epoch",
    "val_top1": "Top-1 on the validation images of the run",
    "val_top5": "Top-5 on the validation images of the run",
    "val_map": "Mean average precision on the validation images of the run",
    "source": "Weights from",
    "hub": "Made from",
}


@dataclass(frozen=True)
class Place:
    """What programs call the model: a folder, or a repository of the Hub."""

    timm: str = "local-dir:FOLDER"
    transformers: str = "FOLDER"
    torchclas: str = "FOLDER"

    @classmethod
    def on_the_hub(cls, repository: str) -> Place:
        """The place of `OWNER/NAME`."""
        return cls(f"hf-hub:{repository}", repository, f"hf://{repository}")


FOLDER = Place()


@dataclass(frozen=True)
class Difference:
    """How images that timm prepares differ from ours: in 255 levels of intensity, and in logits of the largest."""

    levels: float
    logits: float
    same: int
    pictures: int


def write_card(
    network: Network,
    folder: Path,
    metadata: Metadata,
    place: Place,
    *,
    timm: str = "",
    difference: Difference | None = None,
) -> None:
    """Write the page beside the weights in a folder.

    `timm` is what timm calls the network, where it has it; `difference` is how its preprocessing differs, unless the
    network takes no RGB images.
    """
    import jinja2

    text = resources.files("torchclas.exporting").joinpath("card.md.jinja").read_text(encoding="utf-8")
    template = jinja2.Template(text, keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    content = template.render(
        title=_marked(metadata.name or metadata.arch),
        arch=metadata.arch,
        classes=metadata.num_classes,
        channels=metadata.in_channels,
        preset=metadata.preset,
        base=_base(metadata.origin),
        facts=list(_facts(network, folder / WEIGHTS, metadata)),
        place=place,
        timm=timm,
        difference=difference,
        rounding=_ROUNDING,
    )
    (folder / CARD).write_text(content, encoding="utf-8")


def _facts(network: Network, weights: Path, metadata: Metadata) -> Iterator[tuple[str, str]]:
    preset = metadata.preset
    yield "Architecture", metadata.arch
    yield "Parameters", f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
    if metadata.in_channels == 3:
        macs = complexity(metadata.arch, num_classes=metadata.num_classes, size=preset.size).macs
        yield "Multiply–accumulates for an image", f"{macs / 1e9:.2f} G"
    names = metadata.classes("").names()
    more = f" … ({len(names)} in all)" if len(names) > _NAMED else ""
    yield "Classes", "; ".join(map(_marked, names[:_NAMED])) + more
    several = "any number of classes (sigmoid)" if metadata.activation == "sigmoid" else "one class (softmax)"
    yield "An image has", several
    before = f"shorter side to {preset.resize_short}, then {preset.fit} to" if preset.fit == "crop" else preset.fit
    yield "Images", f"{before} {show_size(preset.size)}, {preset.interpolation} ({preset.backend})"
    yield "Mean, std", "; ".join(", ".join(f"{value:.6g}" for value in values) for values in (preset.mean, preset.std))
    for key, name in _MAKING.items():
        if (value := metadata.origin.get(key)) is not None:
            yield name, _marked(f"{value:.4g}" if isinstance(value, float) else str(value))
    yield f"SHA-256 of {WEIGHTS}", f"`{sha256_of(weights)}`"
    yield "Written by", f"torchclas {__version__}"


def _base(origin: Mapping[str, Any]) -> str:
    """The repository of the Hub that the weights were trained or made from."""
    for key in ("from", "hub"):
        try:
            address = address_of(str(origin.get(key, "")))
        except Error:  # a file from a stranger may say anything
            continue
        if address is not None:
            return address.repository
    return ""


def _marked(text: str) -> str:
    """Text from strangers as text of a page."""
    return _MARKS.sub(r"\\\1", printable(text))
