"""Which class a label means: names decide, numbers where one side has no names, and never an order alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torchclas.data.datasets import Dataset, LabelledImages, Relabelled, Sample
from torchclas.data.folders import Split, listed
from torchclas.data.multi_label import is_multi_label, named_columns
from torchclas.errors import DataError
from torchclas.labels import LabelSet
from torchclas.text import many_images

SPARSE = 2  # times as many outputs as classes with images: then the highest label is wrong


@dataclass(frozen=True)
class Opened:
    """Labelled images, and what was taken for what.

    `split` is the one that was taken of several. `numbered` says that the labels are numbers in the data itself;
    the names that the images then have come from `named_by`, and `chosen` says that those were asked for.
    """

    images: LabelledImages
    notes: tuple[str, ...] = ()
    split: Split | None = None
    numbered: bool = False
    named_by: str = ""
    chosen: bool = False

    def noting(self, *notes: str) -> Opened:
        """The same with more to say."""
        return replace(self, notes=(*self.notes, *notes))


def with_names(opened: Opened, names: tuple[str, ...], source: str) -> Opened:
    """The images with the classes that a file names, in their order; class folders find theirs by name or number.

    Raises:
        DataError: a class of the data is not among them.
    """
    images, own = opened.images, opened.images.classes
    if is_multi_label(images):
        named = named_columns(images, names, source)
    elif own is None:
        _check_range(images, len(names), f"the {len(names):,} classes that {source} names")
        named = renamed(images, names)
    else:
        used = _used(images)
        place = {name: index for index, name in enumerate(names)}
        numbers = {k: place[own[k]] for k in used} if {own[k] for k in used} <= set(names) else _numbers(own, used)
        if numbers is None or max(numbers.values(), default=0) >= len(names):
            unknown = [own[k] for k in used if own[k] not in place]
            raise DataError(f"{source}: does not name the classes {listed(unknown)} that the data has")
        named = _renumbered(images, numbers, names)
    return replace(opened, images=named, named_by=source, chosen=True)


def as_in_model(data: str | Path, opened: Opened, classes: LabelSet, model: str) -> Opened:
    """The images with labels that index the model's classes.

    Raises:
        DataError: an image has no class, or one that is none of the model's.
    """
    images, own, count = opened.images, opened.images.classes, len(classes)
    if unlabelled := int((images.labels < 0).sum()):
        first = images.name(int(np.argmax(images.labels < 0)))
        raise DataError(f"{data}: {many_images(unlabelled)} without a class, the first is {first}")
    if own is None:
        _check_range(images, count, f"the {count:,} classes of {model}")
        return opened
    used = _used(images)
    place = classes.places()
    unknown = [own[label] for label in used if own[label] not in place]
    if not unknown:
        return replace(opened, images=_renumbered(images, {k: place[own[k]] for k in used}, classes.ids))
    numbers = None
    if len(unknown) == len(used):
        if (opened.numbered and not opened.chosen) or (opened.chosen and len(own) == count):
            numbers = {label: label for label in used}
        elif not opened.numbered:
            numbers = _numbers(own, used)
    if numbers is None or max(numbers.values()) >= count:
        raise DataError(
            f"{data}: {len(unknown)} of its {len(used)} classes ({listed(unknown)}) are not among the {count:,} of "
            f"{model} ({listed(classes.ids)}): "
            + (
                "rename the folders, or say with --labels FILE what the model's outputs are called, a line for each in "
                "their order"
                if len(unknown) == len(used)
                else "rename them, or leave them out"
            )
        )
    first = used[0]
    note = f"numbers decide: {own[first]} is taken for {classes.ids[numbers[first]]}, {model}'s class {numbers[first]}"
    return replace(opened, images=_renumbered(images, numbers, classes.ids)).noting(note)


def network_classes(data: str | Path, train: Opened, model: LabelSet | None) -> tuple[tuple[str, ...], list[str]]:
    """The classes of a network for these images, and what to say of them.

    `model` has the classes of the network that training begins with.

    Raises:
        DataError: there is one class alone, or labels stand for classes that hardly any images are of.
    """
    images = train.images
    labels = images.labels
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(present) == 0:
        raise DataError(f"{data}: no image has a class")
    if images.classes is not None:
        _check_range(images, len(images.classes), f"the {len(images.classes):,} classes that the data names")
    if len(present) == 1:
        name = str(present[0]) if images.classes is None else images.classes[int(present[0])]
        what = f"all labels are {name}" if train.numbered else f"{name} is the only class with images"
        raise DataError(f"{data}: {what}: one class alone leaves nothing to tell apart: add images of others")
    outputs = int(present[-1]) + 1 if images.classes is None else len(images.classes)
    missing = outputs - len(present)
    if images.classes is not None:
        if not missing:
            return images.classes, []
        absent = sorted(set(range(outputs)) - set(present.tolist()))
        names = listed([images.classes[label] for label in absent])
        return images.classes, [f"{missing:,} of the {outputs:,} classes have no image to train on: {names}"]
    if model is not None and outputs == len(model):
        note = f"{data}: its {outputs:,} numbers are taken for the classes of {model.name}: 0 is {model.ids[0]}"
        return model.ids, [note]
    gap = int(present[-1] - present[-2]) - 1
    if outputs > len(labels) or outputs > SPARSE * len(present) or (gap and counts[-1] == 1):
        first = images.name(int(np.argmax(labels)))
        raise DataError(
            f"{data}: the highest label {outputs - 1} ({first}) stands for {outputs:,} classes, but only "
            f"{len(present):,} of them have images, {len(labels):,} in all: number the classes from 0 without gaps, or "
            "name all of them (--labels FILE)"
        )
    notes = list[str]()
    if missing:
        absent = [str(label) for label in sorted(set(range(outputs)) - set(present.tolist()))]
        begins = "; labels count from 0, here from 1" if absent == ["0"] else ""
        notes.append(f"{data}: no image has the label {listed(absent)}, for which the network has an output{begins}")
    return tuple(map(str, range(outputs))), notes


def as_in_training(
    val: str | Path, held_out: Opened, train: Opened, classes: tuple[str, ...]
) -> tuple[LabelledImages, list[str]]:
    """The validation images with labels that index the classes for training, and what to say of it.

    Raises:
        DataError: a class is none of those, or it cannot be said which.
    """
    images, own, used = held_out.images, held_out.images.classes, _used(held_out.images)
    whose = f"the {len(classes):,} classes for training"
    named = train.images.classes is not None or not classes[0].isdecimal()
    if own is not None and named and {own[label] for label in used} <= set(classes):
        place = {name: index for index, name in enumerate(classes)}
        return _renumbered(images, {label: place[own[label]] for label in used}, classes), []
    if not used or (held_out.numbered and train.numbered and (own is None or not named)):
        _check_range(images, len(classes), whose)
        return images, []
    unknown = [own[label] for label in used if own[label] not in set(classes)] if own is not None and named else []
    if unknown and (len(unknown) < len(used) or not train.numbered or _numbers(own or (), used) is None):
        raise DataError(
            f"{val}: its classes are not those for training: {len(unknown)} of them ({listed(unknown)}) are unknown "
            f"there ({listed(classes)})"
        )
    # One side has numbers where the other has names, which must then be numbers too.
    numbers = {label: label for label in used} if own is None else _numbers(own, used)
    places = range(len(classes))
    target = {place: place for place in places} if train.numbered else _numbers(classes, places)
    if numbers is None or target is None:
        sides = ("validation", "training") if own is None else ("training", "validation")
        raise DataError(
            f"{val}: there are numbers for {sides[0]}, but names ({listed(own or classes)}) for {sides[1]}: "
            "--labels FILE says which number is which class, a line for each in their order"
        )
    place = {number: index for index, number in target.items()}
    if strange := [str(number) for number in numbers.values() if number not in place]:
        raise DataError(f"{val}: no class for training has the number {listed(strange)}")
    first = used[0]
    given = f"the label {first}" if own is None else f"the class {own[first]}"
    note = f"{val}: {given} is taken for the class {classes[place[numbers[first]]]} for training, and so on by number"
    return _renumbered(images, {label: place[number] for label, number in numbers.items()}, classes), [note]


def _used(images: LabelledImages) -> list[int]:
    """The labels that images have.

    Raises DataError where one has no name though the data names its classes.
    """
    if images.classes is not None:
        _check_range(images, len(images.classes), f"the {len(images.classes):,} classes that the data names")
    labels = images.labels
    return np.unique(labels[labels >= 0]).tolist()


def _check_range(images: LabelledImages, count: int, whose: str) -> None:
    """Raise DataError where a label is none of `count`, with the first image that has it."""
    labels = images.labels
    if len(labels) and int(labels.max()) >= count:
        first = int(np.argmax(labels >= count))
        raise DataError(
            f"{images.name(first)}: the label {labels[first]} is out of range 0..{count - 1}: it is none of {whose}"
        )


def _numbers(names: Sequence[str], used: Sequence[int]) -> dict[int, int] | None:
    """The numbers that names are, by label; None where one is no number, or two are the same."""
    if not all(names[label].isdecimal() for label in used):
        return None
    numbers = {label: int(names[label]) for label in used}
    return numbers if len(set(numbers.values())) == len(numbers) else None


def renamed(images: LabelledImages, classes: tuple[str, ...]) -> LabelledImages:
    """The images with their labels as they are, under other names."""
    if isinstance(images, (Dataset, Relabelled)):
        return replace(images, classes=classes)
    return Relabelled(images, images.labels, classes)


def _renumbered(images: LabelledImages, numbers: Mapping[int, int], classes: tuple[str, ...]) -> LabelledImages:
    """The images with each label replaced, under other names."""
    if isinstance(images, Dataset):
        return replace(images, samples=[Sample(s.path, numbers[s.label]) for s in images.samples], classes=classes)
    labels = images.labels
    if numbers:
        table = np.zeros(max(numbers) + 1, np.int64)
        table[list(numbers)] = list(numbers.values())
        labels = np.where(labels < 0, labels, table[np.maximum(labels, 0)])
    return Relabelled(images, labels, classes)
