"""The catalog of published weights: a typed, validated view of `catalog.toml` that needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

from torchclas.counterparts import refuse
from torchclas.errors import Error, UnknownNameError
from torchclas.sizes import Size, show_size, to_size
from torchclas.tables import (
    Table,
    integer_within,
    mapping,
    one_of,
    positive,
    positive_integer,
    sequence,
    text,
    texts,
    truth,
)
from torchclas.vocabulary import Fit

if TYPE_CHECKING:
    from typing_extensions import Never

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Backend = Literal["opencv", "pillow", "torchvision"]
Layout = Literal["current", "original", "lukemelas", "paddle-onnx"]
Labels = Literal["imagenet1k", "imagenet22k", "orientation"]
Kind = Literal["server", "mobile", "transformer", "other"]

MAX_SIDE = 4096  # pixels of a prepared image; the published ones have at most 512
_MIN_STD = 1e-3  # pixels divided by less are no longer numbers


class CatalogError(Error, ValueError):
    """A catalog or preset that breaks the rules; the message names the row and the key."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How an image is prepared for evaluation: fitted to `size`, which is [height, width], and normalized.

    `fit` says how:

    - `crop`: the short side is resized to `resize_short` and the centre is cropped. Where height and width differ, the
      image is resized until it covers a rectangle of that shape whose short side is `resize_short`.
    - `squeeze`: both sides are resized to `size`, whatever becomes of the image's proportions.
    - `pad`: the whole image is resized to fit in, and bars of the mean colour fill the rest.

    Lengths are in pixels; `mean` and `std` are RGB, of pixels scaled to 0..1. OpenCV's bilinear does not antialias,
    Pillow's filters do; `torchvision`, which timm uses too, is Pillow's filters with sizes rounded in its own way.
    """

    resize_short: int
    size: Size
    interpolation: Interpolation
    backend: Backend
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "crop"

    def at(self, size: int | Size) -> Preset:
        """The same for images of `size` pixels, of which the same share is cut off."""
        size = to_size(size)
        if size == self.size:
            return self
        short = max(min(size), round(self.resize_short * min(size) / min(self.size)))
        return replace(self, size=size, resize_short=short)

    def fitted(self, fit: Fit) -> Preset:
        """The same for images that come to their size another way; what shows the whole image has nothing to cut."""
        return self if fit == self.fit else replace(self, fit=fit, resize_short=min(self.size))

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON and TOML can hold."""
        return {**asdict(self), "size": list(self.size), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Preset:
        """Inverse of `to_dict`; raises `CatalogError` for unknown, missing or wrong values."""
        return _read_preset(Table("preset", values, CatalogError))


@dataclass(frozen=True, slots=True)
class Paper:
    """A publication."""

    title: str
    authors: str
    venue: str
    year: int
    url: str


@dataclass(frozen=True, slots=True)
class Group:
    """A chapter of upstream's model list; `kind` is the chart it is drawn in."""

    id: str
    kind: Kind
    title: str
    title_zh: str


@dataclass(frozen=True, slots=True)
class Device:
    """What a published latency was measured on; `columns` says what each of its numbers stands for."""

    id: str
    title: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Networks of one design."""

    id: str
    title: str
    title_zh: str
    group: Group
    papers: tuple[Paper, ...]
    note: str


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One published file: at `url`, or at `path` inside the pinned Python `package` (`name==version`)."""

    layout: Layout
    url: str | None = None
    package: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One published model: an architecture with weights, their preprocessing and what was published about them.

    `top1` and `top5` are ImageNet-1k validation accuracies in percent, `gflops` 10⁹ multiply-adds at the preset's crop
    size, `params_m` millions of parameters; None where nothing was published. `latency` maps a device's id to
    milliseconds, one per column of that device. `weights` is None where no file was published; `alternates` are the
    same weights in other layouts. `quantized_from` names the model that `torchclas quantize` makes this one from.
    `license` is the SPDX identifier of the terms that the weights come under.
    """

    name: str
    arch: str
    series: Series
    preset: Preset
    num_classes: int
    labels: Labels
    weights: WeightsFile | None
    alternates: tuple[WeightsFile, ...]
    top1: float | None
    top5: float | None
    gflops: float | None
    params_m: float | None
    latency: Mapping[str, tuple[float, ...]] = field(hash=False)
    recipe: str | None
    note: str
    quantized_from: str | None
    license: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything `catalog.toml` says, in its order."""

    devices: Mapping[str, Device]
    presets: Mapping[str, Preset]
    series: tuple[Series, ...]
    entries: tuple[Entry, ...]
    index: Mapping[str, Entry]
    """Lower-case name → entry: published names first, then architectures that have no row of their own name."""


def entries() -> tuple[Entry, ...]:
    """Every published model, in catalog order."""
    return catalog().entries


def all_series() -> tuple[Series, ...]:
    """Every series, in catalog order."""
    return catalog().series


def find(name: str) -> Entry:
    """The entry of a published name or an architecture, in any case; raises `UnknownNameError`.

    An architecture without a row of its own name stands for its first row: `RepVGG_B1` finds `RepVGG_B1s`.
    """
    try:
        return catalog().index[name.lower()]
    except KeyError:
        from torchclas.correspondence import called_here

        known = [entry.name for entry in entries()] + [entry.arch for entry in entries()]
        if hint := called_here(name):
            raise UnknownNameError("model", name, (), hint) from None
        raise UnknownNameError("model", name, dict.fromkeys(known)) from None


def names(
    pattern: str | None = None, *, series: str | None = None, pretrained: bool = False, **others: Never
) -> list[str]:
    """Published names in catalog order, those that match a glob such as `*_ssld` (in any case) and are of a series.

    `pretrained` leaves out models whose weights were never published.

    Raises:
        UnknownNameError: `series` is neither the id nor the title of one, in any case.
        UnknownArgumentError: a word of timm or torchvision; the message says what it is called here.
    """
    refuse("list_models", others)
    chosen = entries()
    if pretrained:
        chosen = tuple(entry for entry in chosen if entry.weights is not None)
    if series is not None:
        wanted = _find_series(series)
        chosen = tuple(entry for entry in chosen if entry.series is wanted)
    glob = "*" if pattern is None else pattern.lower()
    return [entry.name for entry in chosen if fnmatchcase(entry.name.lower(), glob)]


def _find_series(name: str) -> Series:
    for series in all_series():
        if name.lower() in (series.id.lower(), series.title.lower()):
            return series
    raise UnknownNameError("series", name, [series.id for series in all_series()])


@cache
def catalog() -> Catalog:
    """The shipped catalog, read once."""
    return parse(resources.files("torchclas").joinpath("catalog.toml").read_text(encoding="utf-8"))


def parse(content: str) -> Catalog:
    """Read and validate a catalog in the format `catalog.toml` describes; raises `CatalogError`."""
    try:
        top = Table("catalog", tomllib.loads(content), CatalogError)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"catalog: not valid TOML: {error}") from error
    base_url = top.take("base_url", text)
    devices = {table.name: _read_device(table) for table in top.tables("device")}
    presets = {table.name: _read_preset(table) for table in top.tables("preset")}
    groups = {table.name: _read_group(table) for table in top.tables("group")}
    papers = {table.name: _read_paper(table) for table in top.tables("paper")}
    all_series: list[Series] = []
    all_entries: list[Entry] = []
    for table in top.tables("series"):
        defaults = table.take("defaults", mapping, dict[str, object]())
        rows = list(table.tables("models"))
        series = _read_series(table, groups, papers)
        all_series.append(series)
        for row in rows:
            row.fill(defaults)
            all_entries.append(_read_entry(row, series, base_url, presets, devices))
    top.close()
    return Catalog(devices, presets, tuple(all_series), tuple(all_entries), _index(all_entries))


