"""How good a network is while it is being trained, measured by all processes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from torchclas.catalog import Preset
from torchclas.data.datasets import LabelledImages
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import EpochBatches, Loader
from torchclas.errors import DataError
from torchclas.layers.network import Network

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Scores:
    """How a network does on the images that could be read; `loss` is their mean cross entropy, the others in 0..1."""

    images: int
    loss: float
    top1: float
    top5: float


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
        for batch in self._loader:
            self.skipped.update(batch.skipped)
            # Processes that share a network must all compute, even one that has no image: it takes a blank one.
            images = batch.images
            if not len(images):
                images = torch.zeros(1, network.in_channels, *self.size)
            labels = batch.labels.to(device)
            with self.fabric.autocast():
                logits = network(images.to(device, memory_format=torch.channels_last)).float()[: len(labels)]
            best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.tensor([len(labels), loss.item(), best[:, 0].sum().item(), best.sum().item()])
        if self.fabric.world_size > 1:
            sums = cast(Tensor, self.fabric.all_reduce(sums.to(device), reduce_op="sum"))
        count, loss, top1, top5 = sums.tolist()
        if not count:
            raise DataError("none of the validation images can be read")
        return Scores(int(count), loss / count, top1 / count, top5 / count)

    def close(self) -> None:
        """End the processes that read images; nothing can be scored afterwards."""
        self._loader.close()
