"""`predict --cluster` on a real Ray cluster of several nodes, whose workers, nodes and driver are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import torchclas
from tests.many_images import write_images
from torchclas.distributed import predict

ray: Any = pytest.importorskip("ray")
psutil: Any = pytest.importorskip("psutil")

IMAGES = 1200
OPTIONS = ["--engine", "openvino", "--threads", "1", "--workers", "1"]

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return torchclas.save_checkpoint(torchclas.create_model("PPLCNet_x0_25", num_classes=4), path)


@pytest.fixture(scope="module")
def local(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one machine makes of the images."""
    path = tmp_path_factory.mktemp("local") / "rows.csv"
    done = subprocess.run(command(images, path, model), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return path.read_bytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def command(images: Path, output: object, model: Path, *options: object) -> list[str]:
    code = "from torchclas import cli; from torchclas.distributed import workers; workers.UNIT = 64; cli.main()"
    words = ["predict", images, "-o", output, "-m", model, *OPTIONS, *options]
    return [sys.executable, "-c", code, *map(str, words)]


def workers_of(cluster: Any) -> list[Any]:
    """The processes that hold models, on all nodes."""
    raylets = [process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]]
    found = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    return [process for process in found if "ray::Worker" in " ".join(process.cmdline())]


def kill_a_worker(driver: subprocess.Popen[str], cluster: Any) -> None:
    workers_of(cluster)[0].kill()


def kill_all_workers(driver: subprocess.Popen[str], cluster: Any) -> None:
    for process in workers_of(cluster):
        process.kill()


def kill_a_node(driver: subprocess.Popen[str], cluster: Any) -> None:
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)


def kill_the_driver(driver: subprocess.Popen[str], cluster: Any) -> None:
    driver.kill()


def interrupt(driver: subprocess.Popen[str], cluster: Any) -> None:
    driver.send_signal(signal.SIGINT)


@pytest.mark.parametrize("killer", [None, kill_a_worker, kill_all_workers, kill_a_node, kill_the_driver, interrupt])
def test_the_rows_are_those_of_one_machine(
    cluster: Any,
    images: Path,
    model: Path,
    local: bytes,
    tmp_path: Path,
    killer: Callable[[subprocess.Popen[str], Any], None] | None,
) -> None:
    output = tmp_path / "rows.csv"
    again = command(images, output, model, "--cluster", cluster.address)
    driver = subprocess.Popen(again, stderr=subprocess.PIPE, text=True)
    if killer is not None:
        while not list(tmp_path.glob(".rows.csv.parts/rows-*")):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.05)
        killer(driver, cluster)
    _, remarks = driver.communicate(timeout=300)
    if killer in (kill_the_driver, interrupt):
        assert driver.returncode == (-9 if killer is kill_the_driver else 130), remarks
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert "images were done before" in done.stderr
        assert done.returncode == 1, done.stderr
    else:
        assert driver.returncode == 1, remarks
    assert output.read_bytes() == local
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    if killer is kill_a_node:
        cluster.add_node(num_cpus=1)


def test_a_folder_and_another_model(cluster: Any, images: Path, model: Path, local: bytes, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    fill = command(images, f"{tmp_path}/rows/", model, "--cluster", cluster.address)
    done = subprocess.run(fill, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    sources = [line.split(",")[0] for line in local.decode().splitlines()[1:]]
    assert parquet.read_table(tmp_path / "rows").column("source").to_pylist() == sources
    other = [*fill, "--top-k", "2"]
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "top_k: 4, now 2" in done.stderr


def test_a_data_set_of_ray_data(cluster: Any, images: Path, model: Path, local: bytes) -> None:
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        names = [str(path) for path in sorted(images.iterdir())][:100]
        rows = predict(ray.data.from_items([{"path": name} for name in names]), model, engine="openvino").take_all()
    finally:
        ray.shutdown()
    found = {row["path"]: row for row in rows}
    assert sorted(found) == names
    lines = [line.split(",") for line in local.decode().splitlines()[1:101]]
    assert [found[line[0]]["status"] for line in lines] == [line[1] for line in lines]
    assert [found[line[0]]["class_ids"][:1] for line in lines] == [[line[3]] if line[3] else [] for line in lines]
