"""The command that answers over HTTP: `serve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from torchclas.cli.app import Engine, Labels, MaxPixels, OnePrecision, Threads, app
from torchclas.completion import MODELS
from torchclas.errors import MissingDependencyError
from torchclas.serving import options as serving


def _read_by(read: Callable[[str], Any], show: Callable[[Any], str]) -> Parameter:
    def convert(kind: Any, tokens: Sequence[Any]) -> Any:
        return read(tokens[0].value)

    return Parameter(converter=convert, show_default=show)


Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
Seconds = _read_by(serving.seconds, serving.show_seconds)
Bytes = _read_by(serving.size_in_bytes, serving.show_bytes)


@app.command
def serve(
    *models: Annotated[
        str, MODELS, Parameter(help="Names, checkpoints, folders of runs, exported models; NAME=FILE calls one NAME.")
    ],
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[Port, Parameter(help="Port; 0: one that is free.")] = 8000,
    repository: Annotated[
        Path | None, Parameter(help="Folder of models that clients may load and unload by their names.")
    ] = None,
    labels: Labels = None,
    engine: Engine = "auto",
    precision: OnePrecision = "fp32",
    threads: Threads = None,
    workers: Annotated[PositiveInt, Parameter(help="Processes that share the port.")] = 1,
    batch_size: Annotated[PositiveInt, Parameter(help="Images the network takes at once.")] = 16,
    batch_wait: Annotated[float, Seconds, Parameter(help="How long an image waits for others at most.")] = 0.005,
    queue: Annotated[PositiveInt, Parameter(help="Images of a model on their way at once, per process.")] = 256,
    deadline: Annotated[float, Seconds, Parameter(help="How long an answer may take.")] = 10.0,
    max_body: Annotated[int, Bytes, Parameter(help="Larger requests are refused.")] = 32 * 2**20,
    body_memory: Annotated[
        int, Bytes, Parameter(help="What the requests that run may hold in memory together, per process.")
    ] = 512 * 2**20,
    max_pixels: MaxPixels = serving.MAX_PIXELS,
    token_file: Annotated[
        Path | None, Parameter(help="File with the word that clients send: `Authorization: Bearer WORD`.")
    ] = None,
    open_to_all: Annotated[
        bool, Parameter(name="--open", negative="", help="Answer other machines without a token.")
    ] = False,
) -> int:
    """Classify images over HTTP: routes at /v1, described at /docs, and the Open Inference Protocol at /v2.

    SIGTERM and Ctrl-C end it when all requests are answered.
    """
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingDependencyError(package.replace("_", "-"), "'torchclas[serve]'")

    from torchclas.serving.processes import serve as run

    return run(
        serving.ServeOptions(
            models=models,
            host=host,
            port=port,
            engine=engine,
            precision=precision,
            threads=threads,
            labels=labels,
            batch_size=batch_size,
            batch_wait=batch_wait,
            queue=queue,
            deadline=deadline,
            max_body=max_body,
            body_memory=body_memory,
            max_pixels=max_pixels,
            token_file=token_file,
            open_to_all=open_to_all,
            repository=repository,
            workers=workers,
        )
    )
