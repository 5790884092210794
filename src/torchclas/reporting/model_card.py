"""A model's card: what it is, what it was made of, how good it is, and how to run it, in Markdown.

A card says what is known, and has no line for what is not. The facts are those of the catalog, of the file's own
metadata, and of the files that `train`, `distill` and `quantize` leave beside it. What stands before the text is for
the Hugging Face Hub: https://huggingface.co/docs/hub/model-cards. Cards are in English, whatever the messages are in.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from torchclas import catalog, recipes
from torchclas.atomic import atomic_path
from torchclas.catalog import Entry
from torchclas.digest import sha256_of
from torchclas.encoding import read_json
from torchclas.labels import label_set, label_set_names
from torchclas.metrics.single_label import Proportion
from torchclas.recipes import Recipe
from torchclas.reporting.amounts import mebibytes
from torchclas.reporting.evaluation_report import CLASS_FIGURES, FIGURES, read_class_figures
from torchclas.sizes import show_size
from torchclas.spec import ModelSpec
from torchclas.text import printable
from torchclas.weights.location import BEST, CARD
from torchclas.weights.metadata import Metadata, find_metadata

if TYPE_CHECKING:
    from torchclas.exporting.timm_page import OnTimm

LISTED = 100  # classes; of more, the first stand for all
FIRST = 10
WEAKEST, GOOD = 5, 0.95  # so many classes are named as limits, if less than this share of their images is found
FEW = 10  # images of a class, whose share tells little
IMAGENET_VALIDATION = 50_000  # images that the published accuracies are of
PADDLECLAS = "https://github.com/PaddlePaddle/PaddleClas"
_LABELS = {
    "imagenet1k": "the 1,000 classes of ImageNet-1k",
    "imagenet22k": "the 21,841 classes of ImageNet-22k",
    "orientation": "by how many degrees a page of text is turned",
}
# What Markdown may take for markup: anywhere, as underscores outside of words, and at the beginning of a line.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)|^[-+#=]|(?<=^\d)[.)]")
_PLAIN = re.compile(r"[A-Za-z][\w-]*(\.\d+)?", re.ASCII)
_YAML_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


@dataclass(frozen=True)
class _Figure:
    """A figure of merit; `kind` is what Hugging Face calls it, `value` in 0..1."""

    kind: str
    name: str
    value: float
    images: int
    counted: bool = True  # a share of the images, which has an interval

    @property
    def shown(self) -> str:
        return f"{100 * self.value:.2f} %"

    @property
    def interval(self) -> str:
        if not self.counted or not self.images:
            return ""
        low, high = Proportion(round(self.value * self.images), self.images).interval
        return f"{100 * low:.2f} – {100 * high:.2f} %"


@dataclass(frozen=True)
class _Data:
    """What the figures are of; `known` is whether the Hub has data of this id."""

    id: str
    name: str
    split: str = ""
    known: bool = False


@dataclass(frozen=True)
class _Measured:
    """Figures, what they are of, a sentence on where they come from, and what they leave open."""

    figures: Sequence[_Figure] = ()
    data: _Data | None = None
    said: str = ""
    limits: Sequence[str] = ()


@dataclass(frozen=True)
class PublishedAs:
    """The files of a repository of the Hub: its name, the weights in it, and where timm has the network its part."""

    repository: str
    file: Path
    timm: OnTimm | None


@dataclass(frozen=True)
class _Row:
    what: str
    says: Sequence[str]


@dataclass(frozen=True)
class _Subject:
    """A model with what is known of it: the file's metadata, the catalog's row if its weights are published ones."""

    spec: ModelSpec
    metadata: Metadata | None
    published: Entry | None
    run: Path | None  # the folder of the run that it is the best network of

    @property
    def origin(self) -> Mapping[str, Any]:
        return {} if self.metadata is None else self.metadata.origin

    @property
    def base(self) -> Entry | None:
        """The published model whose weights it began with."""
        return self.published or (_entry(str(self.origin.get("model"))) if self._from_published else None)

    @property
    def _from_published(self) -> bool:
        return self.origin.get("from") == "pretrained"


@dataclass(frozen=True)
class _Classes:
    said: str
    listed: Sequence[str] = field(default_factory=tuple[str, ...])


def write_card(spec: ModelSpec) -> Path:
    """Write the card of a model beside its file: `README.md` in a run's folder, else under the file's name."""
    assert spec.path is not None
    path = spec.path.with_name(CARD) if spec.path.name == BEST else spec.path.with_suffix(".md")
    with atomic_path(path) as temporary:
        temporary.write_text(model_card(spec), encoding="utf-8", errors="replace")
    return path


def model_card(
    spec: ModelSpec,
    *,
    address: str | None = None,
    license: str | None = None,  # noqa: A002 - SPDX's and the Hub's word
    published_as: PublishedAs | None = None,
) -> str:
    """The card of a published model, or of a file with what lies beside it, in Markdown.

    `address` is what commands and `Classifier` are to take it by (default: its published name, or the name of its
    file). `license` is an SPDX identifier (default: that of published weights; none for what was trained here).
    `published_as` is said where the card stands in a repository of the Hub.

    Raises:
        CheckpointError: the file cannot be read.
        DataError: what lies beside it is damaged.
    """
    subject = _subject(spec)
    measured = _measured(subject)
    address = address or (spec.name if spec.path is None else spec.path.name)
    chosen = license or ("" if subject.published is None else subject.published.license)
    return (
        _environment()
        .get_template("model_card.md")
        .render(
            name=_name(subject),
            summary=_summary(subject),
            license=chosen.lower(),
            tags=[*_tags(subject), *(["timm"] if published_as and published_as.timm else [])],
            hub=published_as,
            dataset=measured.data,
            metrics=[figure for figure in measured.figures if figure.kind],
            tables=[
                (title, rows)
                for title, rows in (
                    ("Model", [*_model(subject, published_as and published_as.file)]),
                    ("How it was made", [*_making(subject)]),
                    ("Preprocessing", [*_preprocessing(spec)]),
                )
                if rows
            ],
            figures=measured.figures,
            measured=measured.said,
            classes=_classes(spec),
            limits=[*_limits(subject, measured)],
            terms=_terms(subject, license),
            shell=printable(shlex.quote(address)),
            python=printable(repr(address)),
        )
    )


def _subject(spec: ModelSpec) -> _Subject:
    if spec.path is None:
        return _Subject(spec, None, catalog.find(spec.name), None)
    metadata = find_metadata(spec.path)
    entry = _entry(spec.name)
    source = "" if metadata is None else str(metadata.origin.get("source", ""))
    run = spec.path.parent if spec.path.name == BEST and (spec.path.parent / "run.json").is_file() else None
    return _Subject(spec, metadata, entry if entry is not None and source in _sources(entry) else None, run)


def _entry(name: str) -> Entry | None:
    return next((row for row in catalog.entries() if row.name == name), None)


def _sources(entry: Entry) -> list[str]:
    """What the metadata of converted weights says of their origin."""
    files = (*([entry.weights] if entry.weights else []), *entry.alternates)
    return [file.url or f"{file.package}/{file.path}" for file in files]


# What it is


def _name(subject: _Subject) -> str:
    if subject.run is not None:
        return f"{subject.spec.name} ({subject.spec.file_name})"
    return subject.spec.name


def _summary(subject: _Subject) -> str:
    spec, origin = subject.spec, subject.origin
    many = f"any number of {spec.num_classes:,} classes" if spec.multi_label else f"one of {spec.num_classes:,} classes"
    parts = [f"An image classifier that gives a picture {many}"]
    if "trained_by" in origin:
        parts.append(f"{spec.arch}, trained by {origin['trained_by']} on {origin.get('data')}")
    elif subject.published is not None:
        parts.append(f"{spec.arch} with the weights that were published as {subject.published.name}")
    else:
        parts.append(spec.arch)
    if origin.get("precision") in ("int8", "fp16"):
        parts.append("in 8-bit integers" if origin["precision"] == "int8" else "in half precision")
    return f"{parts[0]}: {', '.join(parts[1:])}."


def _tags(subject: _Subject) -> list[str]:
    suffix = subject.spec.path.suffix if subject.spec.path else ""
    formats = {".onnx": "onnx", ".xml": "openvino"}
    series = catalog.find(subject.spec.arch).series.id
    tags = ["image-classification", formats.get(suffix, "pytorch"), "torchclas", series, subject.spec.arch]
    return list(dict.fromkeys(tags))


def _model(subject: _Subject, file: Path | None) -> Iterator[_Row]:
    spec, entry = subject.spec, catalog.find(subject.spec.arch)
    series = entry.series
    yield _Row("architecture", [spec.arch])
    yield _Row("series", [series.title])
    for paper in series.papers:
        yield _Row("paper", [f"{paper.title}. {paper.authors}, {paper.venue} {paper.year}", paper.url])
    published = subject.published
    if published is not None:
        if published.params_m is not None:
            yield _Row("parameters", [f"{published.params_m:g} M, as published"])
        if published.gflops is not None:
            yield _Row("cost", [f"{published.gflops:g} · 10⁹ multiply-adds, as published"])
        for device, milliseconds in published.latency.items():
            measured = catalog.catalog().devices[device]
            columns = zip(measured.columns, milliseconds, strict=False)
            times = ", ".join(f"{ms:g} ms ({column})" for column, ms in columns)
            yield _Row("latency, as published", [f"{measured.title}: {times}"])
    else:
        from torchclas.complexity import parameters  # and torch, which published models do not need

        count = parameters(spec.arch, num_classes=spec.num_classes, in_channels=spec.in_channels, size=spec.preset.size)
        yield _Row("parameters", [f"{count:,}"])
    if file is not None:
        yield _Row("file", [f"{file.name}, {mebibytes(file.stat().st_size)}", f"SHA-256 {sha256_of(file)}"])
    elif spec.path is not None and spec.path.is_file():
        yield _Row("file", [f"{spec.path.name}, {mebibytes(spec.path.stat().st_size)}"])


def _making(subject: _Subject) -> Iterator[_Row]:
    origin, entry = subject.origin, subject.published
    if entry is not None:
        yield from _published(entry, origin)
    elif "trained_by" in origin:
        yield from _training(subject)
    elif origin.get("precision") == "int8":
        yield from _quantizing(origin)


def _published(entry: Entry, origin: Mapping[str, Any]) -> Iterator[_Row]:
    if entry.weights is not None:
        yield _Row(
            "weights", [entry.weights.url or f"{entry.weights.path} in the Python package {entry.weights.package}"]
        )
    if "sha256" in origin:
        yield _Row("their SHA-256", [str(origin["sha256"])])
    if entry.quantized_from is not None:
        yield _Row("made of", [f"{entry.quantized_from}, by torchclas quantize"])
    known = recipes.recipes()
    recipe = known.get(entry.name) or known.get(entry.recipe or "")
    if recipe is not None:
        yield from _recipe(recipe)


def _recipe(recipe: Recipe) -> Iterator[_Row]:
    yield _Row("recipe", [f"{recipe.name} ({recipe.source})"])
    optimizer = recipe.optimizer
    settings = [
        f"{recipe.epochs} epochs of {show_size(recipe.size)} px",
        f"{optimizer.name}, learning rate {optimizer.lr:g} for {recipe.total_batch} images, {recipe.schedule.name}",
        f"weight decay {optimizer.weight_decay:g}",
    ]
    augment, loss = recipe.augment, recipe.loss
    also = {
        "label smoothing": loss.label_smoothing,
        "mixup": augment.mixup,
        "CutMix": augment.cutmix,
        "random erasing": augment.erasing,
        "exponential moving average": recipe.ema,
        "stochastic depth": recipe.drop_path,
    }
    settings += [f"{what} {value:g}" for what, value in also.items() if value]
    if augment.policy:
        settings.append(augment.policy)
    if recipe.distill is not None:
        settings.append(f"distilled by {recipe.distill.method} from {recipe.distill.teacher}")
    yield _Row("", settings)
    if recipe.note:
        yield _Row("note", [recipe.note])


def _training(subject: _Subject) -> Iterator[_Row]:
    origin, base = subject.origin, subject.base
    match origin.get("from"):
        case "scratch":
            start = "random weights"
        case "pretrained":
            start = f"the weights of {origin.get('model', 'a published model')}"
        case str(weights) if weights.startswith("hf://"):
            start = f"the weights of {weights}"
        case weights:
            start = f"the weights of {Path(str(weights)).name}"
    yield _Row("start", [start + (f", published under {base.license}" if base is not None else "")])
    if "teacher" in origin:
        yield _Row("teacher", [str(origin["teacher"])])
    if "data" in origin:
        numbers = ""
        if "train_images" in origin:
            kept = "held out" if origin.get("held_out") else "to validate"
            numbers = f": {origin['train_images']:,} images to train on, {origin['val_images']:,} {kept}"
        yield _Row("data", [f"{origin['data']}{numbers}"])
    if "epoch" in origin:
        yield _Row("best epoch", [str(origin["epoch"])])
    recipe = None if subject.run is None else subject.run / "recipe.toml"
    if recipe is not None and recipe.is_file():
        yield from _recipe(recipes.recipe(str(recipe)))
    elif "recipe" in origin:
        yield _Row("recipe", [str(origin["recipe"])])
    if subject.run is not None and (starts := read_json(subject.run / "environment.json", list)):
        packages = starts[-1].get("packages", {})
        yield _Row("trained with", [", ".join(f"{name} {version}" for name, version in packages.items())])


def _quantizing(origin: Mapping[str, Any]) -> Iterator[_Row]:
    if "model" in origin:
        yield _Row("made of", [f"{origin['model']}, by torchclas quantize"])
    if "calibration_images" in origin:
        yield _Row("calibrated with", [f"{origin['calibration_images']:,} images"])
    if kept := origin.get("in_float"):
        yield _Row("left in float", [", ".join(kept)])


def _preprocessing(spec: ModelSpec) -> Iterator[_Row]:
    preset = spec.preset
    size = show_size(preset.size)
    if spec.pixels:
        yield _Row("input", ["images as they are, uint8, of any size: the model prepares them itself, as follows"])
    match preset.fit:
        case "crop":
            how = f"short side resized to {preset.resize_short} px, centre cropped to {size} px"
        case "squeeze":
            how = f"both sides resized to {size} px, whatever becomes of the proportions"
        case "pad":
            how = f"resized to fit into {size} px, the rest filled with the mean colour"
    yield _Row("size", [how])
    yield _Row("resizing", [f"{preset.interpolation}, by {preset.backend}"])
    colours = "RGB" if spec.in_channels == 3 else f"{spec.in_channels} channel" + "s" * (spec.in_channels > 1)
    numbers = (", ".join(f"{value:.4g}" for value in values) for values in (preset.mean, preset.std))
    yield _Row("values", [f"{colours}, scaled to 0..1, then less the mean {next(numbers)}, divided by {next(numbers)}"])


def _classes(spec: ModelSpec) -> _Classes:
    names = spec.classes.names()
    if spec.classes.name in label_set_names() and spec.classes is label_set(spec.classes.name):
        if len(names) > LISTED:
            return _Classes(f"{_LABELS[spec.classes.name][:1].upper()}{_LABELS[spec.classes.name][1:]}.")
        return _Classes(f"{len(names)}: {_LABELS[spec.classes.name]}.", names)
    if spec.numbered:
        return _Classes(f"{len(names):,}, which the file does not name.")
    if len(names) > LISTED:
        return _Classes(f"{len(names):,}, named in the file; the first {FIRST} are:", names[:FIRST])
    return _Classes(f"{len(names):,}, in the order of the model's outputs:", names)


# How good it is


def _measured(subject: _Subject) -> _Measured:
    if subject.published is not None:
        return _published_figures(subject.published)
    if subject.origin.get("precision") == "int8":
        return _quantized_figures(subject.spec)
    if subject.run is not None and (report := read_json(subject.run / FIGURES, dict)):
        return _report_figures(report, subject.run, subject.origin)
    return _logged_figures(subject.origin)


def _published_figures(entry: Entry) -> _Measured:
    shares = (("accuracy", "top-1", entry.top1), ("top_5_accuracy", "top-5", entry.top5))
    figures = [_Figure(kind, name, value / 100, IMAGENET_VALIDATION) for kind, name, value in shares if value]
    data = _Data("imagenet-1k", "ImageNet-1k", "validation", known=True)
    if not figures:
        return _Measured(data=None)
    return _Measured(
        figures,
        data,
        f"As published, on ImageNet-1k's {IMAGENET_VALIDATION:,} validation images. The intervals (Wilson) are ours: "
        "they tell what the choice of so many images leaves to chance.",
    )


def _report_figures(report: Mapping[str, Any], folder: Path, origin: Mapping[str, Any]) -> _Measured:
    """Of a run's report, or of what `evaluate` has put in its place since."""
    images = int(report["images"])
    data = printable(Path(str(report["data"])).name)
    figures = list[_Figure]()
    for kind, name, key in (("accuracy", "top-1", "top1"), ("top_5_accuracy", "top-5", "top5")):
        if report.get(key):
            figures.append(_Figure(kind, name, report[key]["value"], images))
    for kind, name, key in (("", "mAP", "mean_average_precision"), ("f1", "mean F1", "mean_f1")):
        if report.get(key) is not None:
            figures.append(_Figure(kind, name, report[key], images, counted=False))
    if report.get("exact") is not None:
        figures.append(_Figure("accuracy", "all classes right", report["exact"], images))
    if report.get("ece") is not None:
        figures.append(_Figure("", "expected calibration error", report["ece"], images, counted=False))
    views = f", with the views of --tta {report['tta']}" if report.get("tta") else ""
    said = (
        f"Measured on the {images:,} images of {data}{' that were held out' if origin.get('held_out') else ''}{views}."
    )
    limits = list[str]()
    if report.get("unreadable"):
        limits.append(f"{report['unreadable']:,} images could not be read, and are in no figure.")
    limits += _weakest(folder / CLASS_FIGURES)
    if "labels_by" in origin and data == origin.get("data"):
        limits.append(_agreement(origin))
    return _Measured(figures, _Data(data, data), said, limits)


def _agreement(origin: Mapping[str, Any]) -> str:
    return f"The figures tell how often it agrees with its teacher {origin['labels_by']}, not how often it is right."


def _weakest(path: Path) -> Iterator[str]:
    """The classes that do worst, where any does badly."""
    rows = sorted(read_class_figures(path), key=lambda row: (row.recall, -row.support, row.name))
    if weak := [row for row in rows[:WEAKEST] if row.recall < GOOD]:
        listed = ", ".join(f"{row.name} ({100 * row.recall:.0f} % of {row.support:,})" for row in weak)
        yield f"Classes that are missed most often, with the share of their images that is found: {listed}."
    if few := sum(row.support < FEW for row in rows):
        yield f"Of {few:,} of its classes fewer than {FEW} images were measured."


def _logged_figures(origin: Mapping[str, Any]) -> _Measured:
    """What the run noted in the file itself."""
    images = int(origin.get("val_images", 0))
    known = (("accuracy", "top-1", "val_top1"), ("top_5_accuracy", "top-5", "val_top5"), ("", "mAP", "val_map"))
    figures = [
        _Figure(kind, name, float(origin[key]), images, counted=key != "val_map")
        for kind, name, key in known
        if isinstance(origin.get(key), float)
    ]
    if not figures:
        return _Measured()
    data = printable(str(origin.get("data", "")))
    held_out = " that were held out" if origin.get("held_out") else " for validation"
    limits = [_agreement(origin)] if "labels_by" in origin else []
    return _Measured(figures, _Data(data, data), f"Measured in training, on the images of {data}{held_out}.", limits)


