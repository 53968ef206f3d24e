"""A stand-in for the Hugging Face hub: what huggingface_hub uses of its HTTP interface for models.

It keeps real commits in memory: what was pushed is what is pulled. Large files go through git LFS, whose store answers
at an address of its own, as a CDN does. It knows no Xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standin"
READER = "hf_reader"
"""Tokens of OWNER, and of somebody else who may only read what is public."""
OWNER = "octo"
LICENSES = {"apache-2.0", "mit"}

Files = dict[str, bytes]


@dataclass
class Repository:
    """A model repository: its commits from old to new, each with all its files."""

    private: bool = False
    commits: list[tuple[str, str, Files]] = field(default_factory=list)
    """Digits of the commit, its message, its files."""

    def commit(self, message: str, files: Files) -> str:
        """Add a commit and return its digits."""
        parent = self.commits[-1][0] if self.commits else ""
        blobs = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items())
        oid = hashlib.sha1(repr((parent, len(self.commits), message, blobs)).encode()).hexdigest()
        self.commits.append((oid, message, dict(files)))
        return oid

    def at(self, revision: str) -> tuple[str, Files] | None:
        """The commit that a revision names, and its files."""
        if revision == "main":
            return self.commits[-1][0], self.commits[-1][2]
        return next(((oid, files) for oid, _, files in self.commits if oid.startswith(revision)), None)

    @property
    def files(self) -> Files:
        """The files of the newest commit."""
        return self.commits[-1][2]

    @property
    def messages(self) -> list[str]:
        """The messages of all commits, from old to new."""
        return [message for _, message, _ in self.commits]


@dataclass
class Hub:
    """The state of the stand-in, and what a test wants to go wrong."""

    address: str = ""
    store_address: str = ""
    """The store of git LFS: another host, as a CDN is."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    store: Files = field(default_factory=dict)
    """The objects of git LFS by their SHA-256."""
    requests: list[str] = field(default_factory=list)
    fails_with: int | None = None
    """Status of every answer."""
    fails_at: str = ""
    """Part of the address where every answer is `fails_with`."""
    sent: Callable[[str, bytes], bytes] = lambda name, content: content
    """What is sent in place of the content of a file."""

    def holds(self, name: str, files: Files) -> Repository:
        """Make a repository with `files`."""
        found = self.repositories.setdefault(name, Repository())
        found.commit("by hand", files)
        return found


@contextmanager
def standin() -> Iterator[Hub]:
    """Run the stand-in in a thread."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    port = server.server_address[1]
    hub.address, hub.store_address = f"http://127.0.0.1:{port}", f"http://localhost:{port}/store"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_large(name: str) -> bool:
    """Whether a file goes through git LFS."""
    return name.endswith(".safetensors")


def git_blob(content: bytes) -> str:
    """The digits of a file in git."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.fails_with is not None and self.hub.fails_at in path:
            return self._send(self.hub.fails_with, {"error": "the stand-in fails"})
        for method, pattern, answer in ROUTES:
            if method in (self.command, "ANY") and (found := re.fullmatch(pattern, path)):
                return answer(self, body, *found.groups())
        return self._send(404, {"error": f"the stand-in does not know {self.command} {path}"})

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _known_token(self) -> bool:
        if self._token in ("", TOKEN, READER):
            return True
        self._send(401, {"error": "Invalid"}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        return False

    def _repository(self, name: str, write: bool = False) -> Repository | None:
        """The repository, if the token may do this; else None, and the refusal is sent."""
        if not self._known_token():
            return None
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self._token != TOKEN):
            self._refuse(404 if self._token else 401, "RepoNotFound", "Repository not found")
            return None
        if write and self._token != TOKEN:
            self._refuse(403, "", "you have no write access here")
            return None
        return found

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or OWNER
        name = f"{owner}/{asked['name']}"
        if not self._known_token():
            return None
        if self._token != TOKEN or owner != OWNER:
            return self._refuse(403, "", "you may not create a repository here")
        if name in self.hub.repositories:
            return self._send(409, {"error": "You already created it", "url": f"{self.hub.address}/{name}"})
        made = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        made.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repositories[name] = made
        return self._send(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _info(self, _: bytes, name: str, revision: str | None) -> None:
        if (repository := self._repository(name)) is None:
            return None
        if (found := repository.at(revision or "main")) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        oid, files = found
        siblings = [{"rfilename": each, "size": len(content)} for each, content in sorted(files.items())]
        about = {"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": siblings}
        return self._send(200, {**about, "tags": [], "downloads": 0, "likes": 0})

    def _validate(self, body: bytes) -> None:
        license = re.search(r"^license: (.*)$", json.loads(body)["content"], re.M)
        if license and license[1] not in LICENSES:
            return self._send(400, {"errors": [{"message": f'"license" {license[1]} is not one of a list'}]})
        return self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, _: str) -> None:
        if (repository := self._repository(name, write=True)) is None:
            return
        answers = []
        for each in json.loads(body)["files"]:
            content, path = repository.files.get(each["path"]), each["path"]
            large = is_large(path)
            oid = None if content is None else hashlib.sha256(content).hexdigest() if large else git_blob(content)
            mode = "lfs" if large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": answers})

    def _batch(self, body: bytes, name: str) -> None:
        if self._repository(name, write=True) is None:
            return
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.store_address}/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.hub.store else {"actions": upload})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send(400, {"error": "the object is not what it should be"})
        self.hub.store[oid] = body
        return self._send(200)

    def _commit(self, body: bytes, name: str, _: str) -> None:
        if (repository := self._repository(name, write=True)) is None:
            return None
        message, files = "", dict(repository.files)
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repository.commits[-1][0]):
                    return self._send(412, {"error": "a commit has happened since"})
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    return self._send(400, {"error": "the object was not uploaded"})
                files[value["path"]] = self.hub.store[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(message, files)
        return self._send(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid})

    def _resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        if (repository := self._repository(name)) is None:
            return None
        if (found := repository.at(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        oid, files = found
        if path not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content, headers = files[path], {"X-Repo-Commit": oid}
        if not is_large(path):
            return self._send(200, self.hub.sent(path, content), {**headers, "ETag": f'"{git_blob(content)}"'})
        digits = hashlib.sha256(content).hexdigest()
        self.hub.store[digits] = content
        headers |= {"X-Linked-Etag": f'"{digits}"', "X-Linked-Size": str(len(content))}
        return self._send(302, b"", {**headers, "Location": f"{self.hub.store_address}/{digits}"})

    def _stored(self, _: bytes, oid: str) -> None:
        if oid not in self.hub.store:
            return self._send(404)
        return self._send(200, self.hub.sent("model.safetensors", self.hub.store[oid]), {"ETag": f'"{oid}"'})


REPOSITORY = r"([\w.-]+/[\w.-]+?)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("GET", f"/api/models/{REPOSITORY}(?:/revision/(.+))?", _Handler._info),
    ("POST", f"/api/models/{REPOSITORY}/preupload/(.+)", _Handler._preupload),
    ("POST", f"/api/models/{REPOSITORY}/commit/(.+)", _Handler._commit),
    ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/store/([0-9a-f]{64})", _Handler._put),
    ("ANY", "/store/([0-9a-f]{64})", _Handler._stored),
    ("ANY", f"/{REPOSITORY}/resolve/([^/]+)/(.+)", _Handler._resolve),
]
