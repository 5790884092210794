"""GET with a bound on every wait. Leaf module: weights and images from URLs are fetched by it.

The timeouts of sockets start anew with every byte that arrives, so a server that sends a byte now and then, or the head
of its answer line by line, would hold whoever waits for as long as it likes; looking up a name has no timeout at all.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

CHUNK = 2**16  # bytes


class TooSlowError(Exception):
    """The next part of an answer did not arrive in the time it was given."""


class BadAnswerError(Exception):
    """An answer that breaks the rules of HTTP."""


@dataclass(frozen=True)
class Answer:
    """The head of an answer, and its content as it arrives, decompressed, `CHUNK` bytes at a time."""

    status: int
    reason: str
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    def number(self, header: str) -> int | None:
        """The value of a header; None for anything but a whole number."""
        text = self.headers.get(header, "").strip()
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None  # isdigit() takes "²", int() 5,000 digits


@contextmanager
def get(
    url: str, *, headers: Mapping[str, str], connect: float, wait: Callable[[], float]
) -> Generator[Answer, None, None]:
    """Yield the answer to a GET request, redirects followed.

    An address has `connect` seconds to take the connection. `wait` says, each time, for how many seconds to wait for
    the head of the answer and for each chunk.

    Raises:
        TooSlowError: the head or a chunk did not arrive in that time.
        BadAnswerError: what the server sends is not HTTP.
        requests.RequestException: there is no connection, or it broke.
    """
    transfer = _Transfer(url, dict(headers), connect, wait)
    transfer.start()
    try:
        yield transfer.answer()
    finally:
        transfer.given_up = True


def certificate_problem(error: Exception) -> str:
    """What was wrong with the encryption, in the words of OpenSSL, from the chain of errors that carries them."""
    cause: BaseException | None = error
    while cause is not None:
        reason = getattr(cause, "reason", None)
        if isinstance(cause, ssl.SSLError):
            return str(getattr(cause, "verify_message", "") or reason or cause)
        cause = (
            reason
            if isinstance(reason, BaseException)
            else next((part for part in cause.args if isinstance(part, BaseException)), cause.__cause__)
        )
    return "unknown reason"


class _Transfer(threading.Thread):
    """Talks to the server in a thread of its own, which is left to itself when it takes too long."""

    def __init__(self, url: str, headers: dict[str, str], connect: float, wait: Callable[[], float]) -> None:
        super().__init__(daemon=True, name="torchclas-http")
        self.url, self.headers, self.connect, self.wait = url, headers, connect, wait
        self.parts: Queue[Answer | bytes | Exception | None] = Queue(4)  # a head, chunks, None for the end
        self.given_up = False

    def run(self) -> None:
        with suppress(_GivenUp):
            try:
                self.transfer()
                self.put(None)
            except Exception as error:
                self.put(error)

    def transfer(self) -> None:
        import requests  # 0.1 s that runs without URLs need not pay

        try:
            with requests.get(self.url, headers=self.headers, stream=True, timeout=(self.connect, 60)) as response:
                self.put(Answer(response.status_code, response.reason or "", response.headers, self.chunks()))
                for chunk in response.iter_content(CHUNK):
                    self.put(chunk)
        except (requests.RequestException, MemoryError, _GivenUp):
            raise
        except Exception as error:  # whatever urllib3 and Python make of an answer that breaks the rules
            raise BadAnswerError(str(error)[:200]) from error

    def put(self, part: Answer | bytes | Exception | None) -> None:
        while not self.given_up:
            try:
                return self.parts.put(part, timeout=0.5)
            except Full:
                continue
        raise _GivenUp

    def answer(self) -> Answer:
        head = self.next()
        assert isinstance(head, Answer)  # it comes before everything else
        return head

    def chunks(self) -> Iterator[bytes]:
        while isinstance(chunk := self.next(), bytes):
            yield chunk

    def next(self) -> Answer | bytes | None:
        try:
            part = self.parts.get(timeout=max(self.wait(), 0))
        except Empty:
            raise TooSlowError from None
        if isinstance(part, Exception):
            raise part
        return part


class _GivenUp(Exception):  # noqa: N818 - internal: ends the thread
    pass