def _quantized_figures(spec: ModelSpec) -> _Measured:
    """Of the report that `quantize` puts beside the file."""
    assert spec.path is not None
    report = read_json(spec.path.with_suffix(".json"), dict)
    if not report or "int8" not in report:
        return _Measured()
    images, int8 = int(report["checking_images"]), report["int8"]
    labelled = int8["top1"] is not None
    data = printable(Path(str(report["checking"])).name)
    figures = [
        _Figure("", "agreement with float32", int8["agreement"] / 100, images, counted=labelled or not spec.multi_label)
    ]
    for network, title in ((int8, ""), (report["fp32"], " of the float32 network")):
        if network is not None and network["top1"] is not None:
            figures.append(_Figure("" if title else "accuracy", f"top-1{title}", network["top1"] / 100, images))
        if network is not None and network["mean_average_precision"] is not None:
            value = network["mean_average_precision"] / 100
            figures.append(_Figure("", f"mAP{title}", value, images, counted=False))
    said = f"Measured on {images:,} images of {data}, of which none was calibrated with."
    return _Measured(figures, _Data(data, data), said)


def _limits(subject: _Subject, measured: _Measured) -> Iterator[str]:
    spec, entry = subject.spec, subject.published
    if spec.multi_label:
        yield "Each class is judged by itself: a picture of none of them has none, if the thresholds are right for it."
    else:
        yield (
            "It names one of its classes whatever the picture shows, and the scores add up to 1: pictures of anything "
            "else get a class as well."
        )
    if not measured.figures:
        yield "How good it is, is not known: measure it (torchclas evaluate) before relying on it."
    if subject.origin.get("held_out"):
        yield (
            "The images that it was measured on come from the same data as those that it learned from: others, by "
            "another camera, of another place or time, may be harder."
        )
    yield from measured.limits
    if entry is not None:
        notes = " ".join(filter(None, (entry.note, entry.series.note)))
        yield from [f"{notes[:1].upper()}{notes[1:]}"] if notes else []


def _terms(subject: _Subject, chosen: str | None) -> str:
    entry, base = subject.published, subject.base
    if entry is not None and chosen is None:
        if entry.weights is not None and entry.weights.package is not None:
            return f"{entry.license}: the weights come in the Python package {entry.weights.package}."
        if entry.license != "Apache-2.0":
            return (
                f"{entry.license}, not for commercial use: that of those who trained the weights, which PaddleClas "
                f"published again ({PADDLECLAS})."
            )
        return f"{entry.license}: that of PaddleClas, which published the weights ({PADDLECLAS})."
    said = f"{chosen}." if chosen else "None is stated: it is for whoever publishes this model to choose."
    if base is not None:
        said += f" It was made from the weights of {base.name}, which come under {base.license}."
    if "trained_by" in subject.origin:
        said += " Those of the images that it learned from may bind as well."
    return said


# Markdown


def _escaped(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def _yaml(text: str) -> str:
    """A JSON string, which YAML reads as well; words that need no quotes have none."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(printable(text), ensure_ascii=False)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("torchclas.reporting"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(text=_escaped, yaml=_yaml)
    return environment
