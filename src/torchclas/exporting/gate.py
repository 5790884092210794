"""Whether a written file computes what its network does, and where it stops doing so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error
from torchclas.layers.network import Network
from torchclas.vocabulary import Output

TOLERANCE = 1e-4  # of the largest logit, in float32
TOLERANCE_HALF = 1e-2  # the same where a file's numbers have half precision, 11 bits

Array = NDArray[Any]


class DivergenceError(Error):
    """An exported file that computes something else than its network."""


class ExportedFile(Protocol):
    """A file as its runtime runs it."""

    def __call__(self, images: Array) -> Mapping[str, NDArray[np.float32]]:
        """Logits [N, classes], embeddings [N, features], or both, by name."""
        ...

    def layers(self, images: Array) -> Iterable[tuple[str, Array]]:
        """Module and value of every operation, in the order in which they run."""
        ...


@torch.inference_mode()
def compute(
    network: Network, preset: Preset, images: Array, outputs: Sequence[Output] = ("logits",)
) -> dict[Output, NDArray[np.float32]]:
    """What the network gives for float32 images, or for uint8 pixels prepared as `predict` does it."""
    if images.dtype == np.uint8:
        images = np.stack([Preprocess(preset).array(pixels) for pixels in images])
    values = network.outputs(torch.from_numpy(images), outputs)
    found: dict[Output, NDArray[np.float32]] = {
        name: value.numpy() for name, value in zip(outputs, values, strict=True)
    }
    if not all(np.isfinite(value).all() for value in found.values()):
        raise Error("the network's own logits are not finite, so no file can be compared with it: check its weights")
    return found


def check(
    file: ExportedFile,
    network: nn.Module,
    cases: Sequence[tuple[Array, Mapping[Output, NDArray[np.float32]]]],
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """Run `file` on each case's images and compare with its outputs; return the largest error.

    An error is relative to the largest value of its output. `network`, in evaluation mode, has the modules that the
    file's operations are named after.

    Raises:
        DivergenceError: an error is larger than `tolerance`; the message names the first layer that differs.
    """
    worst = 0.0
    for images, wanted in cases:
        got = file(images)
        if got.keys() != wanted.keys():
            raise DivergenceError(f"it gives {', '.join(got)}, and not {', '.join(wanted)}")
        for name, values in wanted.items():
            error = relative_error(got[name], values)
            if not error <= tolerance:  # NaN is not
                layer = first_difference(file, network, images, tolerance)
                where = "" if layer is None else f"; the first layer that differs is {layer}"
                raise DivergenceError(
                    f"it computes something else than its network: {name} differ by {error:.1e} of the largest, "
                    f"{tolerance:.0e} are allowed{where}"
                )
            worst = max(worst, error)
    return worst


def relative_error(got: Array, want: Array) -> float:
    """Largest absolute difference over the largest absolute value."""
    if got.shape != want.shape:
        return float("inf")
    scale = float(np.abs(want).max())
    return float(np.abs(got.astype(np.float64) - want).max()) / (scale or 1.0)


def first_difference(file: ExportedFile, network: nn.Module, images: Array, tolerance: float) -> str | None:
    """The first module of `network` whose output `file` gets wrong, and by how much of its largest value."""
    outputs = _outputs(network, torch.from_numpy(images))
    layers = list(file.layers(images))
    last = {}
    for index, (module, _) in enumerate(layers):
        while module:  # an operation may end the modules around its own, too
            last[module] = index
            module = module.rpartition(".")[0]
    for index, (module, value) in enumerate(layers):
        ended = module
        while ended:
            if last[ended] == index and ended in outputs and outputs[ended].shape == value.shape:
                error = relative_error(value, outputs[ended])
                if not error <= tolerance:
                    return (
                        f"{ended} ({type(network.get_submodule(ended)).__name__}), by {error:.1e} of its largest value"
                    )
                break
            ended = ended.rpartition(".")[0]
    return None


@torch.no_grad()
def _outputs(network: nn.Module, images: torch.Tensor) -> dict[str, Array]:
    """What each module returns; those that run several times, or return several tensors, are left out."""
    found: dict[str, Array | None] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            once = name not in found and isinstance(output, torch.Tensor)
            found[name] = output.numpy().copy() if once else None  # the next layer may work in place

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            handle = module.register_forward_hook(record(name))
            stack.callback(handle.remove)
        network(images)
    return {name: value for name, value in found.items() if name and value is not None}


def pictures() -> list[NDArray[np.uint8]]:
    """Three images [H, W, 3]: photographs where scikit-image is installed, else clouds with a photograph's spectrum."""
    try:
        import skimage.data

        return [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    except ImportError:
        return [
            clouds(seed, height, width) for seed, (height, width) in enumerate(((512, 512), (400, 600), (300, 451)))
        ]


def clouds(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise whose amplitude falls with its frequency, as that of natural images does."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    spectrum = np.fft.fft2(noise, axes=(0, 1)) / np.maximum(frequency, 1 / max(height, width))[:, :, None]
    clouds = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return np.clip(128 + 50 * clouds / clouds.std(), 0, 255).astype(np.uint8)


def inputs(preset: Preset, *, channels: int, batch: int | None, pixels: bool) -> Iterator[Array]:
    """Images to compare on: real and random ones, one and three at once or as many as the file takes."""
    rng = np.random.default_rng(0)
    counts = (1, 3) if batch is None else (batch,)
    real = pictures()
    if pixels:
        yield from (np.repeat(picture[None], batch or 1, 0) for picture in real)
        for count in counts:
            yield rng.integers(0, 256, (count, 333, 500, 3), np.uint8)
        return
    prepared = np.stack([Preprocess(preset).array(picture) for picture in real])
    for count in counts:
        if channels == 3:
            yield np.resize(prepared, (count, *prepared.shape[1:]))
        yield rng.standard_normal((count, channels, *preset.size), np.float32)
