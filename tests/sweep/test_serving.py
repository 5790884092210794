"""`torchclas serve` under load and under requests that nobody would think of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.servers import Process, Running, picture, running, until, write_model
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.serving.options import ServeOptions

pytestmark = pytest.mark.sweep

REQUESTS = int(os.environ.get("SOAK", "5000"))
SWAPS = max(20, REQUESTS // 1000)
CONNECTIONS = 64


def test_every_answer_is_the_prediction() -> None:
    """Pictures of many sizes from many connections, whatever they are batched with.

    Two of a hundred are broken, two come slowly, two from clients that go away before their answer.
    """
    chance = random.Random(0)
    sides = (20, 80, 300, 900)
    sizes = [(chance.choice(sides), chance.choice(sides[:3])) for _ in range(max(100, REQUESTS // 100))]
    pictures = [picture(seed, size) for seed, size in enumerate(sizes)]
    classifier = Classifier("EfficientNet_lite0", engine="openvino")
    wants = [*classifier.predict(pictures)]
    cut = [data[: chance.randrange(2, len(data) // 2)] for data in pictures[:100]]
    broken = [data for data, row in zip(cut, classifier.predict(cut), strict=True) if row.error]
    assert len(broken) > 50
    with Process("EfficientNet_lite0", "--engine", "openvino", "--deadline", "120s", "--queue", "1024") as service:
        memory = asyncio.run(_ask(service, pictures, broken, wants))
        queue = 'torchclas_queue_images{model="EfficientNet_lite0"} 0.0'
        until(lambda: queue in httpx.get(f"{service.url()}/metrics").text)
        early, late = (statistics.median(some) for some in (memory[: len(memory) // 4], memory[-len(memory) // 4 :]))
        print(f"{REQUESTS:,} requests, {len(pictures):,} pictures; memory {early:.0f} MiB at first, {late:.0f} at last")
        assert late < 1.1 * early + 50
        assert not [line for line in service.lines if line.get("status") == 500]


async def _ask(service: Process, pictures: list[bytes], broken: list[bytes], wants: list[Prediction]) -> list[float]:
    """Ask from all connections; MiB that the service held now and then."""
    chance, numbers = random.Random(1), iter(range(REQUESTS))
    wrong: list[str] = []
    memory: list[float] = []
    answered = 0
    url = service.url()
    host, port = url.removeprefix("http://").split(":")

    async def going_away(image: bytes) -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(_head(image) + image[: chance.choice((10, len(image)))])
        await asyncio.sleep(chance.random() * 0.05)
        writer.close()

    async def one_connection() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in numbers:
            if number % max(1, REQUESTS // 40) == 0:
                memory.append(_resident_mib(service.process.pid))
            kind, seed = chance.random(), chance.randrange(len(pictures))
            if kind < 0.02:
                await going_away(pictures[seed])
                continue
            image = chance.choice(broken) if kind < 0.04 else pictures[seed]
            writer.write(_head(image))
            if kind > 0.98:
                await asyncio.sleep(0.05)
                writer.write(image[:200])
                await asyncio.sleep(0.05)
                writer.write(image[200:])
            else:
                writer.write(image)
            status, found = await _answer(reader)
            if kind < 0.04:
                if status != 422:
                    wrong.append(f"{status} for a broken picture")
            elif status != 200:
                wrong.append(str(found))
            else:
                (row,), want = found["predictions"], wants[seed]
                apart = [abs(each["score"] - score) for each, score in zip(row["classes"], want.scores, strict=True)]
                if row["classes"][0]["class_id"] != want.class_ids[0] or max(apart) > 1e-4:
                    wrong.append(f"{seed}: {row} is not {want}")
                answered += 1
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(CONNECTIONS)))
    assert not wrong, (len(wrong), wrong[:3])
    assert answered > 0.92 * REQUESTS
    return memory


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """One answer: its status and what its JSON holds. httpx would take more of the processor than the service does."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.split(": ")[1]) for line in lines if line.startswith("content-length: "))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


def _head(image: bytes) -> bytes:
    lines = ("POST /v1/classify HTTP/1.1", "Host: localhost", f"Content-Length: {len(image)}")
    return "\r\n".join([*lines, "", ""]).encode()


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_model_is_swapped_under_load(tmp_path: Path) -> None:
    """Two models take turns under one name: every answer is one's or the other's, and none is missing."""
    path = tmp_path / "pets.safetensors"
    both = [write_model(tmp_path / f"{seed}.safetensors", seed=seed).read_bytes() for seed in (1, 2)]
    image = picture(1)
    path.write_bytes(both[0])
    wants: list[tuple[float, ...]] = []
    for content in both:
        path.write_bytes(content)
        wants += [row.scores for row in Classifier(path, engine="torch").predict(image)]
    answers: list[tuple[float, ...]] = []
    wrong: list[str] = []
    with running(ServeOptions(models=(str(path),), engine="torch", port=0, deadline=60.0)) as service:
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=60) as client:
                while not stop.is_set():
                    answer = client.post("/v1/classify", content=image)
                    if answer.status_code == 200:
                        classes = answer.json()["predictions"][0]["classes"]
                        answers.append(tuple(found["score"] for found in classes))
                    else:
                        wrong.append(answer.text)

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            for swap in range(SWAPS):
                new = tmp_path / "new.safetensors"
                new.write_bytes(both[swap % 2])
                new.replace(path)
                assert service.client.post("/v2/repository/models/pets/load").status_code == 200
                count = len(answers)
                until(lambda count=count: len(answers) > count + 2)
            stop.set()
            for task in asking:
                task.result()
    assert not wrong, wrong[:3]
    told = [[answer == pytest.approx(want, abs=1e-4) for want in wants] for answer in answers]
    assert all(any(each) for each in told)
    assert all(sum(each[kind] for each in told) > SWAPS / 2 for kind in (0, 1))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = write_model(tmp_path_factory.mktemp("models") / "one.safetensors")
    with running(ServeOptions(models=(str(path),), engine="torch", port=0, deadline=60.0)) as service:
        yield service


def test_no_request_makes_it_fail(service: Running) -> None:
    """Schemathesis makes requests up, from the schema and against it: none ends in a 500."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations: list[Any] = [result.ok() for result in cast("Any", schema.get_all_operations())]
    assert len(operations) > 10
    for operation in operations:
        if operation.path.endswith("/unload"):
            continue  # the others would find nothing
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=40, deadline=None, suppress_health_check=cast("Any", [*HealthCheck]), database=None)
            def check(case: Any) -> None:
                case.path_parameters = {**case.path_parameters, **_known(case)}
                case.call_and_validate(checks=[not_a_server_error])

            with contextlib.suppress(Unsatisfiable):  # nothing is wrong for a route that takes nothing
                check()
    statuses = {line["status"] for line in service.lines if "status" in line}
    assert 500 not in statuses
    assert {200, 404, 422} <= statuses


def _known(case: Any) -> dict[str, str]:
    """A name that exists, for half of the requests: all that are made up are told to be unknown at once."""
    return {} if "name" not in case.path_parameters or len(repr(case.body)) % 2 else {"name": "one"}
