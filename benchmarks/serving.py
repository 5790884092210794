"""How many photographs does a service answer, and how long does each wait? Beside LitServe, with the same client.

    make peers                             # once: LitServe, in benchmarks/.peers
    python benchmarks/serving.py           # three networks, three rounds
    python benchmarks/serving.py --networks PPLCNet_x1_0 --rounds 1 --seconds 4

Photographs of 500 × 375 pixels as JPEG, batches of at most 16 that wait 5 ms, two threads. `torchclas serve` with its
defaults stands beside LitServe around timm's network, eager and compiled, and around the very engine that torchclas
serves. Only one service runs at a time, the others are stopped; a round asks every one, in an order drawn anew:

- one: one client asks again when it has its answer; the median of its waits.
- saturation: 32 clients that do the same; answers a second. `Classifier.predict` over the same files is the measure.
- half: requests come at random times, half as many a second as that; median and 99th percentile of waits.
- overload (torchclas alone): four times as many as at saturation; how long accepted ones wait, and refused ones.

Clients and service share the machine's cores. Weights are made up but for EfficientNet_lite0's.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from markdown import table
from photographs import write_photographs
from published import write_published

from torchclas.engines.machine import load_average, this_machine

HERE = Path(__file__).resolve().parent

NETWORKS = ("PPLCNet_x1_0", "EfficientNet_lite0", "ResNet50_vd")
CLIENTS, PICTURES = 32, 256
DEADLINE = 10.0  # of `torchclas serve`
FOLDER = """
import sys, time
from pathlib import Path
from torchclas import Classifier
classifier = Classifier(sys.argv[1], threads=2)
files = sorted(Path(sys.argv[2]).iterdir())
list(classifier.predict(files[:32]))
start, count = time.perf_counter(), 0
while time.perf_counter() - start < float(sys.argv[3]):
    count += len(list(classifier.predict(files)))
