"""Some of a model's classes: those of test sets that have pictures of a part of ImageNet's alone."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from torchclas.errors import DataError
from torchclas.labels import LabelSet
from torchclas.labels.names import read_names

# The classes of ImageNet-A (https://github.com/hendrycks/natural-adv-examples) and ImageNet-R
# (https://github.com/hendrycks/imagenet-r), 200 each, as their authors list them.
FILE = "subsets.tsv"


@cache
def subsets() -> dict[str, tuple[str, ...]]:
    """Name → ids of ImageNet's classes."""
    text = resources.files("torchclas.labels").joinpath(FILE).read_text(encoding="utf-8")
    (_, *names), *rows = (line.split("\t") for line in text.splitlines())
    return {name: tuple(row[0] for row in rows if row[place]) for place, name in enumerate(names, 1)}


def columns(chosen: str | Path, classes: LabelSet) -> list[int]:
    """The outputs of a model with `classes` that a subset's name, or a file of ids or names, stands for.

    Raises DataError: it names a class that is none of the model's, one twice, or fewer than two.
    """
    ids = subsets().get(str(chosen))
    if ids is None:
        if not Path(chosen).is_file():
            known = ", ".join(subsets())
            raise DataError(f"{chosen}: no such file, and no known part of the classes: choose from {known}, data")
        ids = read_names(chosen)
    places = classes.places()
    unknown = [name for name in ids if name not in places]
    if unknown:
        raise DataError(
            f"{chosen}: {len(unknown):,} of its {len(ids):,} classes are none of the model's, the first is {unknown[0]}"
        )
    found = sorted({places[name] for name in ids})
    if len(found) < max(2, len(ids)):
        raise DataError(f"{chosen}: two classes at least, and each of them once, are needed to choose from")
    return found
