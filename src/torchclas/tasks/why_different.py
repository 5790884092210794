"""Say where two deployments of what should be one model part, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torchclas.atomic import atomic_path
from torchclas.catalog import Preset
from torchclas.comparison.difference import Difference, compare
from torchclas.comparison.foreign_numbers import SUFFIXES, ForeignNumbers, read_numbers
from torchclas.data.decode import MAX_PIXELS
from torchclas.data.sources import expand
from torchclas.engines import engine_named
from torchclas.engines.engine import PRECISIONS
from torchclas.errors import DataError, Error, UnknownNameError
from torchclas.inference.classifier import Classifier
from torchclas.spec import find_model
from torchclas.vocabulary import Precision

_OF_CLASSIFIER = ("engine", "precision", "weights", "labels", "activation", "threshold")
_OF_PRESET = tuple(field.name for field in fields(Preset))


def why_different(
    a: str,
    b: str,
    pictures: Sequence[str],
    *,
    set_a: Sequence[str] = (),
    set_b: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    output: Path | None = None,
) -> Difference:
    """Compare two deployments on pictures; `b` may be a file of numbers that another program computed for them.

    `set_a` and `set_b` are words `key=value` that change one side: how it is run (`engine`, `precision`, `weights`,
    `labels`, `activation`, `threshold`), or a field of its preset. `output` is a JSON file of all that was found.

    Raises:
        DataError: no picture was named or can be read, or the numbers do not fit.
        Error: a setting is none.
        OutputError: `output` cannot be written.
    """
    sources = list(expand(pictures))
    if not sources:
        raise DataError("no images were named: give files, folders, globs or URLs behind A and B")
    theirs: Classifier | ForeignNumbers
    if Path(b).suffix in SUFFIXES:
        if set_b:
            raise Error(f"{b} holds numbers, of which nothing can be set: leave --set-b out")
        theirs = read_numbers(b)
    else:
        theirs = deployment(b, set_b, max_pixels=max_pixels)
    found = compare(deployment(a, set_a, max_pixels=max_pixels), theirs, sources)
    if output is not None:
        with atomic_path(output) as path:
            path.write_text(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def deployment(name: str, settings: Sequence[str], *, max_pixels: int = MAX_PIXELS) -> Classifier:
    """The model of this name with settings of the form `key=value`; raises `Error` for one that is none."""
    given = dict(_split(setting) for setting in settings)
    arguments: dict[str, Any] = {key: value for key, value in given.items() if key in _OF_CLASSIFIER}
    spec = find_model(name, weights=arguments.get("weights"))
    wanted: Precision = "int8" if spec.graph == "int8" else "fp32"
    precisions = dict.fromkeys(each for some in PRECISIONS.values() for each in some)
    if (precision := arguments.pop("precision", wanted)) not in precisions:
        raise UnknownNameError("precision", precision, precisions, f"choose from {', '.join(precisions)}")
    usual = "torch" if spec.graph is None and precision != "int8" else "auto"
    engine = engine_named(arguments.pop("engine", usual))
    changes = {key: value for key, value in given.items() if key in _OF_PRESET}
    return Classifier(
        name,
        engine=engine,
        precision=precision,
        max_pixels=max_pixels,
        preset=_preset(spec.preset, changes) if changes else None,
        threshold=_number(arguments.pop("threshold")) if "threshold" in arguments else None,
        **arguments,
    )


def _split(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    known = (*_OF_CLASSIFIER, *_OF_PRESET)
    if not equals:
        raise Error(f"{setting}: a setting has the form key=value, such as engine=onnxruntime")
    if key not in known:
        raise UnknownNameError("setting", key, known, f"choose from {', '.join(known)}")
    return key, value


def _preset(preset: Preset, changes: dict[str, str]) -> Preset:
    if "size" in changes:
        sides = [int(_number(side)) for side in changes.pop("size").lower().split("x")]
        preset = preset.at((sides[0], sides[-1]))
    values: dict[str, object] = {}
    for key, value in changes.items():
        if key in ("mean", "std"):
            values[key] = [_number(part) for part in value.split(",")]
        else:
            values[key] = int(_number(value)) if key == "resize_short" else value
    return Preset.from_dict({**preset.to_dict(), **values}) if values else replace(preset)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Error(f"{text} is no number") from None
