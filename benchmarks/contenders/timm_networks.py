"""timm's network of the same architecture: as it is, in channels_last, compiled, and in ONNX Runtime.

Its best form each time: RepVGG is re-parameterised, torch.compile and the ONNX export get a fixed batch size.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from protocol import MATRIX, Case, Contender, matrices, serve
from timm.utils.model import reparameterize_model
from timm.utils.onnx import onnx_export
from torch import nn

NAMES = {
    "PPLCNet_x1_0": "lcnet_100",
    "MobileNetV3_large_x1_0": "mobilenetv3_large_100",
    "ResNet50_vd": "resnet50d",
    "EfficientNetB0": "efficientnet_b0",
    "GhostNet_x1_0": "ghostnet_100",
    "DeiT_tiny_patch16_224": "deit_tiny_patch16_224",
    "SwinTransformer_tiny_patch4_window7_224": "swin_tiny_patch4_window7_224",
    "HRNet_W18_C": "hrnet_w18",
    "RepVGG_A0": "repvgg_a0",
    "DenseNet121": "densenet121",
}


class TimmNetwork(Contender):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        torch.set_num_threads(case.threads)
        torch.manual_seed(0)

    def open(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        if self.case.engine == "onnxruntime":
            return self.session(batch)
        network = self.network()
        layout = torch.contiguous_format if self.case.engine == "eager" else torch.channels_last
        network = network.to(memory_format=layout)
        if self.case.engine == "compile":
            network = torch.compile(network, dynamic=False)

        def run(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(images).to(memory_format=layout)).numpy()

        return run

    def session(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        path = Path(self.case.folder) / f"timm-{batch}.onnx"
        if not path.exists():
            onnx_export(self.network(exportable=True), str(path), batch_size=batch, input_size=(3, 224, 224))
        return onnx_runtime(path, self.case.threads)

    def network(self, *, exportable: bool = False) -> nn.Module:
        network = timm.create_model(NAMES[self.case.network], pretrained=False, exportable=exportable)
        return reparameterize_model(network).eval()

    def matrix_product(self) -> Callable[[], object]:
        left, right = (torch.from_numpy(matrix) for matrix in matrices())
        if self.case.engine != "onnxruntime":
            return lambda: left @ right
        linear = nn.Linear(MATRIX, MATRIX, bias=False)
        linear.weight.data = right
        path = Path(self.case.folder) / "timm-matrix.onnx"
        torch.onnx.export(linear, (left,), str(path), dynamo=False)
        product = onnx_runtime(path, self.case.threads)
        return lambda: product(left.numpy())


def onnx_runtime(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    run: Any = session.run
    return lambda images: run(None, {name: images})[0]


if __name__ == "__main__":
    serve(TimmNetwork)
