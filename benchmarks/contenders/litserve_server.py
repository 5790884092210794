"""LitServe around timm's network, eager or compiled, or around the very network that torchclas serves.

    python litserve_server.py NETWORK eager|compile|torchclas PORT

Batches, the wait for them, threads and answers are those of `torchclas serve`; a picture comes as LitServe's examples
send it, base64 in JSON. Its worker decodes a batch's pictures one after the other, which is how LitServe works.
"""

import base64
import io
import sys
from typing import Any

import numpy as np
import timm
import torch
from litserve import LitAPI, LitServer  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from torchclas.inference.classifier import Classifier

BATCH, WAIT, THREADS, TOP = 16, 0.005, 2, 5
TIMM = {"PPLCNet_x1_0": "lcnet_100", "EfficientNet_lite0": "tf_efficientnet_lite0", "ResNet50_vd": "resnet50d"}


class Timm(LitAPI):  # pyright: ignore[reportUntypedBaseClass]
    def __init__(self, network: str, *, compiled: bool) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT)  # pyright: ignore[reportUnknownMemberType]
        self.name, self.compiled = TIMM[network], compiled

    def setup(self, device: str) -> None:
        torch.set_num_threads(THREADS)
        network = timm.create_model(self.name, pretrained=False).eval().to(memory_format=torch.channels_last)
        self.prepare: Any = create_transform(**resolve_model_data_config(network), is_training=False)
        self.network = torch.compile(network, dynamic=False) if self.compiled else network
        if self.compiled:
            self.predict(torch.zeros(BATCH, 3, *self.prepare(Image.new("RGB", (500, 375))).shape[1:]))

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        return self.prepare(Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB"))

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(inputs)
        if self.compiled:  # for one batch size, so that nothing is compiled while requests wait
            stacked = torch.cat([stacked, stacked.new_zeros(BATCH - len(inputs), *stacked.shape[1:])])
        self.images = len(inputs)
        return stacked.contiguous(memory_format=torch.channels_last)

    def predict(self, x: torch.Tensor) -> list[tuple[list[float], list[int]]]:
        with torch.inference_mode():
            best = self.network(x).softmax(1).topk(TOP)
        return [*zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output[: self.images]

    def encode_response(self, output: tuple[list[float], list[int]]) -> dict[str, object]:
        return {"scores": output[0], "classes": output[1]}


class Torchclas(LitAPI):  # pyright: ignore[reportUntypedBaseClass]
    def __init__(self, network: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT)  # pyright: ignore[reportUnknownMemberType]
        self.name = network

    def setup(self, device: str) -> None:
        self.classifier = Classifier(self.name, threads=THREADS, batch_size=BATCH)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        return self.classifier.preprocess.array(base64.b64decode(request["image"]))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        logits = self.classifier.engine(x)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        best = np.argsort(output)[: -TOP - 1 : -1]
        return {"scores": output[best].tolist(), "classes": best.tolist()}


if __name__ == "__main__":
    network, kind, port = sys.argv[1:]
    served = Torchclas(network) if kind == "torchclas" else Timm(network, compiled=kind == "compile")
    LitServer(served, accelerator="cpu", timeout=120).run(  # pyright: ignore[reportUnknownMemberType]
        host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning"
    )
