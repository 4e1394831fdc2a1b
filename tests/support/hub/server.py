"""A hub on loopback: what the real client uses of the API, and every way in which it can go wrong.

Large files (by suffix) are LFS files: `resolve` redirects to another host, as to the hub's CDN.
"""

import fnmatch
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub.uploads import Refusal, Uploads

LARGE = (".bin", ".safetensors", ".pth", ".gguf", ".model")


@dataclass
class Repo:
    """Commits by hash, names for them, and who may read."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    tokens: set[str] = field(default_factory=set)

    def at(self, revision: str) -> str:
        """The commit that a branch, a tag or itself is, if it is any."""
        return self.refs.get(revision) or self.refs.get(f"refs/tags/{revision}", revision)

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """A new commit of these files, to which `ref` moves."""
        content = repr(sorted((name, git_sha1(raw)) for name, raw in files.items()))
        name = git_sha1(f"{len(self.commits)}{content}".encode())
        self.commits[name] = dict(files)
        self.refs[ref] = name
        return name


@dataclass
class Fault:
    """Something that goes wrong for requests that match, so many times."""

    match: str
    """Of ``"GET /org/name/resolve/main/config.json"``, with wildcards."""
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    hold_at: int | None = None
    """Send nothing of the file from this byte on to who asks for one before it, until they have
    gone; take what is sent here, and say nothing.
    """
    held: threading.Event = field(default_factory=threading.Event)
    """Set as soon as somebody waits for the rest."""
    flip: int | None = None
    """Send this byte of the file wrong."""
    ignore_range: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    range: str | None
    token: str | None
    content: bytes = b""


class Hub:
    """The server; use it as a context manager."""

    def __init__(self) -> None:
        """Nothing is served yet."""
        self._hold_nothing()
        self.lock = threading.Lock()
        self._api = _serve(self, _Api)
        self._cdn = _serve(self, _Cdn)
        self.url = f"http://127.0.0.1:{self._api.server_port}"
        self.cdn_url = f"http://localhost:{self._cdn.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._api, self._cdn):
            server.shutdown()
            server.server_close()

    def settle(self) -> None:
        """Wait until every request of clients that have ended is noted; no other may be running."""
        for server in (self._api, self._cdn):
            server.settle()

    def forget(self) -> None:
        """Hold nothing, and let nothing go wrong."""
        self.settle()
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.accounts: dict[str, set[str]] = {}
        """By token, the organisations in which its owner may write."""
        self.objects: dict[str, bytes] = {}
        """Large files that were uploaded, by sha256."""
        self.lists_hashes = True
        """Whether a model's record has sizes and hashes, as it has not on some mirrors."""
        self.page_size = 1000
        """Entries in an answer that lists a commit's files."""
        self.before_answer: Callable[[Request], object] = lambda _: None
        """Called when an answer is decided, and none of it sent: what moves while somebody reads.
        """

    def forget_requests(self) -> None:
        """Count anew."""
        self.settle()
        self.faults.clear()
        self.requests.clear()

    def add(self, repo_id: str, files: Mapping[str, bytes] | Path, ref: str = "main") -> str:
        """Commit files, or those of a folder, to a repository; the commit's hash."""
        if isinstance(files, Path):
            found = (path for path in sorted(files.rglob("*")) if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        return self.repos.setdefault(repo_id, Repo()).commit(files, ref)

    def fail(self, match: str, **how: Any) -> Fault:
        """Let matching requests go wrong."""
        fault = Fault(match, **how)
        self.faults.append(fault)
        return fault

    def count(self, match: str) -> int:
        """How many requests so far match."""
        return sum(fnmatch.fnmatchcase(f"{r.method} {r.path}", match) for r in self.requests)

    def ranges(self, name: str) -> list[str | None]:
        """What was asked of the CDN of a file, in order."""
        return [r.range for r in self.requests if fnmatch.fnmatchcase(r.path, f"/cdn/*/{name}")]

    def fault_for(self, request: Request) -> Fault | None:
        """Note the request; the first fault that is due."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fnmatch.fnmatchcase(
                    f"{request.method} {request.path}", fault.match
                ):
                    fault.times -= 1
                    return fault
        return None


def git_sha1(raw: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()


def etag(name: str, raw: bytes) -> str:
    """What the hub calls a file of these bytes."""
    return hashlib.sha256(raw).hexdigest() if name.endswith(LARGE) else git_sha1(raw)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    hub: Hub

    def do_HEAD(self) -> None:
        self._take()

    def do_GET(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _take(self) -> None:
        path = unquote(urlsplit(self.path).path)
        kind, _, secret = (self.headers["Authorization"] or "").partition(" ")
        token = secret if kind == "Bearer" else None
        request = Request(self.command, path, self.headers["Range"], token, self._content())
        self.asked = request
        fault = self.hub.fault_for(request)
        if fault and self.command in {"POST", "PUT"} and not fault.status:
            self._fall_silent(fault)
        elif fault and fault.status:
            self._send(fault.status, fault.headers, fault.body)
        else:
            self._answer(request, fault or Fault("", 0))

    def _answer(self, request: Request, fault: Fault) -> None:
        raise NotImplementedError

    def _fall_silent(self, fault: Fault) -> None:
        """Hang up without an answer, at once or when the client has gone."""
        self.close_connection = True
        if fault.hold_at is not None:
            self._hold(fault)

    def _hold(self, fault: Fault) -> None:
        """Wait until the client hangs up, which sends nothing more."""
        self.close_connection = True
        self.wfile.flush()
        fault.held.set()
        self.rfile.read(1)

    def _content(self) -> bytes:
        """What came with the request, whole or in chunks."""
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        said = {"X-Error-Message": message} if message else {}
        self._send(status, {"X-Error-Code": code, **said}, b"{}")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._begin(status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.hub.before_answer(self.asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_file(self, raw: bytes, headers: dict[str, str], fault: Fault) -> None:
        """The file, or the range that was asked for, as whole as the fault lets it."""
        status, start, stop = 200, 0, len(raw)
        if self.headers["Range"] and not fault.ignore_range:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(raw)) if last else len(raw)
            if start >= len(raw):
                self._send(416, {"Content-Range": f"bytes */{len(raw)}"}, b"")
                return
            status = 206
            headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(raw)}"}
        if fault.flip is not None:
            raw = raw[: fault.flip] + bytes([raw[fault.flip] ^ 1]) + raw[fault.flip + 1 :]
        body = raw[start:stop]
        self._begin(status, {"Content-Length": str(len(body)), **headers})
        if self.command == "HEAD":
            return
        if fault.hold_at is not None and start < fault.hold_at < stop:
            self.wfile.write(body[: fault.hold_at - start])
            self._hold(fault)
            return
        sent = body[: fault.cut_after]
        self.wfile.write(sent)
        self.close_connection |= len(sent) < len(body)


class _Api(_Handler, Uploads):
    def _answer(self, request: Request, fault: Fault) -> None:
        if request.method == "POST":
            try:
                answer = self.written(request)
            except Refusal as refusal:
                self._refuse(*refusal.answer)
            else:
                as_json = {"Content-Type": "application/json"}
                self._send(200, as_json, json.dumps(answer).encode())
        elif request.path.startswith("/api/models/"):
            self._model(request.path.removeprefix("/api/models/"), request)
        elif "/resolve/" in request.path:
            self._resolve(request, fault)
        else:
            self._send(404, {}, b"")

    def _model(self, rest: str, request: Request) -> None:
        if "/tree/" in rest:
            self._tree(rest, request)
            return
        repo_id, _, what = rest.partition("/revision/")
        check, refs = rest.endswith("/auth-check"), rest.endswith("/refs")
        repo_id = repo_id.removesuffix("/auth-check").removesuffix("/refs")
        repo = self._readable(repo_id, request, gate=check)
        if repo is None:
            return
        if check:
            self._send(200, {}, b"OK")
            return
        if refs:
            as_json = {"Content-Type": "application/json"}
            self._send(200, as_json, json.dumps(_refs(repo)).encode())
            return
        commit = repo.at(what or "main")
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {what}")
            return
        siblings = [_sibling(name, raw) for name, raw in repo.commits[commit].items()]
        if not self.hub.lists_hashes:
            siblings = [{"rfilename": each["rfilename"]} for each in siblings]
        gated = "auto" if repo.gated else False
        answer = {"id": repo_id, "sha": commit, "gated": gated, "siblings": siblings}
        answer |= {"private": repo.private}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _tree(self, rest: str, request: Request) -> None:
        """A page of a commit's files and folders."""
        repo_id, _, commit = rest.partition("/tree/")
        repo = self._readable(repo_id, request, gate=False)
        if repo is None:
            return
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        entries = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}]
        entries += [_entry(_sibling(name, raw)) for name, raw in repo.commits[commit].items()]
        stop = start + self.hub.page_size
        headers = {"Content-Type": "application/json"}
        if stop < len(entries):
            url = f"{self.hub.url}/api/models/{rest}?recursive=true&cursor={stop}"
            headers["Link"] = f'<{url}>; rel="next"'
        self._send(200, headers, json.dumps(entries[start:stop]).encode())

    def _resolve(self, request: Request, fault: Fault) -> None:
        repo_id, _, rest = request.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        repo = self._readable(repo_id, request, gate=True)
        if repo is None:
            return
        commit = repo.at(revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        raw = repo.commits[commit].get(name)
        if raw is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(name, raw)}"'}
        if name.endswith(LARGE):
            headers |= {"X-Linked-Size": str(len(raw)), "X-Linked-ETag": f'"{etag(name, raw)}"'}
            headers |= {"Location": f"{self.hub.cdn_url}/cdn/{repo_id}/{commit}/{name}"}
            self._send(302, headers, b"")
        else:
            self._send_file(raw, headers, fault)

    def _readable(self, repo_id: str, request: Request, *, gate: bool) -> Repo | None:
        """The repository, if the one who asks may read it; otherwise it has been refused."""
        repo = self.hub.repos.get(repo_id)
        known = {token for other in self.hub.repos.values() for token in other.tokens}
        known |= self.hub.accounts.keys()
        if request.token and request.token not in known:
            self._refuse(401, "", "Invalid credentials in Authorization header")
            return None
        if repo is None or (repo.private and request.token not in repo.tokens):
            self._refuse(404 if request.token else 401, "RepoNotFound", "Repository not found")
            return None
        if gate and repo.gated and request.token not in repo.tokens:
            message = f"Access to model {repo_id} is restricted."
            self._refuse(403 if request.token else 401, "GatedRepo", message)
            return None
        return repo


