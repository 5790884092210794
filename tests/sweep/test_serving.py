"""`torchclas serve` under load and under requests that nobody would think of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.servers import Running, picture, running, until, write_model
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.serving.options import ServeOptions

pytestmark = pytest.mark.sweep

REQUESTS = int(os.environ.get("SOAK", "5000"))
CONNECTIONS = 64


def test_every_answer_is_the_prediction() -> None:
    """Pictures of many sizes from many connections, some broken; whatever a picture is batched with."""
    chance = random.Random(0)
    sizes = [(chance.choice((20, 80, 300, 900)), chance.choice((20, 80, 300))) for _ in range(100)]
    pictures = [picture(seed, size) for seed, size in enumerate(sizes)]
    broken = [data[: chance.randrange(2, len(data) // 2)] for data in pictures]
    options = ServeOptions(models=("EfficientNet_lite0",), engine="openvino", port=0, deadline=120.0, queue=1024)
    wants = [*Classifier("EfficientNet_lite0", engine="openvino").predict(pictures)]
    broken = [data for data, row in zip(broken, Classifier(engine="openvino").predict(broken)) if row.error]  # noqa: B905
    assert len(broken) > 50
    with running(options) as service:
        asyncio.run(_ask(service, pictures, broken, wants))
        places = service.serving.registry.places("EfficientNet_lite0")
        until(lambda: places.taken == 0)


async def _ask(service: Running, pictures: list[bytes], broken: list[bytes], wants: list[Prediction]) -> None:
    chance, numbers = random.Random(1), iter(range(REQUESTS))
    wrong: list[str] = []
    answered = 0

    async def one_connection(client: httpx.AsyncClient) -> None:
        nonlocal answered
        for _ in numbers:
            if chance.random() < 0.02:
                answer = await client.post("/v1/classify", content=chance.choice(broken))
                if answer.status_code != 422:
                    wrong.append(f"{answer.status_code} for a broken picture")
                continue
            seed = chance.randrange(len(pictures))
            answer = await client.post("/v1/classify", content=pictures[seed])
            if answer.status_code != 200:
                wrong.append(answer.text)
                continue
            (row,), want = answer.json()["predictions"], wants[seed]
            scores = [found["score"] for found in row["classes"]]
            if [found["class_id"] for found in row["classes"]] != list(want.class_ids):
                wrong.append(f"{seed}: {row} is not {want}")
            elif scores != pytest.approx(want.scores, abs=1e-4):
                wrong.append(f"{seed}: {scores} are not {want.scores}")
            answered += 1

    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=300) as client:
        await asyncio.gather(*(one_connection(client) for _ in range(CONNECTIONS)))
    assert not wrong, (len(wrong), wrong[:3])
    assert answered > 0.95 * REQUESTS


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
