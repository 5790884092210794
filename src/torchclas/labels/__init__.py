"""What the classes of the published models mean: ids, and names in one or two languages."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from torchclas.errors import Error, UnknownNameError
from torchclas.labels.names import read_names

__all__ = ["LabelSet", "label_set", "label_set_names", "read_names"]

_FILES = {
    "imagenet1k": "imagenet1k.tsv",
    "imagenet22k": "imagenet22k.tsv.gz",
    "orientation": "orientation.tsv",
}


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes of a data set, in the order of a model's outputs.

    `ids` are the keys: WordNet synsets such as `n01440764` for ImageNet, degrees for page orientation. Names may repeat
    (ImageNet has two cranes and two maillots).
    """

    name: str
    ids: tuple[str, ...] = field(repr=False)
    names_by_language: Mapping[str, tuple[str, ...]] = field(repr=False, hash=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that `names` has."""
        return tuple(self.names_by_language)

    def names(self, language: str = "en") -> tuple[str, ...]:
        """One name per class, aligned with `ids`; an English one lists its synonyms, separated by commas."""
        try:
            return self.names_by_language[language]
        except KeyError:
            choices = ", ".join(self.languages)
            raise Error(f"{self.name} has no names in {language!r}: choose from {choices}") from None

    def places(self) -> dict[str, int]:
        """The output that an id or a name stands for; names that repeat stand for none."""
        places = dict[str, int]()
        for language in self.languages:
            names = self.names(language)
            counts = Counter(names)
            places |= {name: index for index, name in enumerate(names) if counts[name] == 1}
        return places | {name: index for index, name in enumerate(self.ids)}


def label_set_names() -> list[str]:
    """What `label_set` takes."""
    return list(_FILES)


@cache
def label_set(name: str) -> LabelSet:
    """The label set `imagenet1k`, `imagenet22k` or `orientation`; raises `UnknownNameError` for any other."""
    try:
        file = _FILES[name]
    except KeyError:
        raise UnknownNameError("label set", name, _FILES) from None
    content = resources.files(__name__).joinpath(file).read_bytes()
    if file.endswith(".gz"):
        content = gzip.decompress(content)
    header, *rows = (line.split("\t") for line in content.decode("utf-8").splitlines())
    ids, *columns = zip(*rows, strict=True)
    return LabelSet(name, ids, dict(zip(header[1:], columns, strict=True)))
