"""Training recipes: a typed, validated view of `recipes.toml` that needs no torch."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from torchclas import catalog
from torchclas.catalog import Backend, Interpolation, Preset
from torchclas.encoding import read_text
from torchclas.errors import DataError, Error, UnknownNameError
from torchclas.sizes import Size, to_size
from torchclas.tables import (
    Table,
    mapping,
    nearest,
    number,
    one_of,
    positive_integer,
    sequence,
    text,
    texts,
    truth,
)
from torchclas.vocabulary import Fit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # Lightning Fabric's names
Policy = Literal["", "autoaugment", "randaugment", "rand-m9-mstd0.5-inc1"]  # of augmentation
Sampling = Literal["", "balanced", "sqrt"]

# What is larger is a slip of the hand. Numbers up to here leave room for what is computed from them.
LARGEST = 1e9
LARGEST_INPUT = 8192  # pixels

T = TypeVar("T")


class RecipeError(Error, ValueError):
    """A recipe that breaks the rules; the message names the recipe and the key."""


def _check(holds: bool, key: str, rule: str, value: object) -> None:
    if not holds:
        raise RecipeError(f"{key}: must be {rule}, not {reprlib.repr(value)}")


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How gradients become steps.

    `weight_decay` is L2 regularisation (added to the gradient) for sgd and rmsprop, decoupled for adamw. `momentum` is
    for sgd and rmsprop, `betas` for adamw, `eps` for all but sgd; `alpha` smooths rmsprop's squared gradients.
    `no_decay` names what no weight decay touches, by a part of the parameter's name or of its module's class, in any
    case: "norm" is every normalisation layer. Without `decay_one_dim`, vectors and scalars are spared as well.
    `clip_each` is the largest norm of each parameter's gradient by itself (0: any), `Recipe.clip` that of all together.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = 0.9
    eps: float = 1e-8
    no_decay: tuple[str, ...] = ()
    decay_one_dim: bool = True
    clip_each: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr > 0, "lr", "a positive number", self.lr)
        _check(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        for key in ("momentum", "alpha"):
            _check(0 <= getattr(self, key) < 1, f"{key}", "in 0..1", getattr(self, key))
        _check(all(0 <= beta < 1 for beta in self.betas), "betas", "in 0..1", self.betas)
        _check(self.eps > 0, "eps", "a positive number", self.eps)
        _check(self.clip_each >= 0, "clip_each", "0 or more", self.clip_each)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over time: linear warm-up from `warmup_lr`, then half a cosine or a line to `min_lr`, or steps.

    `values` are the learning rates before, between and after the `milestones`, which are epochs since the end of the
    warm-up. What counts is their ratio to the first: the optimizer's learning rate takes its place.
    """

    name: Literal["cosine", "linear", "piecewise"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    milestones: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for key in ("warmup_epochs", "warmup_lr", "min_lr"):
            _check(getattr(self, key) >= 0, f"{key}", "0 or more", getattr(self, key))
        if self.name == "piecewise":
            rising = all(a < b for a, b in zip((0.0, *self.milestones), self.milestones))  # noqa: B905 - pairs
            _check(rising, "milestones", "epochs in rising order", self.milestones)
            count = len(self.milestones) + 1
            good = len(self.values) == count and min(self.values) > 0
            _check(good, "values", f"{count} positive numbers, one more than milestones", self.values)


@dataclass(frozen=True, slots=True)
class Augment:
    """What happens to training images, in this order; mean and std are those of the model's preset.

    `crop` is a random one of a `scale` (share of the area) and `ratio` (width over height, of squares), or what
    evaluation does (`center`), which squeezes or pads where the preset does. `flip` and `erasing` are probabilities.
    `policy` changes a share of the images, `policy_prob`; `rand-m9-mstd0.5-inc1` moves their pixels with the
    interpolation of the crop, or with `policy_interpolation`. `shift` moves the image up or down and to a side by at
    most so many pixels [height, width]; what comes into it is black.

    What is erased is a rectangle of an `erasing_area` (share of the image); the ratio of its sides is drawn by its
    logarithm or evenly (`erasing_ratio`), and it becomes noise or the mean colour (`erasing_fill`). `cutout` is the
    side in pixels of a square of the mean colour in every image. `mixup` and `cutmix` are the alphas of the Beta
    distributions, with the probability that a batch is mixed that way (it is mixed in one way at most).
    """

    crop: Literal["random", "center"] = "random"
    interpolation: Interpolation = "bilinear"
    backend: Backend = "opencv"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    policy: Policy = ""
    policy_prob: float = 1.0
    policy_interpolation: Literal["", Interpolation] = ""
    shift: tuple[int, int] | None = None
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    erasing_ratio: Literal["log", "even"] = "log"
    erasing_fill: Literal["noise", "mean"] = "noise"
    cutout: int | None = None
    mixup: float = 0.0
    mixup_prob: float = 0.0
    cutmix: float = 0.0
    cutmix_prob: float = 0.0

    def __post_init__(self) -> None:
        _check(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "two rising numbers in 0..1", self.scale)
        _check(0 < self.ratio[0] <= self.ratio[1], "ratio", "two rising positive numbers", self.ratio)
        least, most = self.erasing_area
        _check(0 < least <= most <= 1, "erasing_area", "two rising numbers in 0..1", self.erasing_area)
        _check((self.cutout or 1) <= LARGEST_INPUT, "cutout", f"an integer in 1..{LARGEST_INPUT}", self.cutout)
        good = max(self.shift or (1,)) <= LARGEST_INPUT
        _check(good, "shift", f"two integers in 1..{LARGEST_INPUT}", self.shift)
        for key in ("flip", "policy_prob", "erasing", "mixup_prob", "cutmix_prob"):
            _check(0 <= getattr(self, key) <= 1, f"{key}", "a probability", getattr(self, key))
        for key in ("mixup", "cutmix"):
            alpha, share = getattr(self, key), getattr(self, f"{key}_prob")
            _check(alpha >= 0, f"{key}", "0 or more", alpha)
            _check((alpha > 0) == (share > 0), f"{key}_prob", f"above 0 exactly where {key} is", share)
        both = self.mixup_prob + self.cutmix_prob
        _check(both <= 1, "cutmix_prob", "at most 1 together with mixup_prob", self.cutmix_prob)


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised; `head_weights` weighs the outputs of a network that has several, the main one first.

    `name` is cross entropy where an image has one class. Where it has any number of them it is "bce", binary cross
    entropy summed over the classes, or "asymmetric" (arXiv 2009.14119), which forgives easy negatives: `gamma_positive`
    and `gamma_negative` are its exponents, `margin` is taken off the probabilities of negatives.

    `class_weights` weighs the images by their class: "balanced" lets every class count as much as any other, however
    few images it has; numbers are for the classes in their order, and only their ratios matter. Where an image has any
    number of classes, they multiply the loss of those it has; "balanced" takes as many times as there are images
    without the class for each with it. "exponential" is for "bce" alone: of a class with a share s of the images, it
    weighs by exp(1 - s) what an image has and by exp(s) what it has not (PaddleClas's `weight_ratio`).
    """

    label_smoothing: float = 0.0
    head_weights: tuple[float, ...] = (1.0,)
    class_weights: Literal["", "balanced", "exponential"] | tuple[float, ...] = ""
    name: Literal["cross_entropy", "bce", "asymmetric"] = "cross_entropy"
    gamma_positive: float = 1.0
    gamma_negative: float = 4.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        _check(0 <= self.label_smoothing < 1, "label_smoothing", "in 0..1", self.label_smoothing)
        for key in ("gamma_positive", "gamma_negative"):
            _check(0 <= getattr(self, key) <= 100, key, "in 0..100", getattr(self, key))
        _check(0 <= self.margin < 1, "margin", "in 0..1", self.margin)
        good = bool(self.head_weights) and min(self.head_weights) >= 0
        _check(good, "head_weights", "numbers of 0 or more", self.head_weights)
        if isinstance(self.class_weights, tuple):
            good = min(self.class_weights, default=-1) >= 0 and max(self.class_weights) > 0
            _check(good, "class_weights", "balanced, or a number of 0 or more for each class", self.class_weights)
        good = self.class_weights != "exponential" or self.name != "asymmetric"
        _check(good, "class_weights", "balanced or numbers where the loss is asymmetric", self.class_weights)


@dataclass(frozen=True, slots=True)
class Distill:
    """What a student learns from a teacher; an empty name is for the user to fill in.

    `method` is the loss between their logits: "ssld" (symmetric KL divergence), "ce" (cross entropy with the teacher's
    probabilities) or "dkd". `label_weight` weighs the cross entropy with the labels beside it. `alpha` (the label's
    class), `beta` (all others) and `temperature` are for DKD.
    """

    teacher: str = ""
    student: str = ""
    method: Literal["ssld", "ce", "dkd"] = "ssld"
    label_weight: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for key in ("label_weight", "alpha", "beta"):
            _check(getattr(self, key) >= 0, f"{key}", "0 or more", getattr(self, key))
        _check(self.temperature > 0, "temperature", "a positive number", self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained.

    `source` says where the recipe was published or, where it is ours, what it follows. `batch_size` is per device, and
    the learning rates are for `total_batch`; they scale in proportion to the batch that is really used. `ema` is the
    decay of the averaged weights (0: none), `clip` the largest norm of the gradient (0: any). With `freeze = "body"`
    only the classifier learns. None leaves `drop_path` and `dropout` as the architecture has them.
    `input_size` is one number or [height, width]; `fit` how images come to it, empty as the model's preset has it.

    An epoch has every image once, in batches of which the last may be smaller, or left out (`drop_last`). With
    `sampling` it has as many draws with replacement: every class is drawn equally often ("balanced"), or in proportion
    to the square root of its images ("sqrt").
    """

    name: str
    source: str
    published: bool = True
    note: str = ""
    epochs: int
    batch_size: int
    devices: int = 4
    input_size: int | tuple[int, int] = 224
    fit: Literal["", Fit] = ""
    precision: Precision = "32-true"
    ema: float = 0.0
    clip: float = 0.0
    drop_path: float | None = None
    dropout: float | None = None
    freeze: Literal["", "body"] = ""
    sampling: Sampling = ""
    drop_last: bool = False
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    loss: Loss = Loss()
    distill: Distill | None = None

    def __post_init__(self) -> None:
        for key, most in (
            ("epochs", LARGEST),
            ("batch_size", LARGEST),
            ("devices", LARGEST),
        ):
            _check(0 < getattr(self, key) <= most, key, f"an integer in 1..{most:.0f}", getattr(self, key))
        sides = (self.input_size,) if isinstance(self.input_size, int) else self.input_size
        good = all(0 < side <= LARGEST_INPUT for side in sides)
        _check(good, "input_size", f"integers in 1..{LARGEST_INPUT:.0f}", self.input_size)
        _check(0 <= self.ema < 1, "ema", "in 0..1", self.ema)
        _check(self.clip >= 0, "clip", "0 or more", self.clip)
        for key in ("drop_path", "dropout"):
            _check(0 <= (getattr(self, key) or 0) < 1, key, "a probability", getattr(self, key))
        _check(
            self.schedule.warmup_epochs < self.epochs,
            "schedule.warmup_epochs",
            f"less than epochs = {self.epochs}",
            self.schedule.warmup_epochs,
        )

    @property
    def size(self) -> Size:
        """Height and width of training images, pixels."""
        return to_size(self.input_size)

    @property
    def total_batch(self) -> int:
        """Images per step, over all devices."""
        return self.batch_size * self.devices

    def with_batch(self, batch_size: int, devices: int) -> Recipe:
        """The recipe for another batch, `batch_size` per device, with all learning rates in proportion to the total."""
        scale = batch_size * devices / self.total_batch
        schedule = replace(
            self.schedule,
            warmup_lr=self.schedule.warmup_lr * scale,
            min_lr=self.schedule.min_lr * scale,
            values=tuple(value * scale for value in self.schedule.values),
        )
        optimizer = replace(self.optimizer, lr=self.optimizer.lr * scale)
        return replace(self, batch_size=batch_size, devices=devices, optimizer=optimizer, schedule=schedule)

    def for_preset(self, preset: Preset) -> Recipe:
        """The recipe for a model with this preset: its image size, and the way it resizes."""
        resize = replace(self.augment, interpolation=preset.interpolation, backend=preset.backend)
        return replace(self, augment=resize).at(preset.size)._seeing(preset.fit)

    def at(self, size: int | Size) -> Recipe:
        """The recipe for images of `size` pixels, a side or [height, width]."""
        height, width = size = to_size(size)
        return replace(self, input_size=height if height == width else size)

    def fitted(self, fit: Fit) -> Recipe:
        """The recipe for images that come to their size this way, whatever the model's preset has."""
        return replace(self, fit=fit)._seeing(fit)

    def _seeing(self, fit: Fit) -> Recipe:
        """Of an image that evaluation sees as a whole, training sees the whole."""
        return self if fit == "crop" else replace(self, augment=replace(self.augment, crop="center"))

    def to_toml(self) -> str:
        """Every setting, as `from_toml` reads it."""
        values = _to_dict(self)
        plain = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
        for name, table in values.items():
            if isinstance(table, dict):
                inner = cast(dict[str, object], table)
                plain += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in inner.items())]
        return "\n".join(plain) + "\n"

    @classmethod
    def from_toml(cls, content: str) -> Recipe:
        """Inverse of `to_toml`; raises `RecipeError`."""
        values = _load(content)
        return _read(cls, Table(str(values.get("name", "recipe")), values, RecipeError))


