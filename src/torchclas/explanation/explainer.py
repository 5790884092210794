"""Where in a picture a model sees a class: `Explainer`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from torchclas.catalog import Preset
from torchclas.data.decode import MAX_PIXELS, ImageLike, Pixels
from torchclas.data.loader import load
from torchclas.data.preprocess import NoPreprocess, Preprocess
from torchclas.engines.eager import find_device
from torchclas.errors import CheckpointError, ImageError, UnknownNameError
from torchclas.explanation.heat_map import Explanation, HeatMap
from torchclas.explanation.relevance import relevance
from torchclas.inference.classifier import damaged, several
from torchclas.metrics.scores import probabilities
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import Activation, Language
from torchclas.zoo import load_model


class Explainer:
    """Says where in a picture a model sees its classes.

    Models are named, and prepared for, as by `torchclas.Classifier`; exported ones cannot be explained, for they have
    no gradients. The network is run by torch, an image at a time.

    Raises:
        What `torchclas.spec.find_model` does.
        CheckpointError: an exported model.
        Error: no such device.
    """

    def __init__(
        self,
        name_or_checkpoint: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        lang: Language = "en",
        max_pixels: int = MAX_PIXELS,
        labels: str | Path | Sequence[str] | None = None,
        preset: Preset | None = None,
        activation: Activation | None = None,
    ) -> None:
        self.spec: ModelSpec = find_model(
            name_or_checkpoint, weights=weights, labels=labels, preset=preset, activation=activation
        )
        if self.spec.graph is not None:
            raise CheckpointError(
                f"{self.spec.path}: an exported model has no gradients that would explain it: name the model that it "
                "was exported from"
            )
        self.preprocess = Preprocess(self.spec.preset, max_pixels, channels=self.spec.in_channels)
        self.names = self.spec.classes.names(lang)
        self.device = find_device(device)
        network = load_model(self.spec).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def explain(
        self, sources: ImageLike | Iterable[ImageLike], classes: Sequence[str | int] = ()
    ) -> Iterator[Explanation]:
        """One explanation per source, in order; an image that cannot be read is one with `status="error"`.

        `classes` are ids, names or indices. Raises `UnknownNameError` for a class that the model does not have.
        """
        return self._explain(several(sources), [self.index_of(name) for name in classes])

    def index_of(self, name: str | int) -> int:
        """The output that an id, a name in any language, one of an English name's synonyms, or a number stands for."""
        places = self.spec.classes.places()
        if name in places:
            return places[str(name)]
        synonyms = {part.strip(): index for text, index in reversed(places.items()) for part in text.split(",")}
        if name in synonyms:
            return synonyms[str(name)]
        if str(name).isdecimal() and int(name) < self.spec.num_classes:
            return int(name)
        otherwise = f"give an id, a name, or a number from 0 to {self.spec.num_classes - 1}"
        raise UnknownNameError("class", str(name), [*places, *synonyms], otherwise)

    def maps(self, images: NDArray[np.float32], classes: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Relevance [N, K, h, w] for prepared images [N, channels, H, W], of K classes for each."""
        _, maps = relevance(self.network, self._batch(images), lambda logits: _tensor(classes, logits.device))
        return maps.float().cpu().numpy()

    def _batch(self, images: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device, memory_format=torch.channels_last)

    def _explain(self, sources: Iterable[ImageLike], asked: Sequence[int]) -> Iterator[Explanation]:
        whole = NoPreprocess(self.preprocess.max_pixels)
        for batch in load(sources, whole, batch_size=1, workers=1):  # which reads ahead
            for source, pixels in batch.rows(list(batch.images)):
                if isinstance(pixels, ImageError):
                    yield Explanation(source, "error", error=str(pixels))
                else:
                    yield self.of_picture(source, pixels, asked)

    def of_picture(self, source: str, picture: Pixels, asked: Sequence[int] = ()) -> Explanation:
        """The explanation of a picture that is decoded already, uint8 RGB [H, W, 3]; `asked` are indices."""
        chosen: list[int] = []

        def choose(logits: torch.Tensor) -> torch.Tensor:
            order: list[int] = logits[0].argsort(descending=True, stable=True).tolist()
            first = list(dict.fromkeys(asked)) or order[:1]
            chosen.extend([*first, *(index for index in order if index not in first)][: len(first) + 1])
            return _tensor([chosen], logits.device)

        image = self.preprocess.normalize(self.preprocess.fit(picture))
        logits, maps = relevance(self.network, self._batch(image[None]), choose)
        scores = probabilities(logits.float().cpu().numpy(), self.spec.activation)[0]
        if not np.isfinite(scores).all() or not maps.isfinite().all():
            return Explanation(source, "error", error=damaged(self.spec))
        heat = tuple(
            HeatMap(self.spec.classes.ids[index], self.names[index], float(scores[index]), values)
            for index, values in zip(chosen, maps[0].float().cpu().numpy(), strict=True)
        )
        return Explanation(source, "ok", heat, picture, self.preprocess.seen(*picture.shape[:2]))


def _tensor(classes: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    return torch.tensor(classes, dtype=torch.int64, device=device)