def _index(rows: list[Entry]) -> dict[str, Entry]:
    index: dict[str, Entry] = {}
    for row in rows:
        if index.setdefault(row.name.lower(), row) is not row:
            raise CatalogError(f"{row.name}: the name is used twice")
    for row in rows:
        index.setdefault(row.arch.lower(), row)
    return index


def _read_preset(table: Table) -> Preset:
    # `crop_size` is what files of before rectangles have.
    size = table.take("crop_size", _size, None) or table.take("size", _size)
    preset = Preset(
        resize_short=table.take("resize_short", integer_within(1, MAX_SIDE)),
        size=size,
        interpolation=table.take("interpolation", one_of(Interpolation)),
        backend=table.take("backend", one_of(Backend)),
        mean=table.take("mean", _rgb),
        std=table.take("std", _rgb),
        fit=table.take("fit", one_of(Fit), "crop"),
    )
    table.close()
    if preset.fit == "crop" and min(size) > preset.resize_short:
        raise table.error("size", f"{show_size(size)} is larger than resize_short = {preset.resize_short}")
    if min(preset.std) < _MIN_STD:
        raise table.error("std", f"must be at least {_MIN_STD}")
    return preset


def _size(value: object) -> Size:
    """A side, or height and width."""
    side = integer_within(1, MAX_SIDE)
    if not isinstance(value, (list, tuple)):
        return side(value), side(value)
    sides = sequence(value)
    if len(sides) != 2:
        raise ValueError("one number of pixels, or height and width")
    return side(sides[0]), side(sides[1])


