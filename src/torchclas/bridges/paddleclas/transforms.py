"""Transforms: the ones of evaluation are a preset here, the ones of training its augmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torchclas.bridges.paddleclas.account import Section, steps
from torchclas.catalog import Backend, Interpolation, Preset
from torchclas.errors import CheckpointError
from torchclas.recipes import Augment
from torchclas.sizes import Size
from torchclas.tables import sequence, text
from torchclas.weights.deploy_config import preset_of_steps, statistics
from torchclas.yaml_values import anything, count, integer, number, numbers, score, side, truth, two, width_and_height

if TYPE_CHECKING:
    from collections.abc import Callable

_OTHERWISE = "or change the step"
_BACKENDS: dict[str, Backend] = {"cv2": "opencv", "pil": "pillow"}
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
_ABSENT = {
    "RandomRot90": "it makes the labels as well, of how an image was turned: turn the images beforehand, and list them",
    "HideAndSeek": "not done here; in PaddleClas it takes channels for columns, and hides three of these at most",
}
_RANDAUGMENT = "rand-m9-mstd0.5-inc1"
_ROUNDING = 1e-6
_DECODED = "images are decoded by OpenCV, which turns photographs upright; pixels may differ by a level or two"
# The order that is followed here; what has the same number excludes each other.
_ORDER = {
    "DecodeImage": 0, "ResizeImage": 1, "RandCropImage": 2, "CropImage": 2, "RandFlipImage": 3, "AutoAugment": 4,
    "TimmAutoAugment": 4, "RandAugment": 4, "Padv2": 5, "RandomCropImage": 6, "NormalizeImage": 7, "GridMask": 8,
    "RandomErasing": 8, "Cutout": 9, "ToCHWImage": 10,
}  # fmt: skip
_CENTRED = 1  # of Padv2: as much on either side


def preset(section: Section, key: str) -> Preset | None:
    """The steps of evaluation or prediction as a preset; None where there are none, or some cannot be followed."""
    listed = section.take(key, anything, None)
    if listed is None:
        return None
    try:
        found = preset_of_steps(key, sequence(listed), _OTHERWISE)
    except (CheckpointError, ValueError) as error:
        why = str(error) if isinstance(error, CheckpointError) else "a list of steps is expected here"
        section.account.refuse(section.path(key), why.removeprefix(f"{key}: "), section.stages)
        return None
    for step in steps(section.account.section(section.key, {key: listed}, section.stages), key):
        if step.key.endswith(".DecodeImage") and step.take("backend", text, "cv2").lower() != "cv2":
            step.account.note(step.path("backend"), _DECODED, step.stages)
    # Statistics that were written for pixels up to 255 are the published ones but for rounding.
    mean, std = ((round(a, 9), round(b, 9), round(c, 9)) for a, b, c in (found.mean, found.std))
    return replace(found, mean=mean, std=std)


@dataclass(frozen=True)
class TrainingSteps:
    """What happens to training images, at which size."""

    augment: Augment
    size: Size | None
    whole: bool  # both sides are resized, whatever the image's proportions


def training_steps(section: Section, evaluation: Preset | None) -> TrainingSteps:
    """The steps of training; those that cannot be followed are noted."""
    reader = _TrainingSteps(section)
    place = -1
    for step in steps(section, "transform_ops"):
        name = step.key.rpartition(".")[2]
        read: Callable[[Section], None] | None = getattr(reader, f"read_{name}", None)
        if name == "RandFlipImage" and reader.symmetric and place < _ORDER["NormalizeImage"]:
            read_flip = reader.read_RandFlipImage  # the same wherever it comes
            read_flip(step)
            step.close()
            continue
        if read is None or (known := _ORDER[name]) <= place:
            absent = _ABSENT.get(name, "this augmentation is not here")
            step.account.refuse(step.key, absent if read is None else "it comes in another place here", step.stages)
            continue
        place = known
        read(step)
        step.close()
    return reader.done(evaluation)


class _TrainingSteps:
    """What the steps said so far. A method for each step, by its name in PaddleClas."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.augment = Augment(crop="center", flip=0.0)
        self.size: Size | None = None
        self.short: int | None = None
        self.squeezed: Size | None = None
        self.padded: Size | None = None
        self.policy_resize: Interpolation | None = None
        self.statistics: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None

    def read_DecodeImage(self, step: Section) -> None:  # noqa: N802 - PaddleClas's names
        if not step.take("to_rgb", truth, True) or step.take("channel_first", truth, False):
            step.account.refuse(step.key, "only RGB images are prepared here", step.stages)
        step.drop("to_np", "images are arrays")
        if step.take("backend", text, "cv2").lower() != "cv2":
            step.account.note(step.path("backend"), _DECODED, step.stages)

    def read_ResizeImage(self, step: Section) -> None:  # noqa: N802
        self.short = step.take("resize_short", side, None)
        self.squeezed = step.take("size", width_and_height, None)
        self._resize(step)

    def read_CropImage(self, step: Section) -> None:  # noqa: N802
        self.size = step.take("size", width_and_height)

    def read_RandCropImage(self, step: Section) -> None:  # noqa: N802
        self.size = step.take("size", width_and_height)
        scale = step.take("scale", two, self.augment.scale)
        ratio = step.take("ratio", two, self.augment.ratio)
        self.augment = replace(self.augment, crop="random", scale=scale, ratio=ratio)
        step.needs("use_log_aspect", truth, lambda log: not log, "the aspect ratio is drawn evenly, not its logarithm")
        self._resize(step)
        if self.squeezed is not None or self.short is not None:
            step.account.refuse(step.key, "an image is not resized before a random crop", step.stages)

    def _resize(self, step: Section) -> None:
        backend = _BACKENDS.get(step.take("backend", text, "cv2").lower())
        usual = "bicubic" if backend == "pillow" else "bilinear"
        interpolation = _INTERPOLATIONS.get(how := step.take("interpolation", text, usual).lower())
        if backend is None or interpolation is None:
            step.account.refuse(step.path("interpolation"), f"{how} is not done here", step.stages)
            return
        self.augment = replace(self.augment, interpolation=interpolation, backend=backend)

    @property
    def symmetric(self) -> bool:
        """Whether what was done so far does to the left what it does to the right, as often."""
        return self.augment.policy in ("", _RANDAUGMENT)

    def read_Padv2(self, step: Section) -> None:  # noqa: N802
        self.padded = step.take("size", width_and_height, None)
        fill = step.take("fill_value", anything, "127.5")
        black = all(number(value) == 0 for value in (fill if isinstance(fill, list) else [fill]))
        if self.padded is None or not black or step.take("pad_mode", integer, 0) != _CENTRED:
            step.account.refuse(step.key, "an image gets a black border, of one width on either side", step.stages)
        step.drop("size_divisor", "the size is given")

    def read_RandomCropImage(self, step: Section) -> None:  # noqa: N802
        self.size = step.take("size", width_and_height)
        if self.padded is None or self.squeezed != self.size:
            why = "without resizing, crops are made of what Padv2 gave a border to, of the size that it had before"
            step.account.refuse(step.key, why, step.stages)
            return
        more = [padded - side for padded, side in zip(self.padded, self.size, strict=True)]
        if min(more) <= 0 or any(each % 2 for each in more):
            why = "the border of Padv2 is of one width on either side"
            step.account.refuse(step.key, why, step.stages)
            return
        self.augment = replace(self.augment, shift=(more[0] // 2, more[1] // 2))

    def read_RandFlipImage(self, step: Section) -> None:  # noqa: N802
        step.needs("flip_code", integer, lambda code: code == 1, "images are flipped left to right only", 1)
        self.augment = replace(self.augment, flip=0.5)

    def read_AutoAugment(self, step: Section) -> None:  # noqa: N802
        self.augment = replace(self.augment, policy="autoaugment")

    def read_TimmAutoAugment(self, step: Section) -> None:  # noqa: N802
        share = step.take("prob", score, 1.0)
        how = step.take("config_str", text, _RANDAUGMENT)
        resize = step.take("interpolation", text, "bicubic").lower()
        step.drop("img_size", "this policy moves pixels by shares of the image")
        if not share:
            step.rest()
            return
        if how != _RANDAUGMENT:
            step.account.refuse(step.path("config_str"), f"there is {_RANDAUGMENT} alone", step.stages)
        if resize not in _INTERPOLATIONS:
            step.account.refuse(step.path("interpolation"), f"{resize} is not done here", step.stages)
        self.policy_resize = _INTERPOLATIONS.get(resize)
        self.augment = replace(self.augment, policy=_RANDAUGMENT, policy_prob=share)

    def read_NormalizeImage(self, step: Section) -> None:  # noqa: N802
        self.statistics = statistics(step, _OTHERWISE)

    def read_RandomErasing(self, step: Section) -> None:  # noqa: N802
        share = step.take("EPSILON", score, 0.5)
        if not share:
            step.rest()
            return
        if abs(step.take("r1", number, 0.3) - 0.3) > _ROUNDING:
            step.account.refuse(step.path("r1"), "it is 0.3 here", step.stages)
        step.take("attempt", count, 100)  # 10 are made here, and a place is hardly ever missed
        mode = step.take("mode", text, "const")
        mean = step.take("mean", numbers, (0.0,))
        if mode not in ("pixel", "const") or (mode == "const" and any(mean)):
            why = "erased pixels become noise (pixel), or the mean colour (const)"
            step.account.refuse(step.path("mode"), why, step.stages)
        self.augment = replace(
            self.augment,
            erasing_area=(step.take("sl", number, 0.02), step.take("sh", number, 0.4)),
            erasing_ratio="log" if step.take("use_log_aspect", truth, False) else "even",
            erasing_fill="noise" if mode == "pixel" else "mean",
        )
        self.augment = replace(self.augment, erasing=share)

    def read_Cutout(self, step: Section) -> None:  # noqa: N802
        step.needs("n_holes", integer, lambda holes: holes == 1, "one square is cut out", 1)
        step.drop("fill_value", "the square gets the mean colour", usual="(0, 0, 0)")
        self.augment = replace(self.augment, cutout=step.take("length", count, 112))

    def read_GridMask(self, step: Section) -> None:  # noqa: N802
        why = "in PaddleClas the share of the images that it changes stays 0: nothing counts its epochs"
        step.account.note(step.key, why, step.stages)
        step.rest()

    def read_RandAugment(self, step: Section) -> None:  # noqa: N802
        step.needs("num_layers", integer, lambda layers: layers == 2, "there are two operations for each image", 2)
        step.needs("magnitude", number, lambda magnitude: magnitude == 5, "the magnitude is 5", 5.0)
        step.drop("fillcolor", "what comes into the picture is gray")
        self.augment = replace(self.augment, policy="randaugment")

    def read_ToCHWImage(self, step: Section) -> None:  # noqa: N802
        pass

    def done(self, evaluation: Preset | None) -> TrainingSteps:
        """All of it, where it goes together with the steps of evaluation."""
        if self.padded is not None and self.size is None:
            self._refuse(self.section.path("transform_ops"), "what Padv2 gave a border to is cropped (RandomCropImage)")
        whole = self.augment.crop == "center" and self.squeezed is not None
        size = self.squeezed if whole and self.size is None else self.size
        if (
            self.augment.policy == _RANDAUGMENT
            and self.policy_resize is not None
            and self.policy_resize != self.augment.interpolation
        ):
            self.augment = replace(self.augment, policy_interpolation=self.policy_resize)
        key = self.section.path("transform_ops")
        if self.augment.crop == "center" and not whole and evaluation is not None:
            if (self.short, size) != (evaluation.resize_short, evaluation.size) or evaluation.fit != "crop":
                self._refuse(key, "images that are not cropped at random are prepared as in evaluation")
        elif whole and evaluation is not None and evaluation.fit != "squeeze":
            self._refuse(key, "images that are squeezed in training are squeezed in evaluation as well")
        elif whole and size != self.squeezed:
            self._refuse(key, "squeezed images are not cropped")
        if self.statistics is not None and evaluation is not None and not _same(self.statistics, evaluation):
            self._refuse(key, "images are normalized as in evaluation")
        return TrainingSteps(self.augment, size, whole)

    def _refuse(self, key: str, why: str) -> None:
        self.section.account.refuse(key, why, self.section.stages)


def _same(statistics: tuple[tuple[float, ...], tuple[float, ...]], preset: Preset) -> bool:
    pairs = zip((*statistics[0], *statistics[1]), (*preset.mean, *preset.std), strict=True)
    return all(abs(ours - theirs) < _ROUNDING for ours, theirs in pairs)


def mixing(section: Section, augment: Augment) -> Augment:
    """`batch_transform_ops`: Mixup and CutMix, one of them on every batch, or drawn by lot."""
    operators = list(steps(section, "batch_transform_ops"))
    if len(operators) > 1:
        section.account.refuse(section.path("batch_transform_ops"), "a batch is mixed in one way at most", ("train",))
        return augment
    for operator in operators:
        name = operator.key.rpartition(".")[2]
        if name == "OpSampler":
            for each in list(operator.rest().items()):
                augment = _mixed(operator.account.section(operator.path(each[0]), each[1], operator.stages), augment, 0)
        else:
            augment = _mixed(operator, augment, 1)
    return augment


def _mixed(operator: Section, augment: Augment, usual: float) -> Augment:
    name = operator.key.rpartition(".")[2]
    share = operator.take("prob", score, float(usual))
    if name == "MixupOperator":
        alpha = operator.take("alpha", number, 1.0)
        augment = replace(augment, mixup=alpha if share else 0.0, mixup_prob=share)
    elif name == "CutmixOperator":
        alpha = operator.take("alpha", number, 0.2)
        augment = replace(augment, cutmix=alpha if share else 0.0, cutmix_prob=share)
    else:
        operator.account.refuse(operator.key, "there are Mixup and CutMix", operator.stages)
        operator.rest()
    operator.close()
    return augment
