"""What stands beside an inference model: how images are prepared for it, and what its classes are called.

PaddleX writes `inference.yml` into the folder, PaddleClas has `deploy/configs/inference_cls.yaml` for it. In both,
`PreProcess.transform_ops` lists the steps before the network and `PostProcess` what comes after it. A step that cannot
be done here is an error, as figures would change without it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torchclas.catalog import Backend, Interpolation, Preset
from torchclas.errors import CheckpointError
from torchclas.labels import read_names
from torchclas.sizes import Size
from torchclas.tables import Table, sequence, text, texts
from torchclas.vocabulary import Fit
from torchclas.weights.kinds import files_of
from torchclas.yaml_text import read_yaml
from torchclas.yaml_values import anything, entries, number, score, side, three, truth, width_and_height

_ROUNDING = 1e-5  # of 1/255, which is written with six digits
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
        _table(f"{path}: {part}", whole.take(part, anything, {})) for part in ("Global", "PreProcess", "PostProcess")
    )
    steps, results = before.take("transform_ops", sequence, None), after.rest()
    return DeployConfig(
        path,
        model_name=common.take("model_name", text, ""),
        preset=None if steps is None else preset_of_steps(f"{path}", steps, _ELSEWHERE),
        names=_names(path, results),
        threshold=_threshold(path, results),
    )


# Before the network


def preset_of_steps(where: str, steps: Sequence[object], otherwise: str) -> Preset:
    """The steps before the network as one preset.

    Raises CheckpointError: a step cannot be done here, and the message begins with `where` and ends with `otherwise`.
    """
    tables: dict[str, Table] = {}
    for step in steps:
        named: Mapping[str, object] = cast("Mapping[str, object]", step) if isinstance(step, dict) else {str(step): ""}
        for name, options in named.items():
            known = [each for each in _STEPS if each in tables or each == name]
            if name not in _STEPS or name in tables or known[-1] != name:
                raise CheckpointError(
                    f"{where}: the step {name[:60]!a} cannot be done here, or not in that place: prepare images "
                    f"yourself (torchclas.create_model), {otherwise}"
                )
            tables[name] = _table(f"{where}: {name}", options)
    decode, resize, crop, normalize = (
        tables.get(name, Table(f"{where}: {name}", {}, CheckpointError)) for name in _STEPS[:4]
    )
    if decode.take("to_rgb", truth, True) is False or decode.take("channel_first", truth, False):
        raise decode.error("to_rgb", f"only RGB images are prepared here: prepare them yourself, {otherwise}")
    decode.take("to_np", anything, "")
    decode.take("img_mode", anything, "")
    decode.take("backend", anything, "")  # what decodes: OpenCV here, which turns photographs upright
    short = resize.take("resize_short", side, None)
    squeezed = resize.take("size", width_and_height, None)
    cropped = crop.take("size", width_and_height, None)
    backend = _BACKENDS.get(word := resize.take("backend", text, "cv2"))
    usual = "bicubic" if backend == "pillow" else "bilinear"
    interpolation = _INTERPOLATIONS.get(how := resize.take("interpolation", text, usual).lower())
    if backend is None or interpolation is None:
        raise resize.error("interpolation", f"{how} of {word} is not done here: prepare images yourself, {otherwise}")
    resize.take("return_numpy", anything, "")
    size: Size
    fit: Fit
    if short is not None and squeezed is None and cropped is not None and cropped[0] == cropped[1] <= short:
        size, fit = cropped, "crop"
    elif short is None and squeezed is not None and cropped in (None, squeezed):
        size, fit, short = squeezed, "squeeze", min(squeezed)
    else:
        raise CheckpointError(
            f"{where}: images are not fitted in a way that is known here, a short side with a square cut out of its "
            f"centre, or both sides: prepare images yourself (torchclas.create_model), {otherwise}"
        )
    mean, std = statistics(normalize, otherwise)
    for table in (decode, resize, crop, normalize):
        table.close()
    return Preset(short, size, interpolation, backend, mean, std, fit)


def statistics(normalize: Table, otherwise: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of pixels scaled to 0..1, whatever scale the step has."""
    scale = normalize.take("scale", number, 1 / 255) * 255
    if abs(scale - 1) < _ROUNDING:
        scale = 1.0
    mean, std = (
        normalize.take("mean", three, (0.485, 0.456, 0.406)),
        normalize.take("std", three, (0.229, 0.224, 0.225)),
    )
    if scale <= 0 or min(std) <= 0:
        raise normalize.error("std", "must be above 0, and the scale too")
    if normalize.take("channel_num", number, 3) != 3:
        raise normalize.error(
            "channel_num", f"only images of 3 channels are prepared here: prepare them yourself, {otherwise}"
        )
    normalize.take("order", anything, "")
    normalize.take("output_fp16", anything, "")
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
    return options.take("threshold", score, None)


_SEVERAL_CLASSES = "MultiLabelThreshOutput"
_IMAGENET = "imagenet1k_label_list.txt"  # which is known here


def _table(name: str, value: object) -> Table:
    """A table without the entries that say nothing; what is no table has none."""
    return Table(name, entries(value), CheckpointError)
