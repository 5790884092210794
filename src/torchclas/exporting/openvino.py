"""Networks as OpenVINO's own files: an .xml with the graph, a .bin of the same name with the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.exporting.onnx import class_lines, module_of
from torchclas.openvino_core import convert_model, openvino_core
from torchclas.vocabulary import INPUT
from torchclas.weights.metadata import KEY, Metadata


def write_openvino(onnx_file: str | Path, path: str | Path, metadata: Metadata) -> None:
    """Convert a file that `torchclas.exporting.onnx.write_onnx` wrote; weights stay float32."""
    model = convert_model(str(onnx_file))
    from openvino import save_model

    notes = model.get_rt_info()
    for key in ("framework", "conversion_parameters"):  # ONNX's own metadata, and a path of this machine
        if key in notes:
            del notes[key]
    for key, text in {KEY: metadata.to_json(), **class_lines(metadata)}.items():
        model.set_rt_info(text, [key])
    model.set_friendly_name(metadata.name or metadata.arch)
    save_model(model, str(path), compress_to_fp16=False)


class OpenVinoFile:
    """An OpenVINO model, run on the CPU in float32."""

    def __init__(self, path: Path) -> None:
        self._model = openvino_core().read_model(str(path))
        self._outputs = [output.get_any_name() for output in self._model.outputs]
        self._compiled = self._compile(self._model)

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """What the model gives, by name."""
        values = self._compiled({INPUT: images})
        return {name: values[name] for name in self._outputs}

    def layers(self, images: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Module and value of every operation, in the order in which they run."""
        names = [
            next(iter(output.get_names()))
            for operation in self._model.get_ordered_ops()
            for output in operation.outputs()
            if operation.get_type_name() not in ("Constant", "Parameter") and output.get_names()
        ]
        model = self._model.clone()
        model.add_outputs([name for name in names if name not in self._outputs])
        values = self._compile(model)({INPUT: images})
        for name in names:
            yield module_of(name), values[name]

    def _compile(self, model: Any) -> Any:
        return openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
