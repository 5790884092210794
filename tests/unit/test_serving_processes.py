"""`torchclas serve` as processes: signals, exit codes, one that dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import torchclas
from tests.servers import Process, picture, until, write_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An exported one, for which no process has to import torch."""
    folder = tmp_path_factory.mktemp("models")
    weights = write_model(folder / "weights.safetensors")
    return str(torchclas.export(weights, to="onnx", output=folder / "pets.onnx").path)


QUICK = ("--engine", "onnxruntime", "--threads", "1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_all_is_answered(model: str, number: signal.Signals) -> None:
    with Process(model, *QUICK) as service:
        url = service.url()
        host, port = url.removeprefix("http://").split(":")
        image = picture(1)
        with socket.create_connection((host, int(port))) as slow, httpx.Client(base_url=url) as client:
            head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
            slow.sendall(head.encode())
            until(lambda: 'torchclas_queue_images{model="pets"} 1.0' in client.get("/metrics").text)
            service.process.send_signal(number)
            until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 503)
            assert httpx.get(f"{url}/v2/health/live").status_code == 200
            late = client.post("/v1/classify", content=image)
            assert (late.status_code, late.headers["Connection"]) == (200, "close")
            slow.sendall(image)
            slow.settimeout(20)
            answer = b"".join(iter(lambda: slow.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"status":"ok"' in answer
        assert service.process.wait(20) == 0
    assert service.other == []


def test_several_processes_share_the_port_and_one_that_dies_comes_back(model: str) -> None:
    with Process(model, *QUICK, "--workers", "2") as service:
        url = service.url()
        started = set(_workers(service))
        assert len(started) == 2
        image = picture(1)
        assert httpx.post(f"{url}/v1/classify", content=image).status_code == 200
        # What one process is told, the other follows.
        assert httpx.post(f"{url}/v2/repository/models/pets/unload").status_code == 200
        until(lambda: all(httpx.get(f"{url}/v1/models").json()["models"] == [] for _ in range(20)))
        assert httpx.post(f"{url}/v2/repository/models/pets/load").status_code == 200
        until(lambda: all(httpx.get(f"{url}/v1/models").json()["models"] for _ in range(20)))
        victim = min(started)
        os.kill(victim, signal.SIGKILL)
        until(lambda: service.events("died"))
        assert service.events("died")[0]["pid"] == victim
        assert httpx.post(f"{url}/v1/classify", content=image).status_code == 200  # the other one goes on
        until(lambda: len(set(_workers(service)) - started) == 1, 60)
        until(lambda: len(service.events("started")) == 3, 60)
        counted = 'torchclas_requests_total{route="/v1/classify",status="200"} 2.0'  # of all, the dead one too
        until(lambda: counted in httpx.get(f"{url}/metrics").text)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(40) == 0
        for worker in _workers(service):
            assert not Path(f"/proc/{worker}/cmdline").exists()


def test_workers_end_with_their_parent(model: str) -> None:
    with Process(model, *QUICK, "--workers", "2") as service:
        service.url()
        workers = _workers(service)
        service.process.kill()
        service.process.wait()
        until(lambda: not any(_runs(worker) for worker in workers))


def _workers(service: Process) -> list[int]:
    return [event["pid"] for event in service.events("started")]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["PPLCNet_x9"], "unknown model"),
        (["--host", "0.0.0.0"], "--token-file"),
        (["--batch-wait", "soon"], "is not a time"),
        (["--max-body", "big"], "is not a size"),
        (["--port", "70000"], "--port"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(model: str, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "torchclas", "serve", *([] if "PPLC" in arguments[0] else [model]), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken(model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "torchclas", "serve", model, "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "choose another --host or --port" in done.stderr) == (2, True), done.stderr


def test_a_model_that_cannot_be_opened_ends_all_workers(tmp_path: Path) -> None:
    path = write_model(tmp_path / "pets.safetensors")
    content = bytearray(path.read_bytes())
    del content[-1000:]
    path.write_bytes(content)
    with Process(str(path), "--engine", "torch", "--workers", "2") as service:
        assert service.process.wait(60) == 2
        threading.Event().wait(0.2)  # its last lines
        assert service.events("listening") == []


def test_help_imports_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys; from torchclas.cli import run; run(['serve', '--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'fastapi', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