def recipe(name: str) -> Recipe:
    """The recipe of that name or, for a published model or an architecture, of the architecture; in any case.

    The name of a file that ends in `.toml` stands for the recipe in it, as `Recipe.to_toml` writes it.

    Raises:
        UnknownNameError: there is none of that name.
        RecipeError: the file is none, or cannot be read.
    """
    if name.endswith(".toml"):
        return _of_file(Path(name))
    known = {other.lower(): found for other, found in recipes().items()}
    if name.lower() in known:
        return known[name.lower()]
    try:
        entry = catalog.find(name)
    except UnknownNameError:
        models = {name for entry in catalog.entries() for name in (entry.name, entry.arch)}
        others = ", ".join(other for other in recipes() if other not in models)
        hint = f"each model's name is one (`torchclas list`), and so are {others}"
        raise UnknownNameError("recipe", name, [*recipes(), *catalog.names()], hint) from None
    return recipes()[entry.recipe or entry.arch]


def _of_file(path: Path) -> Recipe:
    try:
        return Recipe.from_toml(read_text(path))
    except (DataError, RecipeError) as error:
        problem = str(error).removeprefix(f"{path}: ")
        raise RecipeError(f"{path}: {problem}") from None


@cache
def recipes() -> Mapping[str, Recipe]:
    """The shipped recipes by name, read once."""
    return parse(resources.files("torchclas").joinpath("recipes.toml").read_text(encoding="utf-8"))


