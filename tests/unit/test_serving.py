"""The HTTP service: a real server, and clients that behave and others that do not."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.servers import Running, picture, running, stubbed, until, write_model
from torchclas import Explainer, catalog
from torchclas.data.decode import decode
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error
from torchclas.inference.classifier import Classifier
from torchclas.reporting.heat import draw
from torchclas.serving import server
from torchclas.serving.options import ServeOptions, is_loopback, seconds, size_in_bytes, split_name
from torchclas.serving.simple import EXPLAINED_SIDE


def options(*models: Path | str, **others: Any) -> ServeOptions:
    settings: dict[str, Any] = {"port": 0, "engine": "torch", "threads": 1, **others}
    return ServeOptions(models=tuple(map(str, models)), **settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "pets.safetensors")


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Running]:
    with running(options(model, max_body=2**20, max_pixels=200_000)) as service:
        yield service


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier(model, engine="torch", threads=1, workers=0)


def error_of(answer: httpx.Response) -> dict[str, str]:
    content = answer.json()
    assert list(content) == ["error"]
    assert list(content["error"]) == ["kind", "message", "hint"]
    assert all(isinstance(text, str) for text in content["error"].values())
    return content["error"]


def check(row: dict[str, Any], image: bytes, classifier: Classifier) -> None:
    """A served row is what `predict` says."""
    (expected,) = classifier.predict(image)
    assert row["status"] == expected.status == "ok"
    assert [entry["class_id"] for entry in row["classes"]] == list(expected.class_ids)
    assert [entry["label"] for entry in row["classes"]] == list(expected.labels)
    np.testing.assert_allclose([entry["score"] for entry in row["classes"]], expected.scores, rtol=1e-4)


def test_an_image_as_the_body(service: Running, classifier: Classifier) -> None:
    image = picture(1)
    answer = service.classify(image).raise_for_status().json()
    assert list(answer) == ["model", "engine", "seconds", "predictions"]
    assert (answer["model"], answer["engine"]) == ("pets", "torch fp32")
    assert answer["predictions"][0]["source"] == "body"
    check(answer["predictions"][0], image, classifier)


def test_what_curl_calls_a_body_is_taken(service: Running) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert service.client.post("/v1/classify", content=picture(1), headers=headers).status_code == 200
    assert service.client.post("/v1/classify", content=b"a=b", headers=headers).status_code == 422


def test_a_form_has_a_row_for_each_file_and_an_error_is_one_row(service: Running, classifier: Classifier) -> None:
    images = {"a.jpg": picture(1), "broken.jpg": picture(1)[:300], "图.png": picture(2, kind="PNG"), "empty": b""}
    answer = service.client.post("/v1/classify", files=[("file", item) for item in images.items()])
    rows = answer.raise_for_status().json()["predictions"]
    assert [row["source"] for row in rows] == list(images)
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error"]
    check(rows[0], images["a.jpg"], classifier)
    check(rows[2], images["图.png"], classifier)
    assert "truncated or damaged" in rows[1]["error"]
    assert rows[1]["classes"] == []
    assert rows[3]["error"] == "the file is empty"


def test_the_page_is_there_and_keeps_to_its_policy(service: Running) -> None:
    page = service.client.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "'unsafe" not in page.headers["Content-Security-Policy"]
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page.text)
    for address in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert service.client.get(f"/{address}").status_code == 200, address


def test_the_zoo(service: Running) -> None:
    zoo = service.client.get("/v1/zoo").raise_for_status().json()
    assert [model["name"] for model in zoo["models"]] == catalog.names()


def test_parameters(service: Running) -> None:
    image = picture(1)
    assert len(service.classify(image, top_k=2).json()["predictions"][0]["classes"]) == 2
    assert service.classify(image, threshold=1).json()["predictions"][0]["classes"] == []
    for wrong in ({"top_k": 0}, {"top_k": "x"}, {"threshold": 2}, {"threshold": "nan"}, {"lang": "fr"}):
        answer = service.classify(image, **wrong)
        assert answer.status_code == 422, wrong
        assert error_of(answer)["kind"] == "bad_parameter"
        assert next(iter(wrong)) in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "kind"),
    [
        (b"", {}, 422, "bad_image"),
        (b"no image", {}, 422, "bad_image"),
        (picture(1)[:-200], {}, 422, "bad_image"),
        (picture(1, (600, 400)), {}, 422, "bad_image"),  # more pixels than are allowed
        (b"x" * (2**20 + 1), {}, 413, "too_large"),
        (picture(1), {"Content-Type": "text/plain"}, 415, "unsupported_type"),
        (picture(1), {"Content-Encoding": "gzip"}, 415, "unsupported_type"),
        (b"--x\r\n", {"Content-Type": "multipart/form-data"}, 400, "bad_request"),
        (b"nothing like it", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "bad_request"),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 422, "bad_request"),
    ],
)
def test_what_is_refused(service: Running, content: bytes, headers: dict[str, str], status: int, kind: str) -> None:
    answer = service.client.post("/v1/classify", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert error_of(answer)["kind"] == kind
    assert error_of(answer)["hint"]


def test_a_body_without_a_length_is_bounded_too(service: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**16

    answer = service.client.post("/v1/classify", content=parts())
    assert answer.status_code == 413


def test_nothing_is_read_for_a_client(service: Running, model: Path, tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(picture(1))
    for text in (str(tmp_path / "image.jpg"), f"file://{tmp_path}/image.jpg", f"{service.url}/v2"):
        assert service.classify(text.encode()).status_code == 422
    for name in (str(model), "../pets", "PPLCNet_x1_0"):
        assert service.classify(picture(1), model=name).status_code == 404
        answer = service.client.post(f"/v2/repository/models/{name.replace('/', '%2F')}/load")
        assert answer.status_code == 404, name


def test_unknown_names_and_routes(service: Running) -> None:
    answer = service.classify(picture(1), model="petz")
    assert answer.status_code == 404
    assert "did you mean pets?" in error_of(answer)["hint"]
    assert error_of(service.client.get("/v1/nothing"))["kind"] == "unknown_route"
    assert service.client.get("/v1/classify").status_code == 405


def test_embeddings_are_those_of_the_classifier(service: Running, classifier: Classifier) -> None:
    image = picture(3)
    (row,) = service.client.post("/v1/embed", content=image).raise_for_status().json()["embeddings"]
    (expected,) = classifier.embed(image)
    assert expected.vector is not None
    np.testing.assert_allclose(row["embedding"], expected.vector, rtol=1e-3, atol=1e-5)
    assert service.client.post("/v1/embed", content=b"no").status_code == 422


def test_models_and_classes(service: Running) -> None:
    (row,) = service.client.get("/v1/models").json()["models"]
    assert (row["name"], row["arch"], row["num_classes"]) == ("pets", "PPLCNet_x0_25", 3)
    assert row["preset"]["size"] == [64, 64]
    assert (row["engine"], row["precision"]) == ("torch", "fp32")
    answer = service.client.get("/v1/models/pets/classes").json()
    assert answer["classes"] == [{"class_id": f"n{i}", "label": name} for i, name in enumerate(("cat", "dog", "eel"))]
    assert answer["version"] == row["version"]
    assert service.client.get("/v1/models/dogs/classes").status_code == 404


def test_the_view_is_what_the_network_sees(service: Running, classifier: Classifier) -> None:
    answer = service.client.post("/v1/view", content=picture(5)).raise_for_status()
    assert answer.headers["Content-Type"] == "image/png"
    preprocess = classifier.preprocess
    assert isinstance(preprocess, Preprocess)
    with Image.open(io.BytesIO(answer.content)) as view:
        np.testing.assert_array_equal(np.asarray(view), preprocess.pixels(preprocess.array(picture(5))))
    assert service.client.post("/v1/view", content=b"no").status_code == 422


def test_an_explanation_is_the_heat_map_of_the_command(service: Running, model: Path) -> None:
    explainer = Explainer(model)
    image = picture(3, (90, 60))
    (expected,) = explainer.explain([image], ["dog"])
    answer = service.client.post("/v1/explain", content=image, params={"class": "dog"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert np.array_equal(decode(answer.content), np.asarray(draw(expected, 0, EXPLAINED_SIDE)))
    (best,) = explainer.explain([image])
    shown = decode(service.client.post("/v1/explain", content=image).content)
    assert np.array_equal(shown, np.asarray(draw(best, 0, EXPLAINED_SIDE)))


def test_what_cannot_be_explained(service: Running) -> None:
    def ask(content: bytes, **parameters: str) -> tuple[int, str]:
        answer = service.client.post("/v1/explain", content=content, params=parameters)
        return answer.status_code, error_of(answer)["message"]

    assert ask(picture(1), **{"class": "dgo"}) == (422, "unknown class 'dgo'")
    assert ask(picture(1), **{"class": "3"})[0] == 422
    assert ask(b"no picture")[0] == 422
    files = {"a": ("a.jpg", picture(1)), "b": ("b.jpg", picture(2))}
    answer = service.client.post("/v1/explain", files=files)
    assert (answer.status_code, error_of(answer)["message"]) == (400, "2 images were sent")


def test_docs_need_nothing_from_elsewhere(service: Running) -> None:
    page = service.client.get("/docs")
    assert page.status_code == 200
    assert "/v1/classify" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    assert "/v2/models/{name}/infer" in service.client.get("/openapi.json").json()["paths"]


def test_headers_and_request_ids(service: Running) -> None:
    answer = service.client.get("/v2", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["X-Request-Id"] == "abc-1"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    made = [service.client.get("/v2", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] for _ in range(2)]
    assert made[0] != made[1]
    until(lambda: any(line.get("id") == made[1] for line in service.lines))
    line = next(line for line in service.lines if line.get("id") == "abc-1")
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", "/v2", 200, "127.0.0.1")
    assert json.dumps(line)


def test_many_at_once_get_their_own_answers(service: Running, classifier: Classifier) -> None:
    """Different sizes, broken ones among them."""
    images = [b"broken" if seed % 9 == 0 else picture(seed, (30 + 5 * seed, 40 + 3 * seed)) for seed in range(40)]
    with stubbed(service, lambda images: time.sleep(0.02)) as stub, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(service.classify, images))
    assert max(stub.batches) > 1
    for image, answer in zip(images, answers, strict=True):
        if image == b"broken":
            assert answer.status_code == 422
        else:
            check(answer.json()["predictions"][0], image, classifier)


def test_an_engine_that_fails_for_one_image_answers_the_others(service: Running, classifier: Classifier) -> None:
    bad = picture(7)
    poison = classifier.preprocess.array(bad)

    def before(images: NDArray[Any]) -> None:
        time.sleep(0.02)
        if any(np.array_equal(image, poison) for image in images):
            raise RuntimeError("poison")

    images = [bad if place == 5 else picture(place + 20) for place in range(12)]
    with stubbed(service, before), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(service.classify, images))
    assert [place for place, answer in enumerate(answers) if answer.status_code != 200] == [5]
    assert error_of(answers[5])["kind"] == "failed"
    assert "poison" not in answers[5].text  # that is for the log
    assert any("poison" in line.get("trace", "") for line in service.lines)
    check(answers[4].json()["predictions"][0], images[4], classifier)


def test_all_bodies_together_are_bounded(model: Path) -> None:
    """Also while they come: what clients send slowly is held all that time."""
    settings = options(model, max_body=2**20, body_memory=2**20)
    with running(settings) as service:
        memory = service.serving.app.service.memory
        slow = _send(service, b"x" * 700_000, announced=900_000)
        until(lambda: memory.taken == 700_000)
        answer = service.client.post("/v1/classify", content=b"y" * 500_000)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert error_of(answer)["kind"] == "overloaded"
        assert service.classify(picture(1)).status_code == 200
        slow.close()
        until(lambda: memory.taken == 0)
        assert service.client.post("/v1/classify", content=b"y" * 500_000).status_code == 422  # read, and no image


def test_pages_of_others_cannot_ask(service: Running) -> None:
    elsewhere = service.client.post("/v1/classify", content=picture(1), headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 403
    here = service.client.post("/v1/classify", content=picture(1), headers={"Sec-Fetch-Site": "same-origin"})
    assert here.status_code == 200
    for path in ("/v1/models", "/metrics", "/v2/health/ready"):  # a name that resolves to this machine
        assert service.client.get(path, headers={"Host": "evil.example:80"}).status_code == 403


def test_metrics(service: Running) -> None:
    service.classify(picture(1))
    service.classify(b"no")
    text = service.client.get("/metrics").text
    for expected in (
        'torchclas_requests_total{route="/v1/classify",status="200"}',
        'torchclas_errors_total{kind="bad_image"}',
        'torchclas_images_total{model="pets",status="ok"}',
        'torchclas_queue_images{model="pets"} 0.0',
        'torchclas_batch_images_count{model="pets"}',
        'torchclas_engine_seconds_count{model="pets"}',
        'torchclas_request_seconds_count{route="/v1/classify"}',
    ):
        assert expected in text


def test_a_client_that_goes_away_frees_its_place(model: Path) -> None:
    go_on = threading.Event()
    with running(options(model, queue=2)) as service, stubbed(service, lambda images: go_on.wait(20)) as stub:
        places = service.serving.registry.places("pets")
        connections = [_send(service, picture(seed)) for seed in range(2)]
        until(lambda: places.taken == 2 and stub.batches)
        refused = service.classify(picture(3))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        for connection in connections:
            connection.close()
        until(lambda: places.taken == 0)
        go_on.set()
        assert service.classify(picture(3)).status_code == 200
        assert service.client.post("/v1/classify", files=[("f", picture(1))] * 3).status_code == 413


def test_places_are_free_after_everything_that_can_happen(model: Path) -> None:
    with running(options(model, queue=2, deadline=0.5)) as service:
        places = service.serving.registry.places("pets")
        for content, headers in ((b"no", {}), (picture(1), {}), (picture(1), {"Content-Type": "a/b"})):
            service.client.post("/v1/classify", content=content, headers=headers)
        half = _send(service, picture(1), announced=10**5)  # and no more of it
        half.settimeout(20)
        assert b" 408 " in half.recv(100)
        until(lambda: places.taken == 0)
        with stubbed(service, lambda images: time.sleep(1.0)):
            late = service.classify(picture(1))
        assert late.status_code == 504
        assert error_of(late)["kind"] == "deadline"
        until(lambda: places.taken == 0)
        time.sleep(0.6)  # what the engine was at
        assert service.classify(picture(1)).status_code == 200


def _send(service: Running, image: bytes, announced: int | None = None) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced or len(image)}\r\n\r\n"
    connection.sendall(head.encode() + image)
    return connection


def test_a_token(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-very-secret-word\n")
    with running(options(model, token_file=file, host="127.0.0.1")) as service:
        image = picture(1)
        for wrong in ("", "a-very-secret-word", "Bearer", "Bearer a-very-secret-wor", "Basic a-very-secret-word"):
            answer = service.client.post("/v1/classify", content=image, headers={"Authorization": wrong})
            assert answer.status_code == 401, wrong
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/v1/models", "/v2", "/v2/models/pets", "/metrics"):
            assert service.client.get(path).status_code == 401, path
        assert service.client.get("/v2/health/ready").status_code == 200
        right = {"Authorization": "Bearer a-very-secret-word"}
        assert service.client.post("/v1/classify", content=image, headers=right).status_code == 200
        assert service.client.post("/v2/repository/models/pets/load", headers=right).status_code == 200
    for content in ("", "short", "two words here", "中文中文中文中文中"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(Error, match="a token is one word"):
            options(token_file=file).token()
    with pytest.raises(Error, match="cannot be read"):
        options(token_file=tmp_path / "none").token()


def test_other_machines_need_a_token_or_an_explicit_word() -> None:
    with pytest.raises(Error, match="--token-file, or --open"):
        options(host="0.0.0.0").token()
    assert options(host="0.0.0.0", open_to_all=True).token() is None
    assert options(host="localhost").token() is options(host="::1").token() is None
    assert not is_loopback("127.0.0.1.example.com")


def test_pages_of_other_hosts_change_no_models(service: Running) -> None:
    load = "/v2/repository/models/pets/load"
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        assert service.client.post(load, headers=headers).status_code == 403, headers
    own = {"Origin": service.url}
    assert service.client.post(load, headers=own).status_code == 200


def test_a_file_that_changes_replaces_the_model_without_a_lost_request(tmp_path: Path) -> None:
    path = write_model(tmp_path / "pets.safetensors")
    with running(options(path)) as service:
        first = service.client.get("/v1/models").json()["models"][0]["version"]
        seen: list[tuple[int, str]] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=30) as client:
                while not stop.is_set():
                    answer = client.post("/v1/classify", content=picture(1))
                    label = answer.json()["predictions"][0]["classes"][0]["label"] if answer.is_success else answer.text
                    seen.append((answer.status_code, label))

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            until(lambda: len(seen) > 10)
            write_model(tmp_path / "new.safetensors", ("ant", "bee", "fly")).replace(path)
            until(lambda: service.client.get("/v1/models").json()["models"][0]["version"] != first)
            count = len(seen)
            until(lambda: len(seen) > count + 20)
            stop.set()
            for task in asking:
                task.result()
        assert {status for status, _ in seen} == {200}
        assert seen[0][1] in ("cat", "dog", "eel")
        assert seen[-1][1] in ("ant", "bee", "fly")
        path.write_bytes(b"no model")
        until(lambda: service.serving.registry._tried)
        assert service.classify(picture(1)).status_code == 200  # the old one goes on


def test_several_models_and_a_repository(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    write_model(repository / "birds.safetensors", ("owl", "tit"), size=32)
    (repository / "notes.txt").write_text("no model")
    with running(options(f"one={model}", f"two={model}", repository=repository)) as service:
        names = [row["name"] for row in service.client.get("/v1/models").json()["models"]]
        assert names == ["one", "two"]
        assert service.classify(picture(1), model="two").json()["model"] == "two"
        answer = service.classify(picture(1), model="birds")
        assert answer.status_code == 503
        assert error_of(answer)["kind"] == "unavailable"
        assert service.client.post("/v2/repository/models/birds/load").status_code == 200
        (bird,) = service.classify(picture(1), model="birds").json()["predictions"]
        assert {entry["label"] for entry in bird["classes"]} == {"owl", "tit"}
        assert service.client.post("/v2/repository/models/one/unload").status_code == 200
        assert service.classify(picture(1), model="one").status_code == 503
        assert service.classify(picture(1)).status_code == 503  # no other model takes its place
        (repository / "bad.safetensors").write_bytes(b"no model")
        bad = service.client.post("/v2/repository/models/bad/load")
        assert bad.status_code == 400
        assert str(repository) not in bad.text
        index = {row["name"]: row["state"] for row in service.client.post("/v2/repository/index").json()}
        assert index == {"bad": "UNAVAILABLE", "birds": "READY", "one": "UNAVAILABLE", "two": "READY"}
        ready = service.client.post("/v2/repository/index", json={"ready": True}).json()
        assert {row["name"] for row in ready} == {"birds", "two"}


def test_what_is_asked_of_a_service_at_its_start(model: Path, tmp_path: Path) -> None:
    from torchclas.serving.sources import sources

    with pytest.raises(Error, match="two models are called pets"):
        sources(options(model, model))
    with pytest.raises(Error, match="unknown model"):
        sources(options("PPLCNet_x9"))
    with pytest.raises(Error, match="no such folder"):
        sources(options(repository=tmp_path / "none"))
    assert [source.name for source in sources(options())] == ["EfficientNet_lite0"]
    assert split_name("a=b/c.onnx") == ("a", "b/c.onnx")
    assert split_name("../x=y") == (None, "../x=y")


def test_times_and_sizes() -> None:
    assert [seconds(text) for text in ("5ms", "10s", "2m", "0", "0.5")] == [0.005, 10, 120, 0, 0.5]
    assert [size_in_bytes(text) for text in ("32MiB", "10MB", "7", "1.5 kib")] == [2**25, 10**7, 7, 1536]
    for wrong in ("", "-1s", "1e3", "5 parsecs", "inf"):
        with pytest.raises(ValueError, match="is not a"):
            seconds(wrong)
        with pytest.raises(ValueError, match="is not a"):
            size_in_bytes(wrong)


def test_answers_do_not_wait_to_be_acknowledged() -> None:
    """Head and body of an answer are two packets; Nagle's algorithm holds the second back for 40 ms."""
    with server.bind(ServeOptions(port=0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # what asyncio looks at
