"""The Open Inference Protocol, asked by Triton's client and by hand."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.servers import Running, picture, running, write_model
from torchclas.inference.classifier import Classifier
from torchclas.serving.options import ServeOptions

triton: Any = pytest.importorskip("tritonclient.http", reason="Triton's client is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "pets.safetensors")


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Running]:
    with running(ServeOptions(models=(str(model),), port=0, engine="torch", threads=1, queue=8)) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(service.url.removeprefix("http://"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier(model, engine="torch", threads=1, workers=0)


@pytest.fixture(scope="module")
def prepared(classifier: Classifier) -> NDArray[Any]:
    return np.stack([classifier.preprocess.array(picture(seed)) for seed in range(3)])


def test_health_and_metadata(client: Any, service: Running) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pets")
    assert not client.is_model_ready("dogs")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification", "model_repository"]
    metadata = client.get_model_metadata("pets")
    assert metadata["inputs"][0] == {"name": "images", "datatype": "FP32", "shape": [-1, 3, 64, 64]}
    assert [output["name"] for output in metadata["outputs"]] == ["logits", "probabilities", "embedding"]
    version = metadata["versions"][0]
    assert client.is_model_ready("pets", version)
    assert not client.is_model_ready("pets", "7")
    assert service.client.get(f"/v2/models/pets/versions/{version}").status_code == 200


@pytest.mark.parametrize("binary", [True, False])
def test_prepared_images(client: Any, classifier: Classifier, prepared: NDArray[Any], binary: bool) -> None:
    given = triton.InferInput("images", list(prepared.shape), "FP32")
    given.set_data_from_numpy(prepared, binary_data=binary)
    names = ("probabilities", "logits", "embedding")
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer("pets", [given], outputs=wanted, request_id="r1")
    engine = classifier.engine_for("embedding").run(prepared)["embedding"]
    np.testing.assert_allclose(result.as_numpy("logits"), classifier.engine(prepared), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("embedding"), engine, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("probabilities").sum(axis=1), 1, rtol=1e-5)
    assert result.get_response()["id"] == "r1"


@pytest.mark.parametrize("binary", [True, False])
def test_files(client: Any, classifier: Classifier, binary: bool) -> None:
    files = [picture(seed) for seed in range(3)]
    given = triton.InferInput("image_bytes", [3], "BYTES")
    content = files if binary else [base64.b64encode(file) for file in files]
    given.set_data_from_numpy(np.array(content, object), binary_data=binary)
    result = client.infer("pets", [given])
    expected = classifier.engine(np.stack([classifier.preprocess.array(file) for file in files]))
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-3, atol=1e-4)


def test_classification(client: Any, classifier: Classifier, prepared: NDArray[Any]) -> None:
    given = triton.InferInput("images", list(prepared.shape), "FP32")
    given.set_data_from_numpy(prepared)
    result = client.infer("pets", [given], outputs=[triton.InferRequestedOutput("logits", class_count=2)])
    rows = result.as_numpy("logits")
    assert rows.shape == (3, 2)
    for row, logits in zip(rows, classifier.engine(prepared), strict=True):
        value, place, name = row[0].decode().split(":")
        assert int(place) == logits.argmax()
        assert name == ("cat", "dog", "eel")[int(place)]
        assert float(value) == pytest.approx(float(logits.max()), rel=1e-3, abs=1e-4)


def test_a_broken_file_is_an_error_of_the_client(client: Any) -> None:
    given = triton.InferInput("image_bytes", [2], "BYTES")
    given.set_data_from_numpy(np.array([picture(1), b"no"], object))
    with pytest.raises(triton.InferenceServerException, match="the image 1 is not an image") as raised:
        client.infer("pets", [given])
    assert raised.value.status() == "422"


def test_the_repository(client: Any) -> None:
    assert [(row["name"], row["state"]) for row in client.get_model_repository_index()] == [("pets", "READY")]
    client.unload_model("pets")
    assert not client.is_model_ready("pets")
    client.load_model("pets")
    assert client.is_model_ready("pets")
    with pytest.raises(triton.InferenceServerException, match="unknown model"):
        client.load_model("passwd")
    with pytest.raises(triton.InferenceServerException, match="404"):
        client.load_model("/etc/passwd")


def ask(service: Running, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.client.post("/v2/models/pets/infer", content=content, headers=headers)


def images(shape: Any = (1, 3, 64, 64), data: Any = None, datatype: str = "FP32", **others: Any) -> dict[str, Any]:
    data = [0.5] * (3 * 64 * 64) if data is None else data
    return {"inputs": [{"name": "images", "shape": shape, "datatype": datatype, "data": data, **others}]}


def files(content: bytes, shape: int, size: int | None = None) -> tuple[bytes, dict[str, str]]:
    size = len(content) if size is None else size
    tensor = {"name": "image_bytes", "shape": [shape], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    return header + content, {"Inference-Header-Content-Length": str(len(header))}


def test_plain_and_nested_data_are_the_same(service: Running) -> None:
    nested = np.full((1, 3, 64, 64), 0.5).tolist()
    answers = [ask(service, images(data=data)).raise_for_status().json() for data in (None, nested)]
    assert answers[0] == answers[1]
    assert [output["name"] for output in answers[0]["outputs"]] == ["logits", "probabilities"]
    assert "id" not in answers[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        [],
        {},
        {"inputs": []},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]},
        images(shape=(1, 3, 32, 32)),
        images(shape=(2, 3, 64, 64)),
        images(shape=(0, 3, 64, 64), data=[]),
        images(shape=(-1, 3, 64, 64)),
        images(shape=(10**30, 3, 64, 64)),
        images(shape=[]),
        images(datatype="FP64"),
        images(data=["a"]),
        images(data=[[1, 2], [3]]),
        images(data=[10**400] * (3 * 64 * 64)),
        images(parameters={"binary_data_size": 8}),
        {**images(), "outputs": [{"name": "softmax"}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": 4}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": "all"}}]},
        {**images(), "outputs": [{"name": "embedding", "parameters": {"classification": 1}}]},
        {**images(), "outputs": [{"name": "logits"}] * 9},
        {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": ["?"]}]},
        {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": [7]}]},
        {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES"}]},
        {"inputs": [{"name": "image_bytes", "shape": [2], "datatype": "BYTES", "data": [""]}]},
    ],
)
def test_what_cannot_be_understood_is_400(service: Running, body: Any) -> None:
    answer = ask(service, body)
    assert answer.status_code == 400, answer.text
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    ("content", "shape", "size"),
    [
        (b"", 1, None),
        (b"\x01", 1, None),
        (struct.pack("<I", 5) + b"abc", 1, None),
        (struct.pack("<I", 2**32 - 1), 1, None),
        (struct.pack("<I", 1) + b"a", 2, None),
        (struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b", 1, None),
        (struct.pack("<I", 1) + b"a", 1, 4),
        (struct.pack("<I", 1) + b"a", 10**9, None),
    ],
)
def test_damaged_binary_parts_are_400(service: Running, content: bytes, shape: int, size: int | None) -> None:
    body, headers = files(content, shape, size)
    answer = ask(service, body, **headers)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "9" * 30])
def test_a_wrong_length_of_the_header_is_400(service: Running, length: str) -> None:
    answer = service.client.post(
        "/v2/models/pets/infer", content=b"{}", headers={"Inference-Header-Content-Length": length}
    )
    assert answer.status_code == 400


def test_values_that_are_no_numbers_give_no_answer(service: Running) -> None:
    answer = ask(service, images(data=[float("nan")] * (3 * 64 * 64)))
    assert answer.status_code == 422
    assert "NaN" in answer.json()["error"]


def test_more_images_than_places_are_413(service: Running) -> None:
    empty = struct.pack("<I", 0) * 9
    body, headers = files(empty, 9)
    assert ask(service, body, **headers).status_code == 413
