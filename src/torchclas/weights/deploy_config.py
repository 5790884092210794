"""What stands beside an inference model: how images are prepared for it, and what its classes are called.

PaddleX writes `inference.yml` into the folder, PaddleClas has `deploy/configs/inference_cls.yaml` for it. In both,
`PreProcess.transform_ops` lists the steps before the network and `PostProcess` what comes after it. A step that cannot
be done here is an error, as figures would change without it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torchclas.catalog import MAX_SIDE, Backend, Interpolation, Preset
from torchclas.errors import CheckpointError
from torchclas.labels import read_names
from torchclas.sizes import Size
from torchclas.tables import Table, sequence, text, texts
from torchclas.vocabulary import Fit
from torchclas.weights.kinds import files_of
from torchclas.yaml_text import Yaml, read_yaml

_FRACTION = re.compile(r"([\d.eE+-]{1,30})(?:/([\d.eE+-]{1,30}))?")  # PaddleClas writes 1.0/255.0
_ROUNDING = 1e-5  # of 1/255, which is written with six digits
_NOTHING = ("", "~", "null", "Null", "NULL", "None")
_STEPS = ("DecodeImage", "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")  # in the order that is known here
_BACKENDS: dict[str, Backend] = {"cv2": "opencv", "pil": "pillow"}
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
_ELSEWHERE = "or take the file away, and images are prepared as is usual for the architecture"


@dataclass(frozen=True)
class DeployConfig:
    """What a configuration says of a model; what it does not say is None, or empty.

    `threshold` is the least score of a class, where images have several.
    """

    path: Path
    model_name: str
    preset: Preset | None
    names: tuple[str, ...] | None
    threshold: float | None = None


def deploy_config(model: Path) -> DeployConfig | None:
    """What the configuration beside an inference model says; None where there is none.

    Raises:
        CheckpointError: there are several, or one asks for what cannot be done here.
        DataError: it is no YAML that is read, or the file with the classes is none.
        MissingDependencyError: PyYAML is not installed.
    """
    program, _ = files_of(model)
    own = [path for suffix in (".yml", ".yaml") if (path := program.with_suffix(suffix)).is_file()]
    found = own or sorted(path for path in program.parent.glob("inference*") if path.suffix in (".yml", ".yaml"))
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3])
        raise CheckpointError(
            f"{program}: several configurations are beside it ({names}): keep the one that is its own"
        )
    path = found[0]
    whole = _table(f"{path}", read_yaml(path))
    common, before, after = (
        _table(f"{path}: {part}", whole.take(part, _any, {})) for part in ("Global", "PreProcess", "PostProcess")
    )
    steps, results = before.take("transform_ops", sequence, None), after.rest()
    return DeployConfig(
        path,
        model_name=common.take("model_name", text, ""),
        preset=None if steps is None else _preset(path, steps),
        names=_names(path, results),
        threshold=_threshold(path, results),
    )


# Before the network


def _preset(path: Path, steps: object) -> Preset:
    """The steps before the network as one preset."""
    tables: dict[str, Table] = {}
    for step in sequence(steps):
        entries: Mapping[str, object] = (
            cast("Mapping[str, object]", step) if isinstance(step, dict) else {str(step): ""}
        )
        for name, options in entries.items():
            known = [each for each in _STEPS if each in tables or each == name]
            if name not in _STEPS or name in tables or known[-1] != name:
                raise CheckpointError(
                    f"{path}: the step {name[:60]!a} cannot be done here, or not in that place: prepare images "
                    f"yourself (torchclas.create_model), {_ELSEWHERE}"
                )
            tables[name] = _table(f"{path}: {name}", options)
    decode, resize, crop, normalize = (
        tables.get(name, Table(f"{path}: {name}", {}, CheckpointError)) for name in _STEPS[:4]
    )
    if decode.take("to_rgb", _truth, True) is False or decode.take("channel_first", _truth, False):
        raise decode.error("to_rgb", f"only RGB images are prepared here: prepare them yourself, {_ELSEWHERE}")
    decode.take("to_np", _any, "")
    decode.take("img_mode", _any, "")
    short = resize.take("resize_short", _side, None)
    squeezed = resize.take("size", _size, None)
    cropped = crop.take("size", _size, None)
    backend = _BACKENDS.get(word := resize.take("backend", text, "cv2"))
    usual = "bicubic" if backend == "pillow" else "bilinear"
    interpolation = _INTERPOLATIONS.get(how := resize.take("interpolation", text, usual).lower())
    if backend is None or interpolation is None:
        raise resize.error("interpolation", f"{how} of {word} is not done here: prepare images yourself, {_ELSEWHERE}")
    resize.take("return_numpy", _any, "")
    size: Size
    fit: Fit
    if short is not None and squeezed is None and cropped is not None and cropped[0] == cropped[1] <= short:
        size, fit = cropped, "crop"
    elif short is None and squeezed is not None and cropped in (None, squeezed):
        size, fit, short = squeezed, "squeeze", min(squeezed)
    else:
        raise CheckpointError(
            f"{path}: images are not fitted in a way that is known here, a short side with a square cut out of its "
            f"centre, or both sides: prepare images yourself (torchclas.create_model), {_ELSEWHERE}"
        )
    mean, std = _statistics(normalize)
    for table in (decode, resize, crop, normalize):
        table.close()
    return Preset(short, size, interpolation, backend, mean, std, fit)


def _statistics(normalize: Table) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of pixels scaled to 0..1, whatever scale the step has."""
    scale = normalize.take("scale", _number, 1 / 255) * 255
    if abs(scale - 1) < _ROUNDING:
        scale = 1.0
    mean, std = (
        normalize.take("mean", _three, (0.485, 0.456, 0.406)),
        normalize.take("std", _three, (0.229, 0.224, 0.225)),
    )
    if scale <= 0 or min(std) <= 0:
        raise normalize.error("std", "must be above 0, and the scale too")
    if normalize.take("channel_num", _number, 3) != 3:
        raise normalize.error("channel_num", f"only images of 3 channels are prepared here: {_ELSEWHERE[3:]}")
    normalize.take("order", _any, "")
    normalize.take("output_fp16", _any, "")
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


