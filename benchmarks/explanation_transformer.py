"""Do the heat maps of a transformer mean something? The pointing game with one that is trained here, in minutes.

No weights of a transformer come as a package, so a small ViT (four blocks, images of 64 pixels, patches of 8) learns
ten animals among Debian's tuxpaint-stamps-default, pasted at random places of cuts of photographs. On grounds that it
has not seen, the hottest pixel of the map of the right class either is on the stamp (within its box) or not, over the
images that it gets right. Compared are the map of `torchclas explain`, relevance through the attention of all blocks,
and what is usual for convolutional networks, taken where the last attention reads its tokens: activation × gradient by
place, and Grad-CAM, with gradients averaged over places.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from markdown import table
from numpy.typing import NDArray
from photographs import photograph
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.explanation.heat_map import spread
from torchclas.explanation.relevance import relevance
from torchclas.layers.transformer import TransformerBlock
from torchclas.models.vision_transformer import VisionTransformer

STAMPS = Path("/usr/share/tuxpaint/stamps/animals")
CLASSES, SIDE, PATCH = 10, 64, 8
GROUNDS, SEEN = 200, 150  # cuts of photographs, of which training sees so many
BATCH, TESTED = 48, 400


class Sample(NamedTuple):
    """Images [N, 3, SIDE, SIDE], their classes [N], and where the stamps are: left, top, width, height."""

    images: Tensor
    classes: Tensor
    boxes: list[tuple[int, int, int, int]]


class Pictures:
    """Makes pictures of stamps on photographs."""

    def __init__(self) -> None:
        if not STAMPS.is_dir():
            raise SystemExit(f"{STAMPS} is not there: apt-get install tuxpaint-stamps-default")
        stamps: list[Image.Image] = []
        for path in sorted(STAMPS.rglob("*.png")):
            stamp = Image.open(path).convert("RGBA")
            box = stamp.getchannel("A").getbbox()
            if box is not None and not path.stem.endswith(("_mirror", "_flip")):
                stamps.append(stamp.crop(box))
        self.stamps = stamps[:: len(stamps) // CLASSES][:CLASSES]
        cuts = (cv2.resize(photograph(seed), (96, 96)) for seed in range(GROUNDS))
        self.grounds = [cv2.cvtColor(cut, cv2.COLOR_BGR2RGB) for cut in cuts]
        self.rng = np.random.default_rng(0)

    def sample(self, count: int, *, unseen: bool) -> Sample:
        images: list[NDArray[np.float32]] = []
        classes: list[int] = []
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(count):
            ground = self.grounds[int(self.rng.integers(*((SEEN, GROUNDS) if unseen else (0, SEEN))))]
            top, left = self.rng.integers(0, 96 - SIDE, 2)
            picture = Image.fromarray(ground[top : top + SIDE, left : left + SIDE].astype(np.uint8))
            classes.append(int(self.rng.integers(CLASSES)))
            stamp = self.stamps[classes[-1]]
            scale = int(self.rng.integers(20, 29)) / max(stamp.size)
            small = stamp.resize((max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale))))
            x, y = (int(self.rng.integers(0, SIDE - side + 1)) for side in small.size)
            picture.paste(small, (x, y), small)
            boxes.append((x, y, *small.size))
            images.append((np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 - 0.45) / 0.25)
        return Sample(torch.from_numpy(np.stack(images)), torch.tensor(classes), boxes)


def trained(pictures: Pictures, steps: int) -> VisionTransformer:
    network = VisionTransformer(
        channels=96, depth=4, heads=4, mlp_ratio=2, patch=PATCH, input_size=SIDE, num_classes=CLASSES
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        sample = pictures.sample(BATCH, unseen=False)
        loss = F.cross_entropy(network(sample.images), sample.classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.2f}", flush=True)
    return network.eval()


def at_the_last_attention(network: VisionTransformer, sample: Sample) -> tuple[Tensor, Tensor]:
    """Activation × gradient by place, and Grad-CAM, [N, h, w] each."""
    kept: list[Tensor] = []
    last = [block for block in network.stages.modules() if isinstance(block, TransformerBlock)][-1]

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept.append(output)

    hook = last.norm1.register_forward_hook(keep)
    scores = network(sample.images).gather(1, sample.classes[:, None]).sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(scores, kept)
    tokens, gradient = kept[0].detach()[:, 1:], gradient[:, 1:]
    places = SIDE // PATCH, SIDE // PATCH
    by_place, averaged = (gradient * tokens).sum(2), (gradient.mean(1, keepdim=True) * tokens).sum(2)
    return by_place.unflatten(1, places), averaged.unflatten(1, places)


def pointed(maps: Tensor, sample: Sample, counted: Tensor) -> float:
    """The share of images whose hottest pixel is on the stamp."""
    hits: list[bool] = []
    for index in counted.nonzero()[:, 0].tolist():
        heat = spread(maps[index].numpy(), (0, 0, SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        x, y, width, height = sample.boxes[index]
        hits.append(bool(x <= column < x + width and y <= row < y + height))
    return float(np.mean(hits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.manual_seed(0)
    pictures = Pictures()
    network = trained(pictures, options.steps)
    sample = pictures.sample(TESTED, unseen=True)
    choose: Callable[[Tensor], Tensor] = lambda logits: sample.classes[:, None]  # noqa: E731
    logits, maps = relevance(network, sample.images, choose)
    right = logits.argmax(1) == sample.classes
    by_place, averaged = at_the_last_attention(network, sample)
    chance = np.mean([width * height / SIDE**2 for *_, width, height in sample.boxes])
    rows = [
        ["relevance through all blocks (torchclas explain)", f"{pointed(maps[:, 0], sample, right):.1%}"],
        ["activation × gradient at the last attention", f"{pointed(by_place, sample, right):.1%}"],
        ["Grad-CAM at the last attention", f"{pointed(averaged, sample, right):.1%}"],
        ["chance", f"{chance:.1%}"],
    ]
    print(f"\n{int(right.sum())} of {TESTED} images are right.\n")
    print(table("Pointing game of a ViT", ["what points", "on the stamp"], rows))


if __name__ == "__main__":
    main()