def _read_device(table: Table) -> Device:
    device = Device(table.name, table.take("title", text), table.take("columns", texts))
    table.close()
    return device


def _read_group(table: Table) -> Group:
    group = Group(
        id=table.name,
        kind=table.take("kind", one_of(Kind)),
        title=table.take("title", text),
        title_zh=table.take("title_zh", text),
    )
    table.close()
    return group


def _read_paper(table: Table) -> Paper:
    paper = Paper(
        title=table.take("title", text),
        authors=table.take("authors", text),
        venue=table.take("venue", text),
        year=table.take("year", positive_integer),
        url=table.take("url", text),
    )
    table.close()
    return paper


def _read_series(table: Table, groups: Mapping[str, Group], papers: Mapping[str, Paper]) -> Series:
    title = table.take("title", text)
    series = Series(
        id=table.name,
        title=title,
        title_zh=table.take("title_zh", text, title),
        group=table.defined("group", table.take("group", text), groups),
        papers=tuple(table.defined("papers", paper, papers) for paper in table.take("papers", texts)),
        note=table.take("note", text, ""),
    )
    table.close()
    return series


def _read_entry(
    row: Table, series: Series, base_url: str, presets: Mapping[str, Preset], devices: Mapping[str, Device]
) -> Entry:
    arch = row.take("arch", text, row.name)
    weights, alternates = _read_weights(row, base_url)
    entry = Entry(
        name=row.name,
        arch=arch,
        series=series,
        preset=row.defined("preset", row.take("preset", text, "imagenet_224"), presets),
        num_classes=row.take("num_classes", positive_integer, 1000),
        labels=row.take("labels", one_of(Labels), "imagenet1k"),
        weights=weights,
        alternates=alternates,
        top1=row.take("top1", _percent, None),
        top5=row.take("top5", _percent, None),
        gflops=row.take("gflops", positive, None),
        params_m=row.take("params_m", positive, None),
        latency=dict(_read_latency(row, devices)),
        recipe=row.take("recipe", text, arch) or None,
        note=row.take("note", text, ""),
        quantized_from=row.take("quantized_from", text, None),
        license=row.take("license", text, "Apache-2.0"),
    )
    row.close()
    return entry


def _read_weights(row: Table, base_url: str) -> tuple[WeightsFile | None, tuple[WeightsFile, ...]]:
    layout: Layout = row.take("layout", one_of(Layout), "current")
    package = row.take("package", text, None)
    folder = row.take("folder", text, "")
    file = row.take("file", text, f"{row.name}_pretrained.pdparams")
    has_twin = row.take("twin", truth, False)
    if not file:
        return None, ()
    if package is not None:
        return WeightsFile(layout, package=package, path=file), ()
    weights = WeightsFile(layout, url="/".join(part for part in (base_url, folder, file) if part))
    twin = WeightsFile("current", url=f"{base_url}/legendary_models/{file}")
    return weights, (twin,) if has_twin else ()


def _read_latency(row: Table, devices: Mapping[str, Device]) -> Iterator[tuple[str, tuple[float, ...]]]:
    for device in devices.values():
        key = f"{device.id}_ms"
        milliseconds = row.take(key, _numbers, None)
        if milliseconds is None:
            continue
        if not 1 <= len(milliseconds) <= len(device.columns):
            raise row.error(key, f"{len(milliseconds)} numbers for the columns {', '.join(device.columns)}")
        yield device.id, milliseconds


# Readers of values that only the catalog has.


def _percent(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 < value < 100:
        raise ValueError("a percentage (76.5, not 0.765)")
    return float(value)


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(positive(item) for item in sequence(value))


def _rgb(value: object) -> tuple[float, float, float]:
    match value:
        case [int() | float() as red, int() | float() as green, int() | float() as blue] if all(
            0 <= value <= 1 for value in (red, green, blue)
        ):
            return float(red), float(green), float(blue)
        case _:
            raise ValueError("three numbers in 0..1")
