"""Draw accuracy against latency, the catalog's figures as lines of related models. Needs matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchclas import catalog
from torchclas.catalog import Entry, Kind
from torchclas.reporting import line_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Chart(NamedTuple):
    """Models of one kind on one device. Of a device's columns the first one is drawn: one image, one thread."""

    kind: Kind
    device: str


CHARTS = {
    "server": Chart("server", "v100"),
    "mobile": Chart("mobile", "sd855"),
    "cpu": Chart("mobile", "xeon6148"),
    "transformer": Chart("transformer", "v100"),
}

# Series that are several lines; every other one is a line under its own title.
LINES = {
    "ResNet50_vc": "ResNet_vc",
    "ResNet*_vd*": "ResNet_vd",
    "MobileNetV3_large_*_int8": "MobileNetV3 large, int8",
    "MobileNetV3_large_*": "MobileNetV3 large",
    "MobileNetV3_small_*": "MobileNetV3 small",
    "ResNeXt*_vd_32x4d": "ResNeXt_vd 32x4d",
    "ResNeXt*_vd_64x4d": "ResNeXt_vd 64x4d",
    "ResNeXt*_32x4d": "ResNeXt 32x4d",
    "ResNeXt*_64x4d": "ResNeXt 64x4d",
    "Res2Net*_vd_*": "Res2Net_vd",
    "SE_HRNet*": "SE_HRNet",
    "Xception*_deeplab": "Xception deeplab",
    "SwinTransformer_*_22kto1k": "Swin Transformer, 22k",
    "ViT_*_patch16_224": "ViT/16, 224 px",
    "ViT_*_patch16_384": "ViT/16, 384 px",
    "ViT_*_patch32_384": "ViT/32, 384 px",
    "DeiT_*_distilled_*": "DeiT distilled",
    "pcpvt_*": "Twins-PCPVT",
    "alt_gvt_*": "Twins-SVT",
}

# Left out, because the published latency is another model's or another input size's; their notes say whose.
DOUBTFUL = (
    "ResNeXt101_vd_64x4d",
    "ShuffleNetV2_swish",
    "Fix_ResNeXt101_32x48d_wsl",
    "DeiT_tiny_patch16_224",
)


@dataclass(frozen=True)
class Line:
    """Models of one design, the fastest first; `ssld` tells those trained by distillation."""

    design: str
    ssld: bool
    entries: tuple[Entry, ...]

    @property
    def label(self) -> str:
        """What stands beside it."""
        return f"{self.design}, SSLD" if self.ssld else self.design


def lines(chart: str) -> list[Line]:
    """What a chart shows, in catalog order."""
    device = CHARTS[chart].device
    groups: dict[tuple[str, bool], list[Entry]] = {}
    for entry in catalog.entries():
        if is_drawn(entry, chart):
            groups.setdefault((design(entry), is_ssld(entry)), []).append(entry)
    return [
        Line(name, ssld, tuple(sorted(group, key=lambda entry: entry.latency[device][0])))
        for (name, ssld), group in groups.items()
    ]


def is_drawn(entry: Entry, chart: str) -> bool:
    """Whether a chart shows it: it has an accuracy, and a latency of its own on the chart's device."""
    kind, device = CHARTS[chart]
    right = entry.series.group.kind == kind and device in entry.latency
    return right and entry.top1 is not None and entry.name not in DOUBTFUL


def draw(chart: str, path: Path) -> None:
    """Write a chart; the file's suffix says in which format.

    An SVG has no background, suits light and dark pages, is the same on every run, and has every point under its
    model's name. Raises `MissingDependencyError` without matplotlib.
    """
    line_chart.write(path, lambda: plot(chart), salt=chart)


def plot(chart: str) -> Figure:
    """A chart as a figure of 72 pixels per inch."""
    name = CHARTS[chart].device
    device = catalog.catalog().devices[name]
    drawn = [
        line_chart.Line(line.design, line.ssld, tuple(_point(entry, name) for entry in line.entries))
        for line in lines(chart)
    ]
    return line_chart.plot_lines(
        drawn,
        x_label=f"milliseconds per image: {device.title}, {device.columns[0]}",
        y_label="ImageNet-1k top-1 accuracy, %",
    )


def design(entry: Entry) -> str:
    """The line that a model belongs to."""
    return next((label for glob, label in LINES.items() if fnmatchcase(entry.name, glob)), entry.series.title)


def is_ssld(entry: Entry) -> bool:
    """Whether its weights were distilled, which makes a line of its own."""
    return "_ssld" in entry.name


def _point(entry: Entry, device: str) -> line_chart.Point:
    assert entry.top1 is not None
    return line_chart.Point(entry.name, entry.latency[device][0], entry.top1)