print(count / (time.perf_counter() - start))
"""


@dataclass
class Service:
    """One server, in a group of processes of its own."""

    name: str
    words: Callable[[int], list[str]]  # port → the command line
    path: str
    content_type: str
    body: Callable[[bytes], bytes]
    ready: str
    port: int = 0
    requests: list[bytes] = field(default_factory=list[bytes])
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, pictures: Sequence[bytes], log: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.requests = [self._request(picture) for picture in pictures]
        with log.open("wb") as printed:
            self.process = subprocess.Popen(
                self.words(self.port), stdout=printed, stderr=printed, env=environment, start_new_session=True
            )
        end = time.monotonic() + 600
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{self.name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        asyncio.run(closed_loop(self, 4, 2.0))
        self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)

    def _request(self, picture: bytes) -> bytes:
        body = self.body(picture)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{self.ready}", timeout=5) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False


def services(network: str) -> list[Service]:
    def litserve(kind: str) -> Callable[[int], list[str]]:
        script = str(HERE / "contenders" / "litserve_server.py")
        return lambda port: [sys.executable, script, network, kind, str(port)]

    def in_json(picture: bytes) -> bytes:
        return json.dumps({"image": base64.b64encode(picture).decode()}).encode()

    command = str(Path(sys.executable).with_name("torchclas"))
    ours = Service(
        "torchclas serve",
        lambda port: [command, "serve", network, "--port", str(port), "--threads", "2"],
        "/v1/classify",
        "image/jpeg",
        lambda picture: picture,
        "/v2/health/ready",
    )
    kinds = {"LitServe, timm": "eager", "LitServe, timm compiled": "compile", "LitServe, our engine": "torchclas"}
    theirs = (
        Service(name, litserve(kind), "/predict", "application/json", in_json, "/health")
        for name, kind in kinds.items()
    )
    return [ours, *theirs]


@dataclass
class Connection:
    """A client that speaks as much HTTP as is needed, so that little of the machine goes to it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> int:
        """Send a request and read the answer to its end; its status."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1])


async def closed_loop(service: Service, clients: int, seconds: float) -> list[float]:
    """The waits, in seconds, of clients that ask again when they have their answer."""
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def client(first: int) -> None:
        connection = await Connection.to(service.port)
        number = first
        while (start := time.perf_counter()) < end:
            status = await connection.ask(service.requests[number % len(service.requests)])
            if status != 200:
                sys.exit(f"{service.name} answered {status}")
            if (now := time.perf_counter()) <= end:
                waits.append(now - start)
            number += clients
        connection.writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return waits


async def open_loop(service: Service, rate: float, seconds: float) -> dict[int, list[float]]:
    """Status → the waits, in seconds, of requests that come at random times, `rate` a second."""
    waits: dict[int, list[float]] = {}
    idle: list[Connection] = []
    chance = random.Random(0)

    async def one(number: int, due: float) -> None:
        connection = idle.pop() if idle else await Connection.to(service.port)
        status = await connection.ask(service.requests[number % len(service.requests)])
        waits.setdefault(status, []).append(time.perf_counter() - due)
        idle.append(connection)

    start = due = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(len(tasks), due)))
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.writer.close()
    return waits


@dataclass
class Round:
    """What one service did in one round: seconds, and answers a second."""

    one: float
    saturation: float
    half_median: float
    half_99: float


def measure(service: Service, seconds: float) -> Round:
    service.signal(signal.SIGCONT)
    asyncio.run(closed_loop(service, 4, 1.0))  # awake again
    one = statistics.median(asyncio.run(closed_loop(service, 1, seconds / 4)))
    saturation = len(asyncio.run(closed_loop(service, CLIENTS, seconds))) / seconds
    half = asyncio.run(open_loop(service, saturation / 2, seconds))
    service.signal(signal.SIGSTOP)
    if set(half) != {200}:
        sys.exit(f"{service.name} answered {sorted(half)} at half of its load")
    return Round(one, saturation, statistics.median(half[200]), percentile_99(half[200]))


def percentile_99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def overload(service: Service, rate: float, seconds: float) -> dict[str, float]:
    service.signal(signal.SIGCONT)
    waits = asyncio.run(open_loop(service, 4 * rate, seconds))
    service.signal(signal.SIGSTOP)
    accepted, refused = waits.pop(200, []), [*waits.pop(429, []), *waits.pop(503, [])]
    return {
        "asked a second": 4 * rate,
        "accepted": len(accepted),
        "refused": len(refused),
        "other answers": sum(map(len, waits.values())),
        "accepted a second": len(accepted) / seconds,
        "accepted p99 s": percentile_99(accepted) if accepted else float("nan"),
        "refused p99 s": percentile_99(refused) if refused else float("nan"),
    }


def folder_rate(network: str, folder: Path, seconds: float, environment: dict[str, str]) -> float:
    words = [sys.executable, "-c", FOLDER, network, str(folder), str(seconds)]
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE)
    return float(done.stdout)


def report(network: str, rounds: dict[str, list[Round]], folder: list[float], over: dict[str, float]) -> str:
    ours = next(iter(rounds.values()))

    def spread(values: Sequence[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}–{max(values):.{digits}f}]"

    rows: list[list[str]] = []
    for name, each in rounds.items():
        ratios = [mine.saturation / other.saturation for mine, other in zip(ours, each, strict=True)]
        rows.append(
            [
                name,
                spread([one.saturation for one in each], 0),
                spread(ratios, 2),
                spread([one.one * 1e3 for one in each], 1),
                spread([one.half_median * 1e3 for one in each], 1),
                spread([one.half_99 * 1e3 for one in each], 1),
                spread([one.half_99 / one.one for one in each], 1),
            ]
        )
    ratios = [mine.saturation / alone for mine, alone in zip(ours, folder, strict=True)]
    rows.append(["Classifier.predict, a folder", spread(folder, 0), spread(ratios, 2), "", "", "", ""])
    header = ["", "images/s", "ours ×", "one, ms", "half: median, ms", "half: p99, ms", "p99 / one"]
    overloaded = ", ".join(f"{name} {value:.3g}" for name, value in over.items())
    return f"{table(network, header, rows)}\n\nAt four times the rate: {overloaded}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "serving")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # or the services would stay, stopped
    folder = write_photographs(options.work / "photographs", PICTURES)
    pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
    cache = options.work / "cache"
    litserve = HERE / ".peers" / "litserve"
    environment = {
        **os.environ,
        "TORCHCLAS_CACHE": str(cache),
        "TORCHCLAS_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
        "GOMP_SPINCOUNT": "0",  # the client needs the cores, too
        "PYTHONPATH": os.pathsep.join([str(litserve), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    ours_alone = {**environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    found: dict[str, object] = {"machine": str(this_machine()), "load": load_average()}
    for network in options.networks:
        if network != "EfficientNet_lite0":
            write_published(network, cache)
        alone = folder_rate(network, folder, 1.0, ours_alone)  # makes what the next ones find
        print(f"{network}: {alone:.0f} images/s over a folder, first", file=sys.stderr)
        all_services = services(network)
        try:
            for service in all_services:
                own = ours_alone if service is all_services[0] else environment
                service.start(pictures, options.work / f"{network}-{service.name.replace(' ', '-')}.log", own)
            rounds: dict[str, list[Round]] = {service.name: [] for service in all_services}
            alone_rates: list[float] = []
            for number in range(options.rounds):
                order = random.Random(number).sample(all_services, len(all_services))
                for service in order:
                    rounds[service.name].append(measure(service, options.seconds))
                    print(f"{network}, {service.name}: {rounds[service.name][-1]}", file=sys.stderr)
                alone_rates.append(folder_rate(network, folder, options.seconds, ours_alone))
            ours = all_services[0]
            over = overload(ours, statistics.median(one.saturation for one in rounds[ours.name]), 2 * options.seconds)
        finally:
            for service in all_services:
                service.stop()
        found[network] = {
            "rounds": {name: [asdict(one) for one in each] for name, each in rounds.items()},
            "folder": alone_rates,
            "overload": over,
        }
        (options.work / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
        print(report(network, rounds, alone_rates, over), flush=True)
        print()


if __name__ == "__main__":
    main()
