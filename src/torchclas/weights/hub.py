"""Models on the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`, as huggingface_hub writes such addresses.

huggingface_hub fetches them, with its own cache, token and settings (`HF_ENDPOINT`, `HF_HUB_OFFLINE` …). Of a
repository only what `weights_in` names is fetched, and what belongs to it. The cache calls a file by the hash that the
Hub gave for it, with which it is compared whenever it is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from torchclas.atomic import disk_is_full
from torchclas.digest import sha256_of
from torchclas.errors import CheckpointError, DownloadError, Error, MissingDependencyError, OutputError
from torchclas.text import printable
from torchclas.version import __version__
from torchclas.weights.cache import BytesDone, show_download
from torchclas.weights.kinds import PARAMETERS, PROGRAMS, SUFFIXES
from torchclas.weights.location import CARD, CONFIG, weights_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SCHEME = "hf://"
_ELSEWHERE = re.compile(r"(?:hf[-_]hub:|https?://(?:huggingface\.co|hf\.co)/)(?P<rest>[\w.-]+/[\w.-]+(?:@[\w./-]+)?)")
_ADDRESS = re.compile(
    r"hf://(?P<repository>\w[\w.-]{0,95}/\w[\w.-]{0,95})"
    r"(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/@\s]+))?(?:/(?P<file>[^/\s].*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
# What a file of weights cannot be read without, or is described by; its own name with another ending, or a whole name.
_BESIDE: Mapping[str, tuple[str, ...]] = {
    PARAMETERS: (*PROGRAMS, ".yml", ".yaml"),
    **dict.fromkeys(PROGRAMS, (PARAMETERS, ".yml", ".yaml")),
    ".xml": (".bin",),
    ".param": (".bin", ".param.json"),
}
_DESCRIBED = (CONFIG, "inference.yml", "inference_cls.yaml")
_TIMEOUT = 10.0  # seconds for the answer to what a revision is


@dataclass(frozen=True)
class Address:
    """A model on the Hub; without a `file`, the repository's own weights."""

    repository: str
    revision: str = "main"
    file: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{_quoted(self.revision)}"
        return f"{_SCHEME}{self.repository}{revision}{self.file and '/'}{self.file}"

    @property
    def name(self) -> str:
        """What the repository is called, without its owner."""
        return self.repository.partition("/")[2]


def address_of(name: str | Path | None) -> Address | None:
    """The address that a model is named by; None for names and files.

    Raises CheckpointError: it begins as an address does, and is none, or is written as elsewhere.
    """
    if name is None:
        return None
    text = name if isinstance(name, str) else name.as_posix()
    if (elsewhere := _ELSEWHERE.match(text)) is not None:
        raise CheckpointError(f"{text}: a model of the Hugging Face Hub is called hf://{elsewhere['rest']} here")
    if not text.startswith("hf:/"):
        return None
    text = _SCHEME + text[4:].lstrip("/")  # Path makes one slash of two
    found = _ADDRESS.fullmatch(text)
    if found is None or {".", ".."} & set((found["file"] or "").split("/")):
        raise CheckpointError(f"{text}: a model of the Hugging Face Hub is called hf://OWNER/NAME, with @REVISION")
    return Address(found["repository"], unquote(found["revision"] or "main"), found["file"] or "")


def is_repository(name: str) -> bool:
    """Whether a name is of the form OWNER/NAME."""
    return _REPOSITORY.fullmatch(name) is not None


def fetch(address: Address) -> tuple[Path, Address]:
    """The file of weights in huggingface_hub's cache, and its address that no later commit changes.

    What describes the weights, such as `config.json`, is fetched with them. A commit that is here is not asked for
    again. Where the Hub cannot be reached, what is here of the revision is taken, with a warning.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        DownloadError: there is no such repository, revision or file, it may not be read, the network failed, or what
            arrived is not what the Hub announced.
        CheckpointError: the repository holds no weights, or several.
        OutputError: the cache cannot be written.
    """
    library()
    if address.file and _COMMIT.fullmatch(address.revision):
        folder = _cached(address)
        if folder is not None and (folder / address.file).is_file():
            return _taken(address, folder)
    if is_offline():
        folder = _cached(address)
        if folder is None:
            switch = "TORCHCLAS_OFFLINE" if _switched_off() else "HF_HUB_OFFLINE"
            raise DownloadError(
                f"{address} is not in the cache of huggingface_hub, and {switch} is set: unset it, and fetch it once"
            )
        return _taken(address, folder)
    try:
        commit, names = _listing(address)
    except DownloadError as error:
        if not isinstance(error.__cause__, _Unreachable) or (folder := _cached(address)) is None:
            raise
        warnings.warn(f"{error}; what was fetched of it before is taken, commit {folder.name[:12]}", stacklevel=2)
        return _taken(address, folder)
    file = address.file or _chosen(address, names)
    path = _file(address, file)
    if path.parents[file.count("/")].name != commit:
        raise DownloadError(f"{address}: the repository changed while it was being fetched: run the same again")
    pinned = replace(address, revision=commit, file=file)
    for name in sorted(_beside(file).intersection(names)):
        _file(pinned, name)
    return path, pinned


