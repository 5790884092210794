"""What this machine is, as far as it decides how fast a network runs. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

# Of the instruction sets a processor may list, those that decide which kernels an engine picks.
FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
PACKAGES = ("torchclas", "numpy", "torch", "onnx", "onnxruntime", "openvino", "nncf")

_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """The processor, what surrounds it, and the versions of what runs on it.

    `cores` are physical, `threads` those that this process may use at once, of `cpu_limit` cores' worth of time where a
    container has such a limit. `memory` is in bytes, `virtual` tells a guest of a hypervisor. `governor` is Linux's
    frequency governor, `boost` whether clocks may rise above the nominal one, `power` is "mains" or "battery"; None
    where the system does not say.
    """

    cpu: str
    architecture: str
    flags: tuple[str, ...]
    cores: int
    threads: int
    cpu_limit: float | None
    memory: int | None
    system: str
    virtual: bool
    python: str
    versions: dict[str, str]
    governor: str | None
    boost: bool | None
    power: str | None

    @property
    def id(self) -> str:
        """Names the hardware in a few letters: what was measured on another `id` says nothing about this one."""
        hardware = self.cpu, self.architecture, *self.flags, self.cores, self.threads, self.cpu_limit
        return hashlib.sha256(repr(hardware).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        memory = [] if self.memory is None else [f"{self.memory / 2**30:.0f} GiB"]
        return ", ".join((self.cpu, cores, threads, *memory, self.system))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {"id": self.id, **asdict(self), "flags": list(self.flags)}


@cache
def this_machine() -> Machine:
    """The machine this process runs on, asked once."""
    listed = _listed_flags()
    return Machine(
        cpu=_cpu_name(),
        architecture=platform.machine(),
        flags=tuple(flag for flag in FLAGS if flag in listed),
        cores=_physical_cores(),
        threads=usable_threads(),
        cpu_limit=_cpu_limit(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()}",
        virtual="hypervisor" in listed,
        python=platform.python_version(),
        versions=dict(_versions()),
        governor=_read(_CPU / "cpu0/cpufreq/scaling_governor"),
        boost=_boost(),
        power=_power(),
    )


def usable_threads() -> int:
    """How many threads of this process can run at once."""
    if sys.platform == "linux":  # taskset and containers may leave it fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """How many threads wanted to run, over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy_seconds() -> float | None:
    """Processor time that all processes and other guests of the host took since boot; None outside Linux.

    Of two readings, the difference beyond a process's own time is what the others took meanwhile.
    """
    line = _read(Path("/proc/stat"))
    if line is None:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor()
    cpu = _cpuinfo()
    if name := cpu.get("model name"):
        return name
    return platform.processor() or platform.machine() or "unknown"  # ARM's cpuinfo has part numbers at best


def _listed_flags() -> set[str]:
    if sys.platform == "darwin":
        features = (_sysctl("machdep.cpu.features"), _sysctl("machdep.cpu.leaf7_features"))
        flags = {flag.lower().replace(".", "_") for text in features if text for flag in text.split()}
        return flags | {"asimd"} if platform.machine() == "arm64" else flags
    cpu = _cpuinfo()
    return set((cpu.get("flags") or cpu.get("Features") or "").split())


@cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    text = _read(Path("/proc/cpuinfo"), whole=True) or ""
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _physical_cores() -> int:
    if sys.platform == "darwin":
        return int(_sysctl("hw.physicalcpu") or 0) or os.cpu_count() or 1
    # Threads of one core name each other as siblings.
    siblings = {_read(path) for path in _CPU.glob("cpu[0-9]*/topology/thread_siblings_list")} - {None}
    return len(siblings) or os.cpu_count() or 1


def _cpu_limit() -> float | None:
    """A container's share of the processor, in cores (control groups, version 2)."""
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _memory() -> int | None:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _boost() -> bool | None:
    if (no_turbo := _read(_CPU / "intel_pstate/no_turbo")) is not None:
        return no_turbo == "0"
    boost = _read(_CPU / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _power() -> str | None:
    online = [_read(path) for path in Path("/sys/class/power_supply").glob("*/online")]
    return None if not online else "mains" if "1" in online else "battery"


def _read(path: Path, *, whole: bool = False) -> str | None:
    """The first line of a small file, or all of it; None where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return text if whole else text.partition("\n")[0]


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
