"""What PaddlePaddle and PaddleClas make of a file of weights; runs in an environment that has them (`make peers`).

    python paddle_peer.py ARCH CLASSES WEIGHTS.pdparams IMAGES.npy FOLDER

writes into FOLDER the logits of the images (`logits.npy`), the inference model, folded too where PaddlePaddle 2 does
that, and what two steps of training make of the weights (`tuned.pdparams`, `tuned.npy`: logits then).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np  # before paddle 2.6, which crashes otherwise
import paddle  # pyright: ignore[reportMissingImports] - in an environment of its own
from paddle import inference  # pyright: ignore[reportMissingImports]
from paddleclas.ppcls.arch import backbone  # pyright: ignore[reportMissingImports]


class Exported(paddle.nn.Layer):  # pyright: ignore[reportUntypedBaseClass]
    """As PaddleClas's tool exports it: with a softmax behind its logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.base_model = network
        self.out_act = paddle.nn.Softmax(axis=-1)

    def forward(self, x: Any) -> Any:
        return self.out_act(main(self.base_model(x)))


def main(heads: Any) -> Any:
    """Of several heads the first."""
    return heads[0] if isinstance(heads, list | tuple) else heads


def run(arch: str, classes: int, weights: str, images_file: str, folder: Path) -> None:
    state = paddle.load(weights)
    network = getattr(backbone, arch)(pretrained=False, class_num=classes)
    missing, unexpected = network.set_state_dict(state)
    tables = {name for name, tensor in network.state_dict().items() if "int" in str(tensor.dtype)}
    if set(missing) - tables or unexpected:
        raise SystemExit(f"{weights} does not fit {arch}: missing {missing}, unexpected {unexpected}")
    images = paddle.to_tensor(np.load(images_file))
    np.save(folder / "logits.npy", logits(network, images))
    tune(network, images)
    paddle.save(network.state_dict(), str(folder / "tuned.pdparams"))
    np.save(folder / "tuned.npy", logits(network, images))
    network.set_state_dict(state)
    for layer in network.sublayers():
        if hasattr(layer, "rep"):
            layer.rep()
    spec = paddle.static.InputSpec([None, *images.shape[1:]], "float32", name="x")
    exported = paddle.jit.to_static(Exported(network), input_spec=[spec])
    exported.eval()
    paddle.jit.save(exported, str(folder / "inference"))
    if paddle.__version__.startswith("2"):
        fold(folder)


def logits(network: Any, images: Any) -> np.ndarray:
    network.eval()
    with paddle.no_grad():
        return main(network(images)).numpy()


def fold(folder: Path) -> None:
    """What PaddlePaddle runs in the end: batch norms are part of the convolutions."""
    config = inference.Config(str(folder / "inference.pdmodel"), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.disable_mkldnn()
    config.enable_save_optim_model(True)
    (folder / "folded").mkdir()
    config.set_optim_cache_dir(str(folder / "folded"))
    inference.create_predictor(config)


def tune(network: Any, images: Any) -> None:
    network.train()
    optimizer = paddle.optimizer.Momentum(1e-3, parameters=network.parameters())
    labels = paddle.arange(len(images))
    for _ in range(2):
        loss = paddle.nn.functional.cross_entropy(main(network(images)), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5]))
