"""What a service is started with, checked before anything is loaded."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchclas.errors import Error
from torchclas.vocabulary import EngineChoice, Precision

MAX_PIXELS = 50_000_000  # of an image from a stranger: decoding takes up to 16 bytes of memory for each

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class ServeOptions:
    """How to serve `models`: names, files and folders as commands take them, `NAME=…` to call one otherwise.

    Times are in seconds, sizes in bytes. `batch_wait` is how long an image waits for others, `queue` how many images of
    a model may be on their way at once, `deadline` how long an answer may take; the
    bodies of all requests hold `body_memory` at most. `workers` are processes.
    """

    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    engine: EngineChoice = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    labels: Path | None = None
    batch_size: int = 16
    batch_wait: float = 0.005
    queue: int = 256
    deadline: float = 10.0
    max_body: int = 32 * 2**20
    body_memory: int = 512 * 2**20
    max_pixels: int = MAX_PIXELS
    token_file: Path | None = None
    open_to_all: bool = False
    repository: Path | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.body_memory < self.max_body:
            largest = show_bytes(self.max_body)
            raise Error(f"--body-memory must hold one request at least: give it {largest} (--max-body) or more")

    def token(self) -> str | None:
        """The word that clients must know.

        Raises Error: its file cannot be read or holds none, or there is none and other machines could ask.
        """
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise Error(f"{self.token_file}: the token cannot be read ({reason})") from None
            if re.fullmatch(r"[\x21-\x7e]{8,}", token) is None:
                raise Error(f"{self.token_file}: a token is one word of at least 8 ASCII characters without spaces")
            return token
        if not self.open_to_all and not is_loopback(self.host):
            raise Error(f"--host {self.host} lets other machines ask: give a --token-file, or --open if anyone may")
        return None


def is_loopback(host: str) -> bool:
    """Whether an address, or the name of one, is reached from this machine alone."""
    host = host.strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seconds(text: str) -> float:
    """`5ms`, `10s`, `2m`, or a number of seconds; raises ValueError."""
    return _amount(text, _SECONDS, "a time, such as 5ms, 10s or 2m")


def size_in_bytes(text: str) -> int:
    """`32MiB`, `10MB`, or a number of bytes; raises ValueError."""
    return round(_amount(text, _BYTES, "a size, such as 32MiB or 10MB"))


def show_seconds(value: float) -> str:
    """A time as `seconds` reads it."""
    return f"{value * 1e3:g}ms" if 0 < value < 1 else f"{value:g}s"


def show_bytes(value: int) -> str:
    """A size as `size_in_bytes` reads it."""
    return f"{value // 2**20}MiB" if value % 2**20 == 0 else str(value)


def _amount(text: str, units: dict[str, float] | dict[str, int], what: str) -> float:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {what}.")
    return float(match[1]) * units[match[2]]


def split_name(model: str) -> tuple[str | None, str]:
    """`cats=runs/mine` is a model under a name of one's own: the name (None: not given), and the model."""
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})=(.+)", model)
    return (match[1], match[2]) if match else (None, model)


def twice(names: Sequence[str]) -> str | None:
    """The first name that occurs twice."""
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
