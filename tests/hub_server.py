"""A Hugging Face Hub in a thread: as much of its protocol as fetching and pushing models takes.

Large files are stored apart, as LFS does: `resolve` redirects to them, and a commit names them by their SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_the_tests"
LARGE = (".safetensors", ".bin", ".pth", ".onnx", ".pdiparams", ".pdparams")


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Commits, oldest first, each with all files, and what branches and tags stand for."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    refs: dict[str, str] = field(default_factory=dict[str, str])
    messages: list[str] = field(default_factory=list[str])

    def commit(self, files: dict[str, bytes], *, branch: str = "main", message: str = "") -> str:
        whole = {**self.files(branch), **files}
        described = json.dumps([len(self.commits), {name: git_hash(content) for name, content in whole.items()}])
        commit = hashlib.sha1(described.encode()).hexdigest()
        self.commits[commit] = whole
        self.refs[branch] = commit
        self.messages.append(message)
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits.get(self.refs.get(revision, revision), {})


@dataclass
class Hub:
    """The server as a test sees it; `tampered` is what the storage sends in place of a file."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    storage: dict[str, bytes] = field(default_factory=dict[str, bytes])
    requests: list[str] = field(default_factory=list[str])
    tampered: Callable[[bytes], bytes] = lambda content: content
    refused: int = 0  # a status that everything is answered with

    def add(self, name: str, files: dict[str, bytes] | Path, *, private: bool = False, gated: bool = False) -> str:
        """Commit files, or those of a folder, to a repository; returns the commit."""
        if isinstance(files, Path):
            files = {file.name: file.read_bytes() for file in files.iterdir()}
        repository = self.repositories.setdefault(name, Repository(private, gated))
        for path, content in files.items():
            if path.endswith(LARGE):
                self.storage[hashlib.sha256(content).hexdigest()] = content
        return repository.commit(files)

    def asked(self, part: str) -> list[str]:
        return [request for request in self.requests if part in request]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self.answered()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the argument's name
        pass

    def answered(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if self.hub.refused:
            return self.error(self.hub.refused, "", "out of order")
        for pattern, method in _ROUTES:
            if (found := re.fullmatch(pattern, path)) is not None:
                return method(self, body, *map(unquote, found.groups()))
        return self.error(404, "EntryNotFound", f"no route {path}")

    # Answers

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: object) -> None:
        self.send(json.dumps(value).encode(), Content_Type="application/json")

    def error(self, status: int, code: str, message: str) -> None:
        headers = {"X_Error_Code": code} if code else {}
        self.send(
            json.dumps({"error": message}).encode(),
            status,
            X_Error_Message=message,
            Content_Type="application/json",
            **headers,
        )

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def allowed(self, name: str, *, write: bool = False) -> Repository | None:
        """The repository, if it is there for whoever asks; else the answer is sent."""
        repository = self.hub.repositories.get(name)
        if self.token not in ("", TOKEN):
            self.error(401, "", "Invalid credentials in Authorization header")
        elif write and not self.token:
            self.error(401, "", "Invalid username or password.")
        elif repository is None or (repository.private and not self.token):
            self.error(404 if self.token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated:
            self.error(403, "GatedRepo", "Access to this model is restricted")
        elif write and name.startswith("others/"):
            self.error(403, "", "You don't have the rights to create a model under the namespace others")
        else:
            return repository
        return None

    def revision(self, repository: Repository, revision: str) -> str | None:
        commit = repository.refs.get(revision, revision)
        if commit in repository.commits:
            return commit
        self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    # Routes

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if (repository := self.allowed(name)) is None:
            return
        if (commit := self.revision(repository, revision or "main")) is None:
            return
        files = [{"rfilename": path} for path in repository.commits[commit]]
        self.json({"id": name, "modelId": name, "sha": commit, "siblings": files, "private": repository.private})

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if (repository := self.allowed(name)) is None:
            return
        if (commit := self.revision(repository, revision)) is None:
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self.error(404, "EntryNotFound", "Entry not found")
        elif path.endswith(LARGE):
            self.elsewhere(content, commit)
        else:
            self.send(content, ETag=f'"{git_hash(content)}"', X_Repo_Commit=commit)

    def elsewhere(self, content: bytes, commit: str) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self.send(
            b"",
            302,
            Location=f"{self.hub.url.replace('127.0.0.1', 'localhost')}/storage/{digest}",  # of another host, as there
            ETag=f'"{git_hash(content)}"',
            X_Linked_Etag=f'"{digest}"',
            X_Linked_Size=str(len(content)),
            X_Repo_Commit=commit,
        )

    def stored(self, body: bytes, digest: str) -> None:
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == digest
            self.hub.storage[digest] = body
            self.send(b"")
        else:
            self.send(self.hub.tampered(self.hub.storage[digest]), ETag='"of-the-storage"')

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            exists = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            return self.send(json.dumps(exists).encode(), 409)
        self.hub.repositories[name] = Repository(
            private=asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        if self.allowed(name, write=True) is None:
            del self.hub.repositories[name]
            return None
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
        return self.json({"url": f"{self.hub.url}/{name}"})

    def valid(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self.json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if (repository := self.allowed(name, write=True)) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": git_hash(there) if (there := repository.files(revision).get(file["path"])) is not None else None,
            }
            for file in json.loads(body)["files"]
        ]
        self.json({"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if self.allowed(name, write=True) is None:
            return
        objects = [
            {
                **wanted,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.hub.url}/storage/{wanted['oid']}"}},
            }
            for wanted in json.loads(body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if (repository := self.allowed(name, write=True)) is None:
            return
        header, *operations = [json.loads(line) for line in body.splitlines()]
        files: dict[str, bytes] = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.storage[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        commit = repository.commit(files, branch=revision, message=header["value"]["summary"])
        self.json(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
                "hookOutput": "",
            }
        )


_NAME = r"([\w.-]+/[\w.-]+)"
_REVISION = r"([^/]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"/api/models/{_NAME}", _Handler.info),
    (rf"/api/models/{_NAME}/revision/(.+)", _Handler.info),
    (rf"/{_NAME}/resolve/{_REVISION}/(.+)", _Handler.resolve),
    (r"/storage/(\w+)", _Handler.stored),
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.valid),
    (rf"/api/models/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"/api/models/{_NAME}/commit/{_REVISION}", _Handler.commit),
]


@contextmanager
def hub_server() -> Generator[Hub, None, None]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def as_the_hub(hub: Hub, cache: Path, patch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    """Let huggingface_hub, which reads its settings once, ask this server and keep what it fetches in `cache`."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TORCHCLAS_OFFLINE"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield
