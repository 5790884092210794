"""Images in object stores: `s3://`, `gs://`, `az://`, and `hf://` of the Hugging Face Hub; and listings over http(s).

S3, Google's and Azure's stores are read by obstore: its listings arrive page by page, so that names do not pile up in
memory, and what a store refuses for a while (throttling, errors of its own, connections that break) is asked again.
Those of the Hub and of web servers come folder by folder.

Credentials are looked for where each provider's own tools do, in the environment and in files. The service that tells
machines of a cloud who they are is asked only with TORCHCLAS_CLOUD_ROLE=1: elsewhere nothing would answer.
"""

from __future__ import annotations

import configparser
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol
from urllib.parse import unquote, urljoin

from torchclas.errors import Error, MissingDependencyError

SCHEMES = ("s3", "gs", "az", "hf")
ROLE = "TORCHCLAS_CLOUD_ROLE"
RETRIES, RETRY_SECONDS, FIRST_WAIT, LONGEST_WAIT = 8, 120.0, 0.2, 10.0
PAGE = 1000  # names that are taken from a listing at once, as stores send them

# What has to be set for each store, one of these; beside files that are looked at.
_CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ),
    "gs": (
        *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
        *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE"),
    ),
    "az": (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        *("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"),
        *("AZURE_STORAGE_TOKEN", "AZURE_SKIP_SIGNATURE"),
    ),
}
_ADVICE = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`; "
    "AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "run `gcloud auth application-default login`, or name a key file with GOOGLE_APPLICATION_CREDENTIALS; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY; AZURE_SKIP_SIGNATURE=true for a public one",
}
_OF_GCLOUD = "application_default_credentials.json"
_WILD = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)  # of a glob
_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class StoreError(Error):
    """What stands in the way of reading from a store: a reason, without the address."""


class Stored(NamedTuple):
    """An object of a store; `version` changes with its content."""

    url: str
    size: int
    version: str = ""


def in_store(name: str | Path) -> bool:
    """Whether this is an address in an object store, and not a file."""
    return isinstance(name, str) and name.partition("://")[0].lower() in SCHEMES and "://" in name


def place(name: str | Path) -> str | Path:
    """A path, or an address in a store as it is: a path would make one slash of its two."""
    return name if in_store(name) else Path(name)


def absolute(name: str | Path) -> str | Path:
    """A path from the root on, links followed, or an address in a store as it is."""
    return name if in_store(name) else Path(name).resolve()


def joined(root: str | Path, name: str) -> str:
    """A path relative to `root`, or an address as it is."""
    return name if "://" in name else os.path.join(root, name)  # noqa: PTH118 - a million of them


def folder(url: str) -> str:
    """What the addresses of all objects below one begin with."""
    _, base, prefix = _open(url)
    return f"{base}{prefix}"


def files(url: str) -> Iterator[Stored]:
    """All objects below an address, lazily; names with a part that begins with a dot are passed over.

    Raises StoreError: it cannot be listed.
    """
    store, base, prefix = _open(url)
    for found in store.files(prefix):
        below = found.url.removeprefix(prefix)
        if not any(part.startswith(".") for part in below.split("/")):
            yield found._replace(url=f"{base}{found.url}")


def inside(url: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of the objects right below an address, sorted. Raises StoreError."""
    store, _, prefix = _open(url)
    folders, objects = store.inside(prefix)
    return _shown(folders), _shown(objects)


def _shown(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def matches(pattern: str) -> Iterator[Stored]:
    """The objects whose address fits a glob: `*`, `?` and `[…]` within one of its parts, `**` across them.

    Raises StoreError: what the pattern begins with cannot be listed.
    """
    fixed = _WILD.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    fits = re.compile(_TOKEN.sub(_as_regex, pattern), re.DOTALL)
    return (found for found in files(f"{fixed}/") if fits.fullmatch(found.url))


def is_pattern(url: str) -> bool:
    """Whether an address has a part that may stand for several objects."""
    return _WILD.search(url) is not None


def read(url: str, max_bytes: int) -> bytes:
    """The content of an object. Raises StoreError: it cannot be read, or is larger."""
    store, _, path = _open(url, folder=False)
    return store.read(path, max_bytes)


def look(url: str) -> Stored | None:
    """What is said of an object; None where there is none. Raises StoreError."""
    store, _, path = _open(url, folder=False)
    return store.look(path)


def copy_to(url: str, file: IO[bytes]) -> None:
    """Write the content of an object, of any size, to a file. Raises StoreError."""
    store, _, path = _open(url, folder=False)
    store.copy_to(path, file)


class _Store(Protocol):
    """A bucket, container or hub; paths within it have no slash before them, and prefixes one behind them, or none."""

    def files(self, prefix: str) -> Iterator[Stored]: ...

    def inside(self, prefix: str) -> tuple[list[str], list[str]]: ...

    def look(self, path: str) -> Stored | None: ...

    def read(self, path: str, max_bytes: int) -> bytes: ...

    def copy_to(self, path: str, file: IO[bytes]) -> None: ...


def _open(url: str, *, folder: bool = True) -> tuple[_Store, str, str]:
    """The store of an address, the address of that, and the path in it."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme == "hf":
        store, base, path = _hub(os.getpid()), "hf://", rest
    else:
        bucket, _, path = rest.partition("/")
        if not bucket:
            raise StoreError(f"names no bucket: write {scheme}://BUCKET/FOLDER")
        store, base = _bucket(scheme, bucket, os.getpid()), f"{scheme}://{bucket}/"
    path = path.strip("/")
    return store, base, f"{path}/" if folder and path else path


@cache
def _bucket(scheme: str, bucket: str, process: int) -> _Store:
    """Connections do not survive a fork: each process has its own."""
    return _Bucket(scheme, bucket)


@cache
def _hub(process: int) -> _Store:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise MissingDependencyError("huggingface_hub", "'torchclas[cloud]'") from None
    return _Folders(HfFileSystem(use_listings_cache=False))


def forget() -> None:
    """Open stores anew when they are next asked: credentials or endpoints have changed."""
    _bucket.cache_clear()
    _hub.cache_clear()


class _Bucket:
    """A bucket of S3, Google Cloud Storage or Azure, by obstore."""

    def __init__(self, scheme: str, bucket: str) -> None:
        try:
            import obstore
            from obstore import store as stores
        except ImportError:
            raise MissingDependencyError("obstore", "'torchclas[cloud]'") from None
        self.scheme, self.bucket, self._api = scheme, bucket, obstore
        options = _options(scheme)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        if scheme == "s3" and endpoint:
            options |= {"endpoint": endpoint, "client_options": {"allow_http": endpoint.startswith("http://")}}
        retries: Any = {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_WAIT),
                "max_backoff": timedelta(seconds=LONGEST_WAIT),
                "base": 2,
            },
        }
        kinds: dict[str, Any] = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
        try:
            self._store = kinds[scheme](bucket, retry_config=retries, **options)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise self._explained(error) from None

    def files(self, prefix: str) -> Iterator[Stored]:
        last, cuts = None, 0
        while True:
            try:
                for page in self._api.list(self._store, prefix or None, offset=last, chunk_size=PAGE):
                    for found in page:
                        last, cuts = found["path"], 0
                        yield Stored(found["path"], found["size"], found["e_tag"] or "")
                return
            except (self._api.exceptions.BaseError, OSError) as error:
                cuts = self._cut_again(error, cuts)

    def inside(self, prefix: str) -> tuple[list[str], list[str]]:
        try:
            found = self._api.list_with_delimiter(self._store, prefix or None)
        except (self._api.exceptions.BaseError, OSError) as error:
            raise self._explained(error) from None
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return folders, [each["path"].rpartition("/")[2] for each in found["objects"]]

    def look(self, path: str) -> Stored | None:
        try:
            found = self._api.head(self._store, path)
        except FileNotFoundError:
            return None
        except (self._api.exceptions.BaseError, OSError) as error:
            raise self._explained(error) from None
        return Stored(path, found["size"], found["e_tag"] or str(found["last_modified"]))

    def read(self, path: str, max_bytes: int) -> bytes:
        cuts = 0
        while True:
            try:
                answer = self._api.get(self._store, path)
                if (size := answer.meta["size"]) > max_bytes:
                    raise StoreError(f"has {size:,} bytes, more than the {max_bytes:,} that an image may have")
                return bytes(answer.bytes())
            except (self._api.exceptions.BaseError, OSError) as error:
                cuts = self._cut_again(error, cuts)

    def copy_to(self, path: str, file: IO[bytes]) -> None:
        cuts = 0
        while True:
            try:
                for chunk in self._api.get(self._store, path).stream(min_chunk_size=2**20):
                    file.write(chunk)
                return
            except self._api.exceptions.BaseError as error:
                cuts = self._cut_again(error, cuts)
                file.seek(0)
                file.truncate()

    def _cut_again(self, error: Exception, cuts: int) -> int:
        """Wait, and return how many answers in a row broke off; raises what obstore has asked again by itself, or not.

        It asks again where a request fails, and not where the connection breaks while the answer comes.
        """
        if "body error" not in str(error) or cuts == RETRIES:
            raise self._explained(error) from None
        time.sleep(min(FIRST_WAIT * 2**cuts, LONGEST_WAIT) * random.uniform(0.5, 1))
        return cuts + 1

    def _explained(self, error: Exception) -> StoreError:
        """What the store said, in a line that says what to do."""
        text, bucket = str(error), f"{self.scheme}://{self.bucket}"
        if any(code in text for code in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")):
            return StoreError(f"there is no bucket {bucket}: is its name right, and the account or endpoint?")
        if isinstance(error, FileNotFoundError):
            return StoreError("no such object")
        if any(place in text for place in ("169.254", "metadata.google", "Account must be specified")):
            return StoreError(f"no credentials for {bucket}: {_ADVICE[self.scheme]}")
        refusals = self._api.exceptions.PermissionDeniedError, self._api.exceptions.UnauthenticatedError
        codes = "403", "401", "InvalidAccessKeyId", "SignatureDoesNotMatch"
        if isinstance(error, refusals) or any(f" {code} " in text or f"<Code>{code}<" in text for code in codes):
            return StoreError(f"{bucket} refuses these credentials: are they right, and may they list and read it?")
        if "PermanentRedirect" in text or " 301 " in text:
            return StoreError(f"{bucket} is in another region: set AWS_REGION to it")
        reason = " ".join(text.partition("Debug source")[0].split())
        code = re.search(r"<Code>(\w+)</Code>", reason)
        return StoreError(f"{bucket} cannot be read: {code[1] if code else reason[:300]}")


class _Folders:
    """What fsspec has a file system for, folder by folder."""

    def __init__(self, system: Any) -> None:
        self.system = system

    def files(self, prefix: str) -> Iterator[Stored]:
        folders = [prefix.rstrip("/")]
        while folders:
            below = list[str]()
            for found in sorted(self._list(folders.pop()), key=lambda found: str(found["name"])):
                if found["type"] == "directory":
                    below.append(found["name"])
                else:
                    yield _stored(found)
            folders += reversed(below)

    def inside(self, prefix: str) -> tuple[list[str], list[str]]:
        found = self._list(prefix.rstrip("/"))
        kinds = ([each for each in found if (each["type"] == "directory") is folder] for folder in (True, False))
        folders, objects = ([str(each["name"]).rstrip("/").rpartition("/")[2] for each in kind] for kind in kinds)
        return folders, objects

    def look(self, path: str) -> Stored | None:
        with suppress(FileNotFoundError):
            return _stored(self._asked("info", path))
        return None

    def read(self, path: str, max_bytes: int) -> bytes:
        try:
            size = int(self._asked("info", path)["size"] or 0)
            if size > max_bytes:
                raise StoreError(f"has {size:,} bytes, more than the {max_bytes:,} that an image may have")
            return self._asked("cat_file", path)
        except FileNotFoundError:
            raise StoreError("no such object") from None

    def copy_to(self, path: str, file: IO[bytes]) -> None:
        try:
            self._asked("get_file", path, file)
        except FileNotFoundError:
            raise StoreError("no such object") from None

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return self._asked("ls", folder, detail=True)
        except FileNotFoundError:
            return []

    def _asked(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self.system, name)(*arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # of whatever library is behind it
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise StoreError("access is denied: log in with `hf auth login`, or set HF_TOKEN") from None
            raise StoreError(f"cannot be read: {' '.join(str(error).split())[:300]}") from None


def _as_regex(token: re.Match[str]) -> str:
    text = token[0]
    if len(text) > 2 and text[0] == "[":
        inner = text[1:-1].replace("\\", r"\\")
        return f"[^{inner[1:]}]" if inner[0] == "!" else f"[{inner}]"
    return _WILDCARDS.get(text) or re.escape(text)


def _stored(found: Mapping[str, Any]) -> Stored:
    version = found.get("blob_id") or found.get("etag") or found.get("mtime") or ""
    return Stored(str(found["name"]), int(found.get("size") or 0), str(version))


def _options(scheme: str) -> dict[str, Any]:
    """What is not in the environment; raises StoreError where nothing says who asks."""
    if any(os.environ.get(name) for name in _CREDENTIALS[scheme]) or os.environ.get(ROLE):
        return {}
    if scheme == "s3" and (found := _aws_profile()):
        return found
    if scheme == "gs" and (_home("CLOUDSDK_CONFIG", ".config/gcloud") / _OF_GCLOUD).is_file():
        return {}
    raise StoreError(f"no credentials: {_ADVICE[scheme]}; {ROLE}=1 on a machine of the cloud whose role may read it")


def _aws_profile() -> dict[str, Any]:
    """The keys, and the region, that `aws configure` has written for AWS_PROFILE."""
    profile = os.environ.get("AWS_PROFILE") or "default"
    shared, config = configparser.RawConfigParser(), configparser.RawConfigParser()
    with suppress(configparser.Error, UnicodeDecodeError):
        shared.read(_home("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), encoding="utf-8")
        config.read(_home("AWS_CONFIG_FILE", ".aws/config"), encoding="utf-8")
    keys = {
        name: shared.get(profile, f"aws_{name}", fallback=None)
        for name in ("access_key_id", "secret_access_key", "session_token")
    }
    if not keys["access_key_id"]:
        return {}
    section = profile if profile == "default" else f"profile {profile}"
    region = config.get(section, "region", fallback=None) or shared.get(profile, "region", fallback=None)
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        keys["region"] = region
    return {name: value for name, value in keys.items() if value}


def _home(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / usual)


class _Links(HTMLParser):
    """The addresses that a page leads to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def linked(url: str, page: str) -> tuple[list[str], list[str]]:
    """The folders and the files right below `url` that the page of a web server's listing leads to, sorted."""
    base = urljoin(url, ".")
    links = {urljoin(url, link).partition("#")[0].partition("?")[0] for link in _Links(page).found}
    below = [link for link in links if link.startswith(base) and re.fullmatch(r"[^/]+/?", link[len(base) :])]
    names = sorted(link for link in below if not unquote(link[len(base) :]).startswith("."))
    return [link for link in names if link.endswith("/")], [link for link in names if not link.endswith("/")]
