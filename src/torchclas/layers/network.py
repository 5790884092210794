"""The surface that every network of the zoo has in common."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, NoReturn, Protocol, SupportsIndex, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from torchclas.errors import Error, ImageSizeError
from torchclas.layers.conv import global_pool
from torchclas.layers.initialisation import Initialisation, initialise, near_zero
from torchclas.sizes import Size, show_size, to_size
from torchclas.vocabulary import Output

# A family's table: architecture → its class and what its constructor is given.
Variants = dict[str, tuple[type["Network"], dict[str, Any]]]

# A family's layouts: name → rules (ours, published[, "linear"]); see torchclas.weights.renames. A name may say which
# architectures it is for, as globs behind a colon; the first row that fits counts.
Renames = dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class FeatureInfo:
    """One map of `Network.features`: the stage it leaves, its stride in pixels, its channels.

    The stride is the distance of neighbouring places. A map of an image of `size` pixels has ceil(size / stride) places
    a side where `size` is the usual one, and fewer where convolutions or poolings are not padded (AlexNet, GoogLeNet,
    Inception, SqueezeNet): `Network.feature_sizes` says how many.
    """

    stage: int
    stride: int
    channels: int


def pyramid(stride: int, channels: Sequence[int], steps: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Scales of stages with these channels.

    `stride` is that of the first one; `steps` say how much each further one shrinks the map, by default to a half.
    """
    strides = accumulate(steps or [2] * (len(channels) - 1), mul, initial=stride)
    return list(zip(strides, channels, strict=True))


def count_of(name: str, value: SupportsIndex, *, least: int) -> int:
    """The argument `name` as an int, NumPy's as well; raises `Error` for no whole number, and for one below `least`."""
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if count < least or isinstance(value, bool):
        raise Error(f"{name} is a whole number from {least} on, not {value!r}")
    return count


class Stage(nn.Sequential):
    """Blocks in a row; `Network.set_gradient_checkpointing` makes training recompute instead of store them."""

    checkpointing: bool = False

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the last block returns."""
        for block in self:
            recompute = self.checkpointing and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x


class _Row(Protocol):
    @property
    def channels(self) -> int: ...


RowT = TypeVar("RowT", bound=_Row)


def stages_of_rows(
    channels: int, stages: Iterable[Iterable[RowT]], make: Callable[[int, RowT], nn.Module]
) -> list[Stage]:
    """A stage per table of rows, a block per row; `make` gets the channels before the block, and its row."""
    made: list[Stage] = []
    for rows in stages:
        blocks: list[nn.Module] = []
        for row in rows:
            blocks.append(make(channels, row))
            channels = row.channels
        made.append(Stage(*blocks))
    return made


class Network(nn.Module):
    """A classifier made of stem → stages → neck → head → classifier.

    A family's constructor makes the parts and hands them over in one call of this one:

    - `stem`: image [N, in_channels, H, W] → first map.
    - `stages`: groups of blocks, as the paper's table has them.
    - `scales`: stride and channels of every stage; `feature_info` lists the last stage of each stride.
    - `neck`: what stands between the last stage and pooling; often nothing.
    - `head`: last map → vector of `num_features` per image, by default its mean and the last stage's channels.
    - `auxiliary`: modules by name that only training uses.

    The `classifier`, vector → logits, is made here; it is the identity when `num_classes` is 0.

    `initial` says what fresh parameters are. `arch` is the name it was built under (empty when a class is used
    directly). `preset` says how images are prepared for its weights, a `torchclas.catalog.Preset` that `create_model`
    sets. `input_size` is the one image size, [height, width], of a network with position embeddings (`set_input_size`);
    None where every size from `min_size` on will do. Unpadded convolutions and poolings leave nothing of smaller
    images.
    """

    stem: nn.Module
    stages: nn.Sequential
    neck: nn.Module
    head: nn.Module
    classifier: nn.Module
    feature_info: tuple[FeatureInfo, ...]
    num_features: int
    num_classes: int
    initial: ClassVar[Initialisation] = Initialisation()
    arch: str = ""
    preset: object = None
    input_size: Size | None = None
    min_size: int = 1

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        scales: Iterable[tuple[int, int]],
        neck: nn.Module | None = None,
        head: nn.Module | None = None,
        auxiliary: Mapping[str, nn.Module] | None = None,
        num_features: int | None = None,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Identity() if neck is None else neck
        self.head = global_pool() if head is None else head
        last_of_stride = {stride: FeatureInfo(i, stride, channels) for i, (stride, channels) in enumerate(scales)}
        self.feature_info = tuple(last_of_stride.values())
        self.num_features = self.feature_info[-1].channels if num_features is None else num_features
        for name, module in (auxiliary or {}).items():
            self.add_module(name, module)
        self.init_weights()

    @property
    def in_channels(self) -> int:
        """Channels of an image, which the first convolution says."""
        return next(module.in_channels for module in self.modules() if isinstance(module, nn.Conv2d))

    def forward_features(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → the last map, before pooling."""
        self.check_image(x)
        return self.neck(self.stages(self.stem(x)))

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at several scales, finest first, as `feature_info` lists them."""
        wanted = {info.stage for info in self.feature_info}
        maps: list[Tensor] = []
        self.check_image(x)
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in wanted:
                maps.append(x)
        return maps

    def feature_sizes(self, height: int, width: int | None = None) -> tuple[tuple[int, int], ...]:
        """Height and width of every map of `features` for an image of `height` × `width` pixels, or a square one.

        Raises `ImageSizeError` for an image that the network does not take.
        """
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        shapes = {f"network.{name}": tensor.to("meta") for name, tensor in state.items()}
        dtype = next(self.parameters()).dtype
        image = torch.empty(2, self.in_channels, height, width or height, dtype=dtype, device="meta")
        with torch.no_grad():
            maps: list[Tensor] = functional_call(_Features(self), shapes, image)
        return tuple((each.shape[2], each.shape[3]) for each in maps)

    def head_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Last map → logits [N, num_classes], and the vector [N, num_features] before them, the embedding."""
        x = self.head(x)
        return self.classifier(x), x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Last map → logits [N, num_classes], or the vector [N, num_features] before them."""
        logits, embedding = self.head_outputs(x)
        return embedding if pre_logits else logits

    def forward(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))

    def outputs(self, x: Tensor, wanted: Sequence[Output]) -> tuple[Tensor, ...]:
        """Image [N, in_channels, H, W] → what is wanted of `logits` and `embedding`, in this order."""
        logits, embedding = self.head_outputs(self.forward_features(x))
        return tuple({"logits": logits, "embedding": embedding}[name] for name in wanted)

    def forward_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every head that training supervises; the first is the main one. Most networks have just that."""
        return (self(x),)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; 0 makes the network return its vectors.

        Raises `Error` for what is no number of classes, and changes nothing then.
        """
        like = next(self.parameters())
        self.classifier = self.make_classifier(num_classes).to(device=like.device, dtype=like.dtype)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A last layer for other classes; raises `Error` for what is no number of them.

        It begins near zero, whatever the published networks began with: its first answers are almost even, so that its
        first gradients do not spoil what the layers before it have learnt.
        """
        self.num_classes = num_classes = count_of("num_classes", num_classes, least=0)
        if num_classes == 0:
            return nn.Identity()
        layer = nn.Linear(self.num_features, num_classes)
        initialise(layer, near_zero)
        return layer

    def set_input_size(self, size: int | Size) -> None:
        """Prepare for images of `size` pixels, a side or [height, width], keeping the weights.

        Only networks with an `input_size` need it: their position embeddings are interpolated. The size that a network
        has already changes nothing. Raises `ImageSizeError` for a size that the graph cannot take.
        """
        size = to_size(size)
        # Without position embeddings a map of one place is enough, however few pixels it came from.
        least = self.min_size if self.input_size is None else max(self.min_size, self.feature_info[-1].stride)
        if min(size) < least:
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} needs images of at least {least} px, not {show_size(size)}"
            )
        if self.input_size not in (None, size):
            self.resize(self.input_size, size)
            self.input_size = size

    def resize(self, old: Size, new: Size) -> None:
        """What a family with an `input_size` does for images of another size; raises `ImageSizeError`."""
        raise NotImplementedError

    def require_multiples(self, size: Size, step: int) -> None:
        """Raise `ImageSizeError` for sides that are no multiples of `step`."""
        if any(side % step for side in size):
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} takes multiples of {step} px, not {show_size(size)}"
            )

    def require_square(self, size: Size) -> None:
        """Raise `ImageSizeError` for sides that differ."""
        if size[0] != size[1]:
            name = self.arch or type(self).__name__
            raise ImageSizeError(
                f"{name} takes square images, not {show_size(size)}: choose a convolutional network, ViT, DeiT or TNT"
            )

    def check_image(self, x: Tensor, *, min_size: int = 1) -> None:
        """Raise `ImageSizeError` for an image of another size than `input_size`, or too small.

        `min_size` is what the caller needs beyond the network's own.
        """
        height, width = x.shape[-2:]
        size, least = self.input_size, max(self.min_size, min_size)
        if size is not None and (height != size[0] or width != size[1]):
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} is set to {show_size(size)} px, this image has {height}×{width}: "
                "call set_input_size first, or resize the image"
            )
        if height < least or width < least:
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} needs images of at least {least} px, this one has "
                f"{height}×{width}: resize it, or choose another network"
            )

    def fuse(self) -> Self:
        """Fold what only training needs into plain layers, in place; outputs stay. Most have nothing to fold."""
        return self

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first. Raises `Error`: TorchScript cannot read a network's annotations."""
        name = self.arch or type(self).__name__
        raise Error(
            f"torch.jit.script cannot compile {name}: use torch.jit.trace(network, image), torch.export.export, or "
            "torchclas export --to torch-export"
        )

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Trade about a third more computation in training for memory that no longer grows with depth."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.checkpointing = enabled

    def init_weights(self) -> None:
        """Initialise for training from scratch, as `initial` says; the classifier is made anew."""
        self.initial.apply(self)
        self.reset_classifier(self.num_classes)
        for name, layer in self.named_children():
            if name.startswith("classifier") and isinstance(layer, nn.Linear):
                self.initial.apply_to_classifier(layer)


class _Features(nn.Module):
    """A network whose output is its maps."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.features(x)