class _Cdn(_Handler, Uploads):
    def _answer(self, request: Request, fault: Fault) -> None:
        if request.token:
            self._send(400, {}, b"a CDN must never see a token")
            return
        if request.method == "PUT":
            try:
                self.stored(request.path.removeprefix("/upload/"), request.content)
                self._send(200, {}, b"")
            except Refusal as refusal:
                self._refuse(*refusal.answer)
            return
        organisation, repository, commit, name = request.path.removeprefix("/cdn/").split("/", 3)
        raw = self.hub.repos[f"{organisation}/{repository}"].commits[commit][name]
        self._send_file(raw, {"ETag": '"an etag of the CDN, which is no hash"'}, fault)


def _sibling(name: str, raw: bytes) -> dict[str, Any]:
    record: dict[str, Any] = {"rfilename": name, "size": len(raw), "blobId": git_sha1(raw)}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(raw).hexdigest()
        record["lfs"] = {"size": len(raw), "sha256": sha256, "pointerSize": 134}
    return record


def _entry(sibling: dict[str, Any]) -> dict[str, Any]:
    """The same facts as a list of a commit's files has them."""
    size, oid = sibling["size"], sibling["blobId"]
    entry = {"type": "file", "path": sibling["rfilename"], "size": size, "oid": oid}
    if large := sibling.get("lfs"):
        entry["lfs"] = {"oid": large["sha256"], "size": size, "pointerSize": 134}
    return entry


def _refs(repo: Repo) -> dict[str, list[dict[str, str]]]:
    """All branches, tags and pull requests, as the hub lists them."""
    found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "pullRequests": []}
    for name, commit in repo.refs.items():
        ref = name if name.startswith("refs/") else f"refs/heads/{name}"
        kind = {"pr": "pullRequests", "tags": "tags", "heads": "branches"}[ref.split("/")[1]]
        short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        found[kind].append({"name": short, "ref": ref, "targetCommit": commit})
    return {**found, "converts": []}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100  # who finds no room in it waits for a second

    def __init__(self, handler: type[_Handler]) -> None:
        self.guests = 0
        self.change = threading.Condition()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.change:
            self.guests += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.change:
            self.guests -= 1
            self.change.notify_all()

    def settle(self) -> None:
        with socket.create_connection(
            ("127.0.0.1", self.server_port)
        ) as last:  # they are let in by turns
            last.sendall(b"\r\n")
            assert last.recv(1) == b""
        with self.change:
            assert self.change.wait_for(lambda: not self.guests, 120), "somebody has not gone"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are what these tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _serve(hub: Hub, kind: type[_Handler]) -> _Server:
    server = _Server(type(kind.__name__, (kind,), {"hub": hub}))
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    return server
