"""torchclas: any of its engines, in any precision, or `auto`.

int8 is of all that can be quantized. `torchclas quantize` leaves in float what would cost accuracy, but these networks'
weights are made up, and have no accuracy to lose.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from protocol import MATRIX, Case, Contender, matrices, serve

from torchclas.data.preprocess import Preprocess
from torchclas.engines import Engine, compiled, open_engine
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import EngineName, Precision

CALIBRATION = 32  # photographs


class Torchclas(Contender):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.spec = find_model(case.network, weights=Path(case.folder) / "checkpoint.pdparams")
        self.engines: dict[int, Engine] = {}
        if case.precision == "int8" and not compiled.int8_path(self.spec).is_file():
            quantize(self.spec)

    def open(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        case = self.case
        self.engines[batch] = open_engine(
            self.spec,
            cast("EngineName", case.engine),
            precision=cast("Precision", case.precision),
            threads=case.threads,
            batch_size=batch,
        )
        return self.engines[batch]

    def about(self, batch: int) -> str:
        return self.engines[batch].name

    def matrix_product(self) -> Callable[[], object]:
        chosen = self.engines[max(self.engines)].name
        products = {"onnxruntime": onnx_runtime_product, "openvino": openvino_product}
        return products.get(chosen, torch_product)(self.case.precision, self.case.threads)


def quantize(spec: ModelSpec) -> None:
    import onnx

    from torchclas.quantization.calibration import quantize_all

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from photographs import photographs

    preprocess = Preprocess(spec.preset)
    images = np.stack([preprocess.array(picture[:, :, ::-1].copy()) for picture in photographs(CALIBRATION)])
    graph = onnx.load(compiled.graph_file(spec))
    quantized = quantize_all(graph, images)
    onnx.save(quantized, compiled.int8_path(spec))


def torch_product(precision: str, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.from_numpy(matrix).to(dtype) for matrix in matrices())
    return lambda: left @ right


def openvino_product(precision: str, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13 as ops

    left, right = matrices()
    images = ops.parameter([MATRIX, MATRIX], np.float32)
    factors = [images, ops.constant(right)]
    if precision == "int8":  # a step of 1/32 covers what a normal distribution holds
        factors = [
            ops.fake_quantize(factor, *np.array([-4, 127 / 32] * 2, np.float32), levels=256) for factor in factors
        ]
    network = openvino.Core().compile_model(
        cast("Any", openvino.Model)([ops.matmul(*factors, False, False)], [images]),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = network.create_infer_request()
    return lambda: request.infer([left], share_inputs=True, share_outputs=True)


def onnx_runtime_product(precision: str, threads: int) -> Callable[[], object]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    left, right = matrices()
    step, zero = (
        numpy_helper.from_array(np.array(1 / 32, np.float32), "step"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
    )
    if precision == "int8":
        weights = np.clip(np.rint(right * 32), -128, 127).astype(np.int8)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "step", "zero"], ["left"]),
            helper.make_node("DequantizeLinear", ["w", "step", "zero"], ["right"]),
            helper.make_node("MatMul", ["left", "right"], ["y"]),
        ]
        constants = [numpy_helper.from_array(weights, "w"), step, zero]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        constants = [numpy_helper.from_array(right, "w")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [MATRIX, MATRIX]) for name in "xy"]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


if __name__ == "__main__":
    serve(Torchclas)