def parse(content: str) -> dict[str, Recipe]:
    """Read and validate recipes in the format `recipes.toml` describes; raises `RecipeError`."""
    top = Table("recipes", _load(content), RecipeError)
    found: dict[str, Recipe] = {}
    for base in top.tables("base"):
        rows = base.take("recipes", sequence)
        common = base.rest()
        for row in rows:
            differences = Table(f"{base.name}.recipes", mapping(row), RecipeError)
            names = differences.take("names", texts)
            own = _merge(common, differences.rest())
            for name in names:
                if name in found:
                    raise RecipeError(f"{name}: the name is used twice")
                found[name] = _read(Recipe, Table(name, {**own, "name": name}, RecipeError))
    top.close()
    return found


def override(base: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with settings such as `optimizer.lr=0.05` in place of its own; raises `RecipeError`.

    Values are TOML, but text needs no quotes; `none` stands for the default. What comes out is no longer published.
    """
    values = _to_dict(base)
    changes: list[str] = []
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise RecipeError(f"{setting!r} is not a setting: write key=value, such as optimizer.lr=0.05")
        if key not in (known := list(_keys(Recipe))):
            raise RecipeError(f"unknown setting {key!r}{_hint(key, known)}")
        *tables, last = key.split(".")
        target = values
        for name in tables:
            target = cast(dict[str, object], target.setdefault(name, {}))
        target.pop(last, None)
        if value != "none":
            target[last] = _value(value)
        changes.append(f"{key} = {value}")
    if changes:
        values |= {"source": f"{base.source}, with {', '.join(changes)}", "published": False}
    return _read(Recipe, Table(base.name, values, RecipeError))


def _hint(key: str, known: Iterable[str]) -> str:
    table, _, last = key.rpartition(".")
    if match := next((other for other in known if f".{other}".endswith(f".{last}")), None):
        return f", did you mean {match}?"
    siblings = [other.removeprefix(f"{table}.") for other in known if table and other.startswith(f"{table}.")]
    return f": {table} has {', '.join(siblings)}" if siblings else nearest(key, known)


def _keys(cls: type) -> Iterator[str]:
    for key, hint in get_type_hints(cls).items():
        nested = _dataclass(hint)
        yield from (f"{key}.{inner}" for inner in _keys(nested)) if nested else [key]


def _merge(base: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    """`change` over `base`, table by table."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(cast(Mapping[str, object], old), cast(Mapping[str, object], value))
        else:
            merged[key] = value
    return merged


# Reading: the dataclasses' type hints say what a table may hold.


def _load(content: str) -> dict[str, object]:
    try:
        return tomllib.loads(content)
    except RecursionError:
        raise RecipeError("not valid TOML: too many brackets within each other") from None
    except ValueError as error:  # tomllib's own, or Python's for an integer of thousands of digits
        raise RecipeError(f"not valid TOML: {error}") from error


def _value(written: str) -> object:
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except (ValueError, RecursionError):  # no TOML, or more than Python can take
        return written


def _read(cls: type[T], table: Table) -> T:
    values: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for field in fields(cast(Any, cls)):
        default = () if field.default is MISSING else (field.default,)
        nested = _dataclass(hints[field.name])
        if nested is None:
            values[field.name] = table.take(field.name, _reader(hints[field.name]), *default)
        elif (inner := table.take(field.name, mapping, None)) is None:
            values[field.name] = field.default
        else:
            values[field.name] = _read(nested, Table(f"{table.name}: {field.name}", inner, RecipeError))
    table.close()
    try:
        return cls(**values)
    except RecipeError as error:
        raise RecipeError(f"{table.name}: {error}") from None


def _dataclass(hint: Any) -> type | None:
    return next(
        (option for option in (hint, *get_args(hint)) if isinstance(option, type) and is_dataclass(option)), None
    )


def _reader(hint: Any) -> Callable[[object], Any]:
    simple: dict[Any, Callable[[object], Any]] = {str: text, bool: truth, int: positive_integer, float: _bounded}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is Literal:
        return one_of(hint)
    first, *others = get_args(hint)
    if get_origin(hint) is not tuple:  # a union; None stands for a key that is left out
        return _either([_reader(option) for option in (first, *others) if option is not type(None)])
    read_item = _reader(first)
    count = None if others == [...] else 1 + len(others)

    def read(value: object) -> tuple[Any, ...]:
        items = tuple(read_item(item) for item in sequence(value))
        if count is not None and len(items) != count:
            raise ValueError(f"{count} values")
        return items

    return read


def _bounded(value: object) -> float:
    if abs(found := number(value)) > LARGEST:
        raise ValueError(f"a number between -{LARGEST:.0e} and {LARGEST:.0e}")
    return found


def _either(readers: Sequence[Callable[[object], Any]]) -> Callable[[object], Any]:
    """What any of the readers accepts."""

    def read(value: object) -> Any:
        expected: list[str] = []
        for reader in readers:
            try:
                return reader(value)
            except ValueError as error:
                expected.append(str(error))
        raise ValueError(", or ".join(expected))

    return read


# Writing: plain values, without what is None.


def _to_dict(settings: object) -> dict[str, object]:
    values: dict[str, object] = {}
    for field in fields(cast(Any, settings)):
        value: object = getattr(settings, field.name)
        if value is not None:
            values[field.name] = _to_dict(value) if is_dataclass(value) else value
    return values


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in cast(tuple[object, ...], value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML writes texts, numbers and truth values as JSON does
