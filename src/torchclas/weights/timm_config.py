"""What `config.json` beside weights says of them, as timm and transformers write it: network, classes, preprocessing.

What changes the graph or an image's pixels in a way that is not known here is an error, as figures would change
without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import cast

from torchclas.catalog import MAX_SIDE, Interpolation, Preset
from torchclas.correspondence import Counterpart, counterparts
from torchclas.errors import CheckpointError
from torchclas.tables import Table, mapping, numbers, positive, positive_integer, sequence, text, texts
from torchclas.vocabulary import Activation, Fit
from torchclas.weights.location import CONFIG

_MAX_BYTES = 16 * 2**20
_CROP_MODES: dict[str, Fit] = {"center": "crop", "squash": "squeeze", "border": "pad"}
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
# What timm takes where nothing is said.
_CROP_SHARE, _MEAN, _STD = 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Arguments of timm's builders that change nothing in what a trained network computes.
_HARMLESS = frozenset(
    ("num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate",
     "pos_drop_rate", "patch_drop_rate", "drop_block_rate", "zero_init_last", "weight_init", "fused_attn")
)  # fmt: skip
_USUAL_POOLING = ("avg", "token")  # a network with the other one of these has other tensors
_ELSEWHERE = "load the weights alone (`-m NAME --weights FILE`, the file in another folder)"


@dataclass(frozen=True)
class TimmConfig:
    """What a configuration says of a model; `names` is None where it does not say what classes are called."""

    path: Path
    arch: str
    preset: Preset
    ids: tuple[str, ...] | None
    names: tuple[str, ...] | None
    activation: Activation


def timm_config(weights: Path) -> TimmConfig | None:
    """What the configuration beside a file of weights says; None where there is none, or one of another kind.

    Raises:
        CheckpointError: it is of a network that is not here, or prepares images as cannot be done here.
    """
    path = weights.with_name(CONFIG)
    if not path.is_file():
        return None
    values = _read(path)
    if "architecture" not in values:
        return None
    whole = Table(str(path), values, CheckpointError)
    architecture = whole.take("architecture", text)
    arguments = dict(whole.take("model_args", mapping, dict[str, object]()))
    trained = Table(f"{path}: pretrained_cfg", whole.take("pretrained_cfg", mapping, values), CheckpointError)
    ids, names = _classes(whole, trained)
    several = whole.take("problem_type", _any, None) == "multi_label_classification"
    return TimmConfig(
        path,
        arch=_counterpart(path, architecture, arguments).arch,
        preset=_preset(path, trained),
        ids=ids,
        names=names,
        activation="sigmoid" if several else "softmax",
    )


def _read(path: Path) -> Mapping[str, object]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path}: has more than {_MAX_BYTES // 2**20} MiB, as no configuration needs")
        values: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error})") from None
    return cast("Mapping[str, object]", values) if isinstance(values, dict) else {}


def _counterpart(path: Path, architecture: str, arguments: Mapping[str, object]) -> Counterpart:
    """The network here that timm makes with these arguments."""
    plain = architecture.partition(".")[0]
    given = {name: value for name, value in arguments.items() if name not in _HARMLESS}
    if given.get("global_pool") in _USUAL_POOLING:
        del given["global_pool"]
    named = [each for each in counterparts("timm").values() if each.name == plain]
    for counterpart in named:
        if counterpart.arguments == given:
            return counterpart
    if named:
        shown = ", ".join(f"{name}={value!r}"[:80] for name, value in given.items()) or "-"
        raise CheckpointError(f"{path}: timm's {plain} ({shown}) is none of the networks here; {_ELSEWHERE}")
    raise CheckpointError(
        f"{path}: timm's {plain[:80]!a} is none of the networks here (`docs/timm.md` lists those that are)"
    )


def _preset(path: Path, trained: Table) -> Preset:
    channels, height, width = trained.take("input_size", _shape, (3, 224, 224))
    share = trained.take("crop_pct", positive, None) or _CROP_SHARE
    fit = _CROP_MODES.get(mode := trained.take("crop_mode", _text_or_none, None) or "center")
    word = trained.take("interpolation", _text_or_none, None) or "bicubic"
    interpolation = _INTERPOLATIONS.get(word)
    mean, std = trained.take("mean", numbers, _MEAN), trained.take("std", numbers, _STD)
    if fit is None or interpolation is None or (fit != "crop" and share != 1):
        raise CheckpointError(
            f"{path}: images are prepared in a way that is not known here (crop_mode {mode}, crop_pct {share}, "
            f"interpolation {word}): {_ELSEWHERE}"
        )
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise CheckpointError(f"{path}: mean and std are not those of {channels} channels")
    short = floor(min(height, width) / share)
    if not min(height, width) <= short <= MAX_SIDE:
        raise CheckpointError(f"{path}: crop_pct {share} is no share of an image")
    rgb = [(values[0], values[len(values) // 2], values[-1]) for values in (mean, std)]
    return Preset(short, (height, width), interpolation, "torchvision", rgb[0], rgb[1], fit)


def _classes(whole: Table, trained: Table) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Ids and names; timm's label names are ids where it has descriptions of them."""
    ids: tuple[str, ...] | None = None
    described: Mapping[str, str] = {}
    for table in (whole, trained):
        ids = table.take("label_names", _labels, None) or ids
        described = table.take("label_descriptions", _described, described)
    return ids, None if ids is None else tuple(described.get(key, key) for key in ids)


# Readers of values


def _any(value: object) -> object:
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else text(value)


def _labels(value: object) -> tuple[str, ...] | None:
    """A list, or a table from numbers without gaps."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        table = cast("Mapping[str, object]", value)
        if sorted(table) != sorted(map(str, range(len(table)))):
            raise ValueError("a list of names, or a table of all numbers of classes")
        value = [table[str(index)] for index in range(len(table))]
    return texts(value)


def _described(value: object) -> Mapping[str, str]:
    return {} if value is None else {key: text(name) for key, name in mapping(value).items()}


def _shape(value: object) -> tuple[int, int, int]:
    sides = [positive_integer(side) for side in sequence(value)]
    if len(sides) != 3 or max(sides) > MAX_SIDE:
        raise ValueError(f"[channels, height, width] up to {MAX_SIDE:,}")
    return sides[0], sides[1], sides[2]
