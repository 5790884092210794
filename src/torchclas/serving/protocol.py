"""The Open Inference Protocol, version 2, over REST: what clients of Triton, KServe and others speak.

With its extensions for binary tensors, classification and the model repository. A request gives either `images`,
prepared as /v2/models/NAME describes, or `image_bytes`, files as they are: in JSON as base64, in binary as they come.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torchclas.errors import ImageError
from torchclas.inference.classifier import probabilities
from torchclas.serving.batching import Row
from torchclas.serving.bodies import Sent, read_body
from torchclas.serving.models import Model
from torchclas.serving.refusals import Refusal, bad_image
from torchclas.serving.service import Service
from torchclas.version import __version__
from torchclas.vocabulary import Output

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository"]
HEADER_LENGTH = "Inference-Header-Content-Length"

Wanted = Literal["logits", "probabilities", "embedding"]
_SOURCE: dict[Wanted, Output] = {"logits": "logits", "probabilities": "logits", "embedding": "embedding"}

router = APIRouter(prefix="/v2")


class Tensor(BaseModel):
    """An input of a request."""

    name: Literal["images", "image_bytes"]
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class RequestedOutput(BaseModel):
    """An output of a request. Its `classification` asks for so many classes in place of numbers."""

    name: Wanted
    parameters: dict[str, Any] = {}


class InferenceRequest(BaseModel):
    """What a request says in JSON."""

    model_config = ConfigDict(strict=True)
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] = []
    id: str = ""
    parameters: dict[str, Any] = {}


@dataclass(frozen=True)
class Asked:
    """A request, understood: prepared images, or files."""

    request: InferenceRequest
    prepared: NDArray[Any] | None
    files: tuple[Sent, ...] = ()

    @property
    def outputs(self) -> list[RequestedOutput]:
        """What is wanted; by default what classes are told from."""
        return self.request.outputs or [RequestedOutput(name="logits"), RequestedOutput(name="probabilities")]


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("")
async def server() -> dict[str, Any]:
    """What serves."""
    return {"name": "torchclas", "version": __version__, "extensions": EXTENSIONS}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the process runs."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Whether requests should come here; 503 once the process was asked to end."""
    return _ready(_service(request).ready)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    """What a model takes and gives. A request has one of the inputs."""
    model = _find(request, name, version)
    datatype, shape = _prepared(model)
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, _length(model, name)]} for name in _available(model)]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": f"torchclas_{model.classifier.engine.name}",
        "inputs": [
            {"name": "images", "datatype": datatype, "shape": [-1, *shape]},
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": outputs,
    }


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Whether a model is open."""
    _find(request, name, version)
    return _ready(_service(request).ready)


@router.post("/models/{name}/infer", openapi_extra=_BODY)
@router.post("/models/{name}/versions/{version}/infer", openapi_extra=_BODY)
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Run a model on prepared images, or on files of images."""
    service = _service(request)
    _find(request, name, version)
    header = request.headers.get(HEADER_LENGTH)

    async def work(model: Model, body: bytes) -> Response:
        asked = await service.on_thread(_understood, model, header, body)
        rows = await _rows(service, model, asked)
        service.metrics.image(model.name, "ok", len(rows))
        return await service.on_thread(_answer, model, asked, rows)

    return await service.answer(request, name, read_body, work)


@router.post("/repository/index")
async def index(request: Request) -> list[dict[str, str]]:
    """All models, open or not; `{"ready": true}` asks for those that are open."""
    content = _json(await _service(request).small_body(request) or b"{}")
    only_ready = isinstance(content, dict) and content.get("ready") is True
    return [row for row in _service(request).registry.index() if row["state"] == "READY" or not only_ready]


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> dict[str, str]:
    """Open a model of the start or of the repository, or open it again; its requests go on meanwhile."""
    await _service(request).small_body(request)  # Triton's clients may send a configuration; nothing in it is followed
    await _service(request).registry.load(name)
    return {}


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> dict[str, str]:
    """Close a model once its requests are answered."""
    await _service(request).small_body(request)
    await _service(request).registry.unload(name)
    return {}


def _service(request: Request) -> Service:
    return request.app.state.service


def _find(request: Request, name: str, version: str | None) -> Model:
    model = _service(request).registry.find(name)
    if version not in (None, model.version):
        raise Refusal(404, "unknown_version", f"{name} is served in version {model.version} alone", "leave it out")
    return model


def _ready(yes: bool) -> Response:
    return JSONResponse({"ready": yes}, 200 if yes else 503)


def _available(model: Model) -> list[Wanted]:
    return [wanted for wanted, output in _SOURCE.items() if output in model.classifier.spec.outputs]


def _length(model: Model, wanted: Wanted) -> int:
    return -1 if wanted == "embedding" else model.classifier.spec.num_classes


def _prepared(model: Model) -> tuple[str, tuple[int, ...]]:
    spec = model.classifier.spec
    return ("UINT8", (-1, -1, 3)) if spec.pixels else ("FP32", (spec.in_channels, *spec.preset.size))


async def _rows(service: Service, model: Model, asked: Asked) -> list[Row]:
    if asked.prepared is not None:
        return await service.tensor_rows(model, list(asked.prepared))
    rows: list[Row] = []
    for place, row in enumerate(await service.rows(model, asked.files)):
        if isinstance(row, ImageError):  # tensors have no rows for errors
            service.metrics.image(model.name, "error")
            raise bad_image(f"{place} {row}")
        rows.append(row)
    return rows


