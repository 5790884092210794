"""ReaL: the labels that people gave ImageNet's validation images anew, any number for an image.

Beyer et al., "Are we done with ImageNet?", https://arxiv.org/abs/2006.07159; the file is real.json of
https://github.com/google-research/reassessed-imagenet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchclas.encoding import read_text
from torchclas.errors import DataError
from torchclas.labels import LabelSet, label_set
from torchclas.metrics.single_label import Proportion

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.")


class RealLabels:
    """How often the likeliest class is one of an image's labels; images without any are left out, as is usual."""

    def __init__(self, path: str | Path, classes: LabelSet) -> None:
        """Read real.json, whose images are those of the validation set in the order of their numbers.

        Raises DataError: the file holds something else, or `classes` are not ImageNet's.
        """
        if classes.ids != label_set("imagenet1k").ids:
            raise DataError(f"{path}: ReaL has labels for the 1,000 classes of ImageNet, and the model has others")
        self.path = Path(path)
        try:
            found = json.loads(read_text(self.path))
            self.labels = [frozenset(int(label) for label in labels) for labels in found]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: no list of labels for each image, as in real.json of ReaL ({error})") from error
        self.right = self.total = 0

    def add(self, sources: Sequence[str], probabilities: NDArray[np.float32]) -> None:
        """Count images with these names, ILSVRC2012_val_00000001.JPEG and so on; [N, 1000].

        Raises DataError: a name says no number that the file has labels for.
        """
        for source, scores in zip(sources, probabilities, strict=True):
            match = _NUMBER.search(source)
            number = int(match[1]) if match else 0
            if not 0 < number <= len(self.labels):
                raise DataError(
                    f"{source}: ReaL's labels are for ILSVRC2012_val_00000001.JPEG and on: keep the names of the images"
                )
            if labels := self.labels[number - 1]:
                self.total += 1
                self.right += int(scores.argmax()) in labels

    @property
    def accuracy(self) -> Proportion:
        """The share of images whose likeliest class is one of their labels."""
        return Proportion(self.right, self.total)