# After it


def _names(path: Path, results: Mapping[str, object]) -> tuple[str, ...] | None:
    """What classes are called; None where it is not said."""
    indicator = results.get("main_indicator", "")
    kind = str(indicator) or next((name for name in results if name not in ("main_indicator", "SavePreLabel")), "")
    options = _table(f"{path}: {kind}", results.get(kind, ""))
    if (names := options.take("label_list", texts, None)) is not None:
        return names
    if (file := options.take("class_id_map_file", text, None)) is not None:
        # Of its path only the name counts: it says where PaddleClas was, and a stranger's should lead nowhere.
        beside = path.with_name(re.split(r"[/\\]", file)[-1] or "-")
        if beside.is_file():
            return read_names(beside)
        if beside.name != _IMAGENET:
            warnings.warn(f"{path}: the names of the classes are in {beside.name}, which is not here", stacklevel=4)
        return None
    pair = options.take("label_0", text, None), options.take("label_1", text, None)
    return (pair[0], pair[1]) if pair[0] is not None and pair[1] is not None else None


def _threshold(path: Path, results: Mapping[str, object]) -> float | None:
    options = _table(f"{path}: {_SEVERAL_CLASSES}", results.get(_SEVERAL_CLASSES, ""))
    return options.take("threshold", _score, None)


_SEVERAL_CLASSES = "MultiLabelThreshOutput"
_IMAGENET = "imagenet1k_label_list.txt"  # which is known here


# Values: YAML says nothing of their kinds


def _table(name: str, value: object) -> Table:
    """A table without the entries that say nothing; what is no table has none."""
    entries = cast("Mapping[str, Yaml]", value) if isinstance(value, dict) else {}
    return Table(name, {key: entry for key, entry in entries.items() if entry not in _NOTHING}, CheckpointError)


def _any(value: object) -> object:
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return value.lower() == "true"


def _number(value: object) -> float:
    match = _FRACTION.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    try:
        assert match is not None
        found = float(match[1]) / float(match[2] or 1)
    except (AssertionError, ValueError, ZeroDivisionError):
        raise ValueError("a number") from None
    if not abs(found) <= sys.float_info.max:
        raise ValueError("a number")
    return found


def _score(value: object) -> float:
    score = _number(value)
    if not 0 <= score <= 1:
        raise ValueError("a score in 0..1")
    return score


def _three(value: object) -> tuple[float, float, float]:
    first, second, third = (*map(_number, sequence(value)), None, None, None)[:3]
    if first is None or second is None or third is None or len(sequence(value)) != 3:
        raise ValueError("three numbers")
    return first, second, third


def _side(value: object) -> int:
    number = _number(value)
    if number != int(number) or not 1 <= number <= MAX_SIDE:
        raise ValueError(f"a number of pixels up to {MAX_SIDE:,}")
    return int(number)


def _size(value: object) -> Size:
    """Height and width; the file has them the other way round."""
    if isinstance(value, str):
        return _side(value), _side(value)
    width, height = (*map(_side, sequence(value)), None, None)[:2]
    if width is None or height is None or len(sequence(value)) != 2:
        raise ValueError("a side, or width and height")
    return height, width
