"""`DataLoader`: which images, in which batches; and where the classes get their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchclas.bridges.paddleclas.account import Section
from torchclas.tables import text
from torchclas.yaml_values import anything, count, number, score, truth

_IMAGENET = "imagenet1k_label_list.txt"  # of PaddleClas's own folder; the names are known here
# The thresholds of PaddleClas's outputs of attributes, and what they usually are.
_ATTRIBUTES = {
    "PersonAttribute": {"threshold": 0.5, "glasses_threshold": 0.3, "hold_threshold": 0.6},
    "VehicleAttribute": {"color_threshold": 0.5, "type_threshold": 0.5},
    "TableAttribute": {
        f"{name}_threshold": 0.5 for name in ("source", "number", "color", "clarity", "obstruction", "angle")
    },
}
_LISTS = ("ImageNetDataset",)
_MULTILABEL = "MultiLabelDataset"  # lines of a path, a tab and 0,1,0


@dataclass(frozen=True)
class ImageList:
    """A list file of labelled images, with the folder of its paths; batches are per device."""

    path: Path
    root: Path
    delimiter: str
    relabel: bool
    batch_size: int
    drop_last: bool
    multi_label: bool


def image_list(loader: Section, dataset: Section) -> ImageList | None:
    """The images of `DataLoader.Train` or `DataLoader.Eval`; None where they are in another form than a list."""
    kind = dataset.take("name", text, "ImageNetDataset")
    root, path = dataset.take("image_root", text, None), dataset.take("cls_label_path", text, None)
    delimiter, relabel = dataset.take("delimiter", _delimiter, " "), dataset.take("relabel", truth, False)
    sampler, reader = loader.section("sampler"), loader.section("loader")
    batch_size, drop_last = _sampled(sampler)
    reader.drop("num_workers", "as many processes read images as there are cores (--workers)")
    reader.drop("use_shared_memory", "processes that read images hand them over in shared memory")
    reader.drop("shuffle_seed", "the order of the images follows from the run's seed (--seed)", usual="0")
    for each in (sampler, reader, loader):
        each.close()
    several = kind == _MULTILABEL
    if several:
        delimiter = "\t"
        dataset.take("label_ratio", truth, False)  # the shares of the classes, which the loss asks for or leaves alone
    if (kind not in _LISTS and not several) or root is None or path is None:
        why = f"a data set of the kind {kind} is not read: lists of `path label` lines are (ImageNetDataset)"
        if kind == "CustomLabelDataset":
            why = "its labels are made by a transform: write them into a list of `path label` lines (ImageNetDataset)"
        elif kind in _LISTS or several:
            why = "image_root and cls_label_path say where the images are"
        dataset.account.refuse(dataset.path("name"), why, dataset.stages)
        dataset.rest()
        return None
    dataset.close()
    return ImageList(Path(path), Path(root), delimiter, relabel, batch_size, drop_last, several)


def _sampled(sampler: Section) -> tuple[int, bool]:
    training = sampler.stages == ("train",)
    name = sampler.take("name", text, "DistributedBatchSampler")
    batch_size = sampler.take("batch_size", count, 64)
    drop_last = sampler.take("drop_last", truth, False)
    shuffle = sampler.take("shuffle", truth, training)
    if name not in ("DistributedBatchSampler", "BatchSampler"):
        sampler.account.refuse(
            sampler.path("name"), f"{name} is not here: every image comes once an epoch", sampler.stages
        )
        sampler.rest()
    if training and not shuffle:
        sampler.account.refuse(sampler.path("shuffle"), "training images come in random order", sampler.stages)
    if not training and drop_last:
        sampler.account.note(sampler.path("drop_last"), "every image is measured", sampler.stages)
    return batch_size, drop_last


def _delimiter(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("one character or more")
    return value


@dataclass(frozen=True)
class Inference:
    """What `Infer` says of pictures to classify; `labels` is a file that names the classes."""

    images: tuple[str, ...] = ()
    batch_size: int = 1
    top_k: int | None = None
    labels: Path | None = None
    pair: tuple[str, str] | None = None
    threshold: float | None = None


def _attributes(after: Section, usual: dict[str, float]) -> float:
    """The threshold of the attributes of people, vehicles or tables, where one is for all."""
    after.account.note(after.path("name"), "each attribute that is named stands by itself, one by one", after.stages)
    found = {key: after.take(key, score, value) for key, value in usual.items()}
    threshold, *others = found.values()
    for key, value in zip(list(found)[1:], others, strict=True):
        if value != threshold:
            why = "one threshold is for all classes, or those that training found for each (without --threshold)"
            after.account.refuse(after.path(key), why, after.stages)
            break
    return threshold


def inference(section: Section) -> Inference:
    """`Infer` without its transforms."""
    images = section.take("infer_imgs", text, None)
    batch_size = section.take("batch_size", count, 1)
    after = section.section("PostProcess")
    name = after.take("name", text, "Topk")
    if name == "DistillationPostProcess":
        after.take("model_name", anything, "")
        after.take("key", anything, "")
        name = after.take("func", text, "Topk")
    top_k = after.take("topk", count, None)
    labels = after.take("class_id_map_file", text, None)
    after.drop("delimiter", "lines of the file are read in any form")
    pair = threshold = None
    if name == "ThreshOutput":
        zero, one = after.take("label_0", text, "0"), after.take("label_1", text, "1")
        pair = zero, one
        why = f"the likelier of {zero} and {one} is named, with its score"
        after.needs("threshold", number, lambda threshold: threshold == 0.5, why)
    elif name == "MultiLabelThreshOutput":
        threshold = after.take("threshold", score, 0.5)
    elif name in _ATTRIBUTES:
        threshold = _attributes(after, _ATTRIBUTES[name])
    elif name != "Topk":
        after.account.refuse(after.path("name"), f"{name} is not here: the likeliest classes are named", after.stages)
        after.rest()
    after.close()
    section.close()
    known = labels is None or Path(labels).name == _IMAGENET
    return Inference(
        images=() if images is None else (images,),
        batch_size=batch_size,
        top_k=top_k,
        labels=None if known or labels is None else Path(labels),
        pair=pair,
        threshold=threshold,
    )
