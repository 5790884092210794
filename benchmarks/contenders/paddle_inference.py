"""Paddle Inference with oneDNN, on the graph that PaddleClas exports.

Runs in an environment with paddlepaddle 2.6.2 and paddleclas 2.5.2. With `--export ARCH CHECKPOINT FOLDER` it only
writes the inference files, which `paddleclas --inference_model_dir FOLDER` takes too.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle  # pyright: ignore[reportMissingImports] - in an environment of its own
from paddle import inference  # pyright: ignore[reportMissingImports]
from paddleclas.ppcls.arch import backbone  # pyright: ignore[reportMissingImports]
from protocol import MATRIX, Case, Contender, matrices, serve


class PaddleInference(Contender):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.files = Path(case.folder) / "paddle"
        if not (self.files / "inference.pdiparams").exists():
            export(case.network, Path(case.folder) / "checkpoint.pdparams", self.files, softmax=False)

    def open(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        return predictor(self.files, self.case.threads)

    def matrix_product(self) -> Callable[[], object]:
        left, right = matrices()
        linear = paddle.nn.Linear(MATRIX, MATRIX, bias_attr=False)
        linear.weight.set_value(right)
        files = Path(self.case.folder) / "paddle-matrix"
        write(linear, [None, MATRIX], files)
        product = predictor(files, self.case.threads)
        return lambda: product(left)


def export(arch: str, checkpoint: Path, folder: Path, *, softmax: bool) -> None:
    """Write inference.pdmodel and .pdiparams as PaddleClas does: re-parameterised, any batch size."""
    network = getattr(backbone, arch)(pretrained=False)
    missing, unexpected = network.set_state_dict(paddle.load(str(checkpoint)))
    if [name for name in missing if "relative_position_index" not in name] or unexpected:
        raise SystemExit(f"{checkpoint} does not fit {arch}: {missing} {unexpected}")
    network.eval()
    for layer in network.sublayers():
        if hasattr(layer, "rep") and not getattr(layer, "is_repped", False):
            layer.rep()
    write(paddle.nn.Sequential(network, paddle.nn.Softmax()) if softmax else network, [None, 3, 224, 224], folder)


def write(network: Any, shape: list[int | None], folder: Path) -> None:
    network.eval()
    spec = [paddle.static.InputSpec(shape, "float32")]
    paddle.jit.save(paddle.jit.to_static(network, input_spec=spec), str(folder / "inference"))


def predictor(folder: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The options are those of PaddleClas's own predictor on a CPU."""
    config = inference.Config(str(folder / "inference.pdmodel"), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.set_mkldnn_cache_capacity(10)
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads)
    config.disable_glog_info()
    config.switch_ir_optim(True)
    config.enable_memory_optim()
    config.switch_use_feed_fetch_ops(False)
    network = inference.create_predictor(config)
    source = network.get_input_handle(network.get_input_names()[0])
    target = network.get_output_handle(network.get_output_names()[0])

    def run(images: np.ndarray) -> np.ndarray:
        source.copy_from_cpu(images)
        network.run()
        return target.copy_to_cpu()

    return run


if __name__ == "__main__":
    if sys.argv[1] == "--export":
        export(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), softmax=True)
    else:
        serve(PaddleInference)