@dataclass(frozen=True)
class Pushed:
    """A commit on the Hub: its page, and whether a page about the model was there already and was left alone."""

    url: str
    commit: str
    card_kept: bool


def check_push(repository: str) -> None:
    """Raise `Error` where nothing could be pushed, before the work that it takes."""
    from huggingface_hub import get_token

    library()
    if not is_repository(repository):
        raise Error(f"{repository}: a repository of the Hugging Face Hub is called OWNER/NAME")
    if is_offline():
        switch = "TORCHCLAS_OFFLINE" if _switched_off() else "HF_HUB_OFFLINE"
        raise Error(f"{repository}: nothing can be pushed while {switch} is set: unset it")
    if get_token() is None:
        raise Error(f"{repository}: pushing takes a token that may write: log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str, *, message: str, private: bool, new_card: bool) -> Pushed:
    """Commit the files of a folder to `OWNER/NAME`, which is made where it does not exist, all at once.

    A page about the model that is there already stays as it is, unless there is to be a `new_card`.

    Raises:
        DownloadError: the Hub does not allow it, or cannot be reached.
        Error: what is to be private is public there.
    """
    from huggingface_hub import CommitOperationAdd

    api = library()
    with told(Address(repository)), _bars():
        api.create_repo(repository, private=private or None, exist_ok=True)
        found = api.model_info(repository, timeout=_TIMEOUT)
        if private and not found.private:
            raise Error(f"{repository} exists, and is public: change that at {endpoint()}/{repository}/settings first")
        there = {file.rfilename for file in found.siblings or ()}
        kept = CARD in there and not new_card
        files = [file for file in sorted(folder.iterdir()) if file.name != CARD or not kept]
        done = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in files],
            commit_message=message,
            parent_commit=found.sha,
        )
    return Pushed(str(done.commit_url), str(done.oid), kept)


def library() -> HfApi:
    """huggingface_hub's client; raises `MissingDependencyError` where it is not installed.

    At its first request in a day the package would ask the Hub for more, to report which program uses it: it may not.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # which it reads as it is imported
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingDependencyError("huggingface_hub", "'torchclas[hub]'") from None
    return HfApi(library_name="torchclas", library_version=__version__)


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` or `TORCHCLAS_OFFLINE` forbids the network."""
    from huggingface_hub import constants

    return _switched_off() or constants.HF_HUB_OFFLINE


def endpoint() -> str:
    """Where the Hub is: `HF_ENDPOINT`, or https://huggingface.co."""
    from huggingface_hub import constants

    return constants.ENDPOINT


@contextmanager
def told(address: Address) -> Generator[None, None, None]:
    """Let errors of huggingface_hub, and of the network below it, be `DownloadError`s that say what to do."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        if isinstance(error, OSError) and disk_is_full(error, Path.home()):
            raise OutputError(
                f"{address}: the disk is full: free some space, or set HF_HOME to a folder on another"
            ) from error
        if isinstance(error, PermissionError) and error.filename:
            raise OutputError(f"{error.filename}: cannot be written: set HF_HOME to a folder that can") from error
        reason, unreachable = _reason(error, address)
        raise DownloadError(f"{address}: {reason}") from (_Unreachable() if unreachable else error)


class _Unreachable(Exception):  # noqa: N818 - internal: the cause of errors that the Hub itself did not answer
    pass


def _reason(error: Exception, address: Address) -> tuple[str, bool]:
    """What went wrong in one line, and whether that is because the Hub was not reached."""
    from huggingface_hub import errors, get_token

    who = "the token of this machine does not open it" if get_token() else "no token is here that would open it"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    match error:
        case errors.GatedRepoError():
            return f"its owner decides who may have it: ask at {endpoint()}/{address.repository}, then {login}", False
        case errors.RevisionNotFoundError():
            return f"the repository has no revision {address.revision}: name a branch, a tag or a commit of it", False
        case errors.RepositoryNotFoundError():
            where = f"there is no such model at {endpoint()}"
            return f"{where}, or it is private and {who}: check the name, or {login}", False
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return f"the repository has no file {address.file}", False
        case errors.HFValidationError():
            return f"{_line(error)}", False
        case _ if status == 401:
            return f"{endpoint()} does not accept the token ({_line(error)}): {login}", False
        case _ if status == 403:
            return f"the token may not do this ({_line(error)}): {login} with one that may", False
        case _ if status:
            return f"{endpoint()} answers {status} ({_line(error)}): try again later", status >= 500
        case _ if "xet-" in str(error):
            return f"{endpoint()} does not take files by Xet ({_line(error)}): set HF_HUB_DISABLE_XET=1", False
        case KeyError() | TypeError() | ValueError() | AttributeError() | AssertionError() | errors.FileMetadataError():
            return f"{endpoint()} does not answer as a Hugging Face Hub does: is HF_ENDPOINT right?", False
        case _:
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error  # of advice for other programs
            return f"{endpoint()} cannot be reached ({_line(error)}): check the connection, proxy and HF_ENDPOINT", True


def _line(error: Exception) -> str:
    """What an error says, on one line."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return printable(" ".join(said.split()))[:200]


def _listing(address: Address) -> tuple[str, Collection[str]]:
    """The commit that a revision is now, and the files of the repository in it."""
    with told(address):
        found = library().model_info(address.repository, revision=address.revision, timeout=_TIMEOUT)
    if not found.sha or not _COMMIT.fullmatch(found.sha):
        raise DownloadError(
            f"{address}: {endpoint()} does not answer as a Hugging Face Hub does: is HF_ENDPOINT right?"
        )
    return found.sha, [file.rfilename for file in found.siblings or ()]


def _cached(address: Address) -> Path | None:
    """The folder of what is here of a revision; it need not be all of it."""
    from huggingface_hub import errors

    try:
        folder = library().snapshot_download(
            address.repository, revision=address.revision, allow_patterns=[], local_files_only=True
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None
    return Path(folder)


def _taken(address: Address, folder: Path) -> tuple[Path, Address]:
    """The file of weights in a folder of the cache, where nothing may be fetched."""
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    file = address.file or _chosen(address, names)
    if file not in names:
        raise DownloadError(f"{address} is not in the cache of huggingface_hub, and the Hub cannot be asked for it")
    for name in (file, *_beside(file).intersection(names)):
        if not _is_intact(folder / name):
            raise DownloadError(f"{folder / name}: damaged since it was fetched: delete it, and fetch it again")
    return folder / file, replace(address, revision=folder.name, file=file)


def _chosen(address: Address, names: Collection[str]) -> str:
    """The repository's own weights."""
    top = {name for name in names if "/" not in name}
    if (found := weights_in(top)) is not None:
        return found
    kept = sorted(name for name in names if name.endswith(SUFFIXES))
    if len(candidates := [name for name in kept if name in top]) == 1:
        return candidates[0]
    if not kept:
        raise CheckpointError(f"{address}: the repository holds no weights that are read here ({_listed(names)})")
    raise CheckpointError(f"{address}: say which weights: {replace(address, file=kept[0])} ({_listed(kept)})")


def _listed(names: Collection[str]) -> str:
    if not names:
        return "it is empty"
    return printable(", ".join(sorted(names)[:6])) + (" …" if len(names) > 6 else "")


def _beside(file: str) -> set[str]:
    """The files that may belong to a file of weights."""
    path = PurePosixPath(file)
    own = {str(path.with_suffix(ending)) for ending in _BESIDE.get(path.suffix, ())}
    return own | {str(path.with_name(name)) for name in _DESCRIBED}


def _file(address: Address, name: str) -> Path:
    """A file of the repository, fetched unless it is here, and compared with its hash."""
    path = _fetched(address, name)
    if not _is_intact(path):
        path = _fetched(address, name, again=True)
        if not _is_intact(path):
            raise DownloadError(f"{address}: {name} is not what {endpoint()} says that it is: its hash differs")
    return path


def _fetched(address: Address, name: str, *, again: bool = False) -> Path:
    with told(replace(address, file=name)), show_download(name) as progress:
        path = library().hf_hub_download(
            address.repository,
            name,
            revision=address.revision,
            force_download=again,
            tqdm_class=_bar(progress or _silent),
        )
    return Path(path)


def _is_intact(path: Path) -> bool:
    """Whether a file is what its name in the cache says: the SHA-256 of large files, git's hash of others.

    Where the cache has no links, and so no such names, nothing is known, and the size was compared as it arrived.
    """
    if not path.is_symlink():
        return True
    promised = path.readlink().name
    if len(promised) == 64:
        return sha256_of(path) == promised
    if len(promised) != 40:
        return True
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == promised


def _bar(show: BytesDone) -> Any:
    """What huggingface_hub takes for a progress bar of tqdm's, and which is the package's own."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument, reportUntypedBaseClass]
        def display(self, *arguments: object, **options: object) -> None:
            if self.total:
                show(int(self.n), int(self.total))

    return Bar


@contextmanager
def _bars() -> Generator[None, None, None]:
    """huggingface_hub's own bars, which show how files leave, on a terminal alone."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _silent(done: int, total: int | None) -> None:
    pass


def _switched_off() -> bool:
    from torchclas.weights.download import offline  # 0.1 s for requests, which other files need not pay

    return offline()


def _quoted(revision: str) -> str:
    return revision if revision.startswith("refs/") else quote(revision, safe="")