def _understood(model: Model, header: str | None, body: bytes) -> Asked:
    length = len(body) if header is None else int(header) if header.isdecimal() and len(header) < 12 else -1
    if not 0 <= length <= len(body):
        raise _bad(f"{HEADER_LENGTH} is not the length of the JSON")
    try:
        request = InferenceRequest.model_validate(_json(body[:length]))
    except ValidationError as error:
        problem = error.errors()[0]
        raise _bad(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}") from None
    for output in request.outputs:
        if output.name not in _available(model):
            raise _bad(f"{model.name} gives no {output.name}")
    tensor, rest = request.inputs[0], body[length:]
    raw = _raw(tensor, rest)
    if tensor.name == "images":
        return Asked(request, _array(model, tensor, raw))
    files = tuple(Sent(str(place), content) for place, content in enumerate(_files(tensor, raw)))
    return Asked(request, None, files)


def _raw(tensor: Tensor, rest: bytes) -> bytes | None:
    """The tensor's binary part, which is all that follows the JSON; None where its data are in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if rest:
            raise _bad("data follow the JSON, but the input has no binary_data_size")
        return None
    if tensor.data is not None or type(size) is not int or size != len(rest):
        raise _bad(f"binary_data_size is {str(size)[:20]}, and {len(rest)} bytes follow the JSON")
    return rest


def _array(model: Model, tensor: Tensor, raw: bytes | None) -> NDArray[Any]:
    datatype, right = _prepared(model)
    shape = tuple(tensor.shape)
    fits = len(shape) == 4 and all(wanted in (-1, given) for wanted, given in zip(right, shape[1:], strict=True))
    if tensor.datatype != datatype or not fits or 0 in shape:
        wanted = ", ".join("N" if side == -1 else str(side) for side in (-1, *right))
        raise _bad(f"images are {datatype} [{wanted}], not {tensor.datatype[:20]} {list(shape)}")
    dtype = np.dtype(np.uint8 if datatype == "UINT8" else "<f4")
    count = math.prod(shape)
    if raw is not None:
        if len(raw) != count * dtype.itemsize:
            raise _bad(f"images of that shape take {count * dtype.itemsize:,} bytes, not {len(raw):,}")
        return np.frombuffer(raw, dtype).reshape(shape)
    try:
        values = np.array(tensor.data, np.float64).ravel()
    except (ValueError, TypeError, OverflowError):
        raise _bad("the data of images are not numbers, in lists of equal lengths") from None
    if values.size != count:
        raise _bad(f"images of that shape have {count:,} values, not {values.size:,}")
    if datatype == "UINT8" and not ((values >= 0) & (values <= 255)).all():
        raise _bad("the data of images are not within 0..255")
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _files(tensor: Tensor, raw: bytes | None) -> list[bytes]:
    count = math.prod(tensor.shape)
    if tensor.datatype != "BYTES" or not 1 <= count < 10_000:
        raise _bad(f"image_bytes are BYTES [N], not {tensor.datatype[:20]} {tensor.shape}")
    files: list[bytes] = []
    if raw is None:
        try:
            files = [base64.b64decode(text, validate=True) for text in np.array(tensor.data, object).ravel()]
        except (ValueError, TypeError, binascii.Error):
            raise _bad("image_bytes in JSON are texts in base64") from None
    else:
        position = 0
        while position < len(raw) and len(files) <= count:
            start = position + 4
            position = start + int.from_bytes(raw[position:start], "little")
            if position > len(raw):
                raise _bad("image_bytes end before the last of them does")
            files.append(raw[start:position])
    if len(files) != count:
        raise _bad(f"{count} images were announced, and {len(files)} came")
    return files


def _answer(model: Model, asked: Asked, rows: list[Row]) -> Response:
    request, described, binary = asked.request, list[dict[str, Any]](), list[bytes]()
    all_binary = request.parameters.get("binary_data_output") is True
    for output in asked.outputs:
        values = np.stack([row[_SOURCE[output.name]] for row in rows])
        if output.name == "probabilities":
            values = probabilities(values, model.classifier.spec.activation)
        if not np.isfinite(values).all():
            raise Refusal(422, "not_finite", f"{model.name} computes NaN or infinity for it", "check the images")
        content: NDArray[Any] = values
        if (classes := output.parameters.get("classification")) is not None:
            content = _classified(model, output, values, classes)
        entry: dict[str, Any] = {"name": output.name, "shape": list(content.shape)}
        entry["datatype"] = "BYTES" if content.dtype == object else "FP32"
        if output.parameters.get("binary_data", all_binary) is True:
            binary.append(_bytes(content))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = content.ravel().tolist()
        described.append(entry)
    about = {"model_name": model.name, "model_version": model.version, "outputs": described}
    if request.id:
        about["id"] = request.id
    if not binary:
        return JSONResponse(about)
    header = json.dumps(about).encode()
    return Response(
        b"".join([header, *binary]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(header))},
    )


def _classified(model: Model, output: RequestedOutput, values: NDArray[np.float32], count: Any) -> NDArray[Any]:
    """The best classes of each row as `value:number:name`, as Triton writes them."""
    if output.name == "embedding" or type(count) is not int or not 1 <= count <= values.shape[1]:
        raise _bad(f"classification of {output.name} is a number between 1 and that of the classes")
    names = model.classifier.spec.classes.names()
    best = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return np.array(
        [[f"{row[i]:f}:{i}:{names[i]}" for i in order] for row, order in zip(values, best, strict=True)], object
    )


def _bytes(content: NDArray[Any]) -> bytes:
    if content.dtype != object:
        return content.astype("<f4").tobytes()
    texts: Sequence[bytes] = [text.encode("utf-8", "replace") for text in content.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _bad("the JSON cannot be read") from None


def _bad(message: str) -> Refusal:
    return Refusal(400, "bad_request", message, "see /docs, and /v2/models/NAME for shapes")
