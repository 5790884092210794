"""What each place of an image adds to the score of a class, for every network of the zoo.

Where the head is given a map, a place counts with the sum over channels of activation × gradient: HiResCAM (Draelos and
Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", arXiv 2011.08891).
Behind a mean over places and a linear layer, which most networks end in, that is CAM and Grad-CAM at once, and the
places of a map add up to the logit without its bias. Where the head knows places apart (AlexNet, VGG, SqueezeNet),
Grad-CAM would also colour places that the network does not use.

Where the head is given tokens (ViT, DeiT, TNT), it reads those of no patch alone, and what places have added to them
passed through the attention of every block: how much is relevance as Chefer, Gur and Wolf compute it ("Generic
Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", arXiv 2103.15679, section
3.1): attention × its gradient, where positive, averaged over heads and multiplied up through the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from torchclas.layers.network import Network
from torchclas.layers.patch import LeadingTokens


def relevance(network: Network, images: Tensor, choose: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [N, num_classes] of images [N, channels, H, W], and a map for each of K classes of each, [N, K, h, w].

    `choose` is given the logits and says which classes: int64 [N, K]. The network is in evaluation mode. Maps are as
    fine as the network's last one; what is above 0 speaks for the class, what is below against it.
    """
    if isinstance(network.head, LeadingTokens):
        return _of_tokens(network, images, choose, network.head.count)
    with torch.no_grad():
        last = network.forward_features(images)
    with torch.enable_grad():
        last = last.detach().requires_grad_()
        logits = network.forward_head(last.clone())  # a head may work in place
        gradients = _gradients(logits, choose, [last])
        maps = [(gradient * last.detach()).sum(1) for (gradient,) in gradients]
    return logits.detach(), torch.stack(maps, 1)


def _of_tokens(
    network: Network, images: Tensor, choose: Callable[[Tensor], Tensor], prefix: int
) -> tuple[Tensor, Tensor]:
    """The same where the image's vector is made of the first `prefix` tokens, which belong to no patch."""
    with torch.enable_grad():
        with _Attentions() as attentions:
            tokens = network.forward_features(images.detach().requires_grad_())  # [N, prefix + h · w, C]
        logits = network.forward_head(tokens)
        count = tokens.shape[1]
        # TNT has attention within patches, too
        blocks = [block for block in attentions.made if block.mixed.shape[::2] == (len(images), count)]
        gradients = _gradients(logits, choose, [block.mixed for block in blocks])
    stride = network.feature_info[-1].stride
    places = images.shape[-2] // stride, images.shape[-1] // stride
    maps: list[Tensor] = []
    for of_class in gradients:
        through = torch.eye(
            count, dtype=tokens.dtype, device=tokens.device
        )  # [L, L], from the first block on [N, L, L]
        for block, gradient in zip(blocks, of_class, strict=True):
            through = through + block.positive(gradient) @ through
        maps.append(through[:, :prefix, prefix:].mean(1).unflatten(1, places))
    return logits.detach(), torch.stack(maps, 1)


def _gradients(logits: Tensor, choose: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """For each of the classes, the gradient of its logit by each of `inputs`."""
    scores = logits.gather(1, choose(logits.detach())).sum(0)  # an image's score depends on no other image
    return [torch.autograd.grad(score, inputs, retain_graph=True) for score in scores]


class _Attention(NamedTuple):
    """Queries, keys, values and what is mixed of values, [N, heads, L, width] each."""

    queries: Tensor
    keys: Tensor
    scale: float
    values: Tensor
    mixed: Tensor

    def positive(self, gradient: Tensor) -> Tensor:
        """Attention × its gradient where that is positive, mean over heads, [N, L, L]; `gradient` is by `mixed`."""
        with torch.no_grad():
            attention = (self.scale * self.queries @ self.keys.mT).softmax(-1)
            return (attention * (gradient @ self.values.mT)).clamp_min(0).mean(1)


class _Attentions(TorchFunctionMode):
    """While this is open, keeps what goes into every attention, and comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[_Attention] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called in place of every function of torch."""
        result = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            q, k, v = args
            scale = (kwargs or {}).get("scale")
            self.made.append(_Attention(q, k, q.shape[-1] ** -0.5 if scale is None else scale, v, result))
        return result
