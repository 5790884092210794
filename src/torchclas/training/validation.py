"""How good a network is while it is being trained, measured by all processes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from torchclas.catalog import Preset
from torchclas.data.datasets import LabelledImages
from torchclas.data.multi_label import is_multi_label
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import EpochBatches, Loader
from torchclas.errors import DataError
from torchclas.layers.network import Network
from torchclas.metrics.multi_label import best_thresholds, mean_average_precision
from torchclas.training.losses import binary_cross_entropy

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Scores:
    """How a network does on the images that could be read; `loss` is their mean cross entropy, the others in 0..1.

    Where an image has any number of classes, the loss is binary cross entropy summed over them, `top1` and `top5` are
    None, and `thresholds` are the scores [classes] from which an image is of a class, found where F1 is highest.
    """

    images: int
    loss: float
    top1: float | None = None
    top5: float | None = None
    mean_average_precision: float | None = None
    thresholds: tuple[float, ...] = ()


class Validation:
    """Scores a network on labelled images, prepared as the preset says; `skipped` fills with the bad files."""

    def __init__(
        self,
        fabric: Fabric,
        images: LabelledImages,
        preset: Preset,
        *,
        channels: int = 3,
        batch_size: int,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> None:
        self.fabric = fabric
        self.skipped: dict[str, str] = {} if skipped is None else skipped
        self.size = preset.size
        self.multi_label = is_multi_label(images)
        batches = EpochBatches(
            len(images),
            batch_size * fabric.world_size,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            shuffle=False,
            drop_last=False,
        )
        self._loader = Loader(images, Preprocess(preset, channels=channels), batches, workers=workers)

    @torch.no_grad()  # in inference mode, sharded networks would keep tensors that training cannot use
    def __call__(self, network: Network) -> Scores:
        """Leaves the network in evaluation mode; raises DataError where no image can be read."""
        network.eval()
        device = self.fabric.device
        sums = torch.zeros(4, dtype=torch.float64)
        scores, truth = list[Tensor](), list[Tensor]()
        for batch in self._loader:
            self.skipped.update(batch.skipped)
            # Processes that share a network must all compute, even one that has no image: it takes a blank one.
            images = batch.images
            if not len(images):
                images = torch.zeros(1, network.in_channels, *self.size)
            labels = batch.labels.to(device)
            with self.fabric.autocast():
                logits = network(images.to(device, memory_format=torch.channels_last)).float()[: len(labels)]
            if self.multi_label:
                scores.append(logits.sigmoid().cpu())
                truth.append(batch.labels)
                loss = binary_cross_entropy(logits, labels) * len(labels) if len(labels) else torch.zeros(())
                sums += torch.tensor([len(labels), loss.item(), 0, 0])
                continue
            best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.tensor([len(labels), loss.item(), best[:, 0].sum().item(), best.sum().item()])
        if self.fabric.world_size > 1:
            sums = cast(Tensor, self.fabric.all_reduce(sums.to(device), reduce_op="sum"))
        count, loss, top1, top5 = sums.tolist()
        if not count:
            raise DataError("none of the validation images can be read")
        if self.multi_label:
            return self._several(int(count), loss / count, scores, truth)
        return Scores(int(count), loss / count, top1 / count, top5 / count)

    def _several(self, count: int, loss: float, scores: list[Tensor], truth: list[Tensor]) -> Scores:
        """The figures that need the scores of all images, from all processes."""
        labels = [rows for rows in truth if len(rows)]
        read = [(torch.cat(scores), torch.cat(labels))] if labels else []
        if self.fabric.world_size > 1:
            gathered: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(self.fabric.world_size)]
            torch.distributed.all_gather_object(gathered, read)
            read = [pair for pairs in gathered for pair in pairs]
        all_scores, all_labels = (torch.cat(parts).numpy() for parts in zip(*read, strict=True))
        return Scores(
            count,
            loss,
            mean_average_precision=mean_average_precision(all_scores, all_labels),
            thresholds=best_thresholds(all_scores, all_labels),
        )

    def close(self) -> None:
        """End the processes that read images; nothing can be scored afterwards."""
        self._loader.close()
