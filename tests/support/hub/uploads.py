"""The half of the loopback hub that takes files: repositories, branches, LFS objects, commits.

As the hub does, it wants a token that may write, keeps large files apart from commits under their
sha256, and moves no branch for a pull request.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml  # type: ignore[import-untyped]  # transformers and the hub library bring it

if TYPE_CHECKING:
    from tests.support.hub.server import Hub, Repo, Request

GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
CREATE, VALIDATE = "/api/repos/create", "/api/validate-yaml"
BATCH = ".git/info/lfs/objects/batch"


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.answer = (status, code, message)


class Uploads:
    """What the API answers to a POST."""

    hub: "Hub"
    path: str

    def written(self, request: "Request") -> dict[str, Any]:
        """Do what a request asks.

        Raises: Refusal.
        """
        path, token, body = request.path, request.token, request.content
        if token is None:
            raise Refusal(401, message="Invalid username or password.")
        if token not in self.hub.accounts:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        if path == CREATE:
            return self._create(token, json.loads(body))
        if path == VALIDATE:
            return validated(json.loads(body)["content"])
        if path.endswith(BATCH):
            self._writable(path[1 : -len(BATCH)], token, as_guest=True)
            return self._batch(json.loads(body)["objects"])
        repo_id, verb, name = parts(path.removeprefix("/api/models/"))
        query = parse_qs(urlsplit(self.path).query)
        repo = self._writable(repo_id, token, as_guest="create_pr" in query)
        if verb == "preupload":
            return preupload(repo, name, json.loads(body)["files"])
        if verb == "branch":
            start = json.loads(body).get("startingPoint", "main")
            if name in repo.refs:
                raise Refusal(409, message="Reference already exists")
            repo.refs[name] = repo.refs.get(start, start)
            return {}
        lines = [json.loads(line) for line in body.splitlines()]
        return self._commit(repo_id, repo, name, lines, create_pr="create_pr" in query)

    def stored(self, name: str, body: bytes) -> None:
        """Keep a large file, if it is the one that was announced.

        Raises: Refusal.
        """
        if hashlib.sha256(body).hexdigest() != name:
            raise Refusal(400, message="the content has another sha256")
        self.hub.objects[name] = body

    def _create(self, token: str, wish: dict[str, Any]) -> dict[str, Any]:
        from tests.support.hub.server import Repo

        repo_id = f"{wish['organization']}/{wish['name']}"
        if wish["organization"] not in self.hub.accounts[token]:
            message = "You don't have the rights to create a model under this namespace"
            raise Refusal(403, message=message)
        if repo_id in self.hub.repos:
            raise Refusal(409, message="You already created this model repo")
        private = wish.get("private") is True or wish.get("visibility") == "private"
        repo = self.hub.repos[repo_id] = Repo(private=private, tokens={token})
        repo.commit({".gitattributes": GIT_ATTRIBUTES})
        return {"url": f"{self.hub.url}/{repo_id}", "id": repo_id}

    def _writable(self, repo_id: str, token: str, *, as_guest: bool = False) -> "Repo":
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and token not in repo.tokens):
            raise Refusal(404, "RepoNotFound", "Repository not found")
        owner = repo_id.partition("/")[0] in self.hub.accounts[token]
        if not owner and not as_guest and token not in repo.tokens:
            raise Refusal(403, message="Forbidden: pass `create_pr=1` to open a pull request")
        return repo

    def _batch(self, objects: Iterable[dict[str, Any]]) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        for each in objects:
            oid = each["oid"]
            found.append({"oid": oid, "size": each["size"]})
            if oid not in self.hub.objects:
                href = f"{self.hub.cdn_url}/upload/{oid}"
                found[-1]["actions"] = {"upload": {"href": href, "header": {}}}
        return {"transfer": "basic", "objects": found}

    def _commit(
        self,
        repo_id: str,
        repo: "Repo",
        ref: str,
        lines: list[dict[str, Any]],
        *,
        create_pr: bool,
    ) -> dict[str, Any]:
        if ref not in repo.refs:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {ref}")
        header, *operations = lines
        parent = header["value"].get("parentCommit")
        if parent is not None and not create_pr and repo.refs[ref] != parent:
            raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[repo.refs[ref]])
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refusal(400, message="Your push referenced an unknown LFS file")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(each.startswith("refs/pr/") for each in repo.refs)
        commit = repo.commit(files, f"refs/pr/{number}" if create_pr else ref)
        page = f"{self.hub.url}/{repo_id}"
        return {
            "success": True,
            "commitOid": commit,
            "commitUrl": f"{page}/commit/{commit}",
            **({"pullRequestUrl": f"{page}/discussions/{number}"} if create_pr else {}),
        }


def parts(path: str) -> tuple[str, str, str]:
    """``org/name/commit/main`` -> ``("org/name", "commit", "main")``."""
    organisation, name, verb, rest = path.split("/", 3)
    return f"{organisation}/{name}", verb, rest


def preupload(repo: "Repo", ref: str, files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How each file wants to be sent, and what of it is there already."""
    from tests.support.hub.server import LARGE, etag

    there = repo.commits.get(repo.refs.get(ref, ref), {})
    return {
        "files": [
            {
                "path": name,
                "uploadMode": "lfs" if name.endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": etag(name, there[name]) if name in there else None,
            }
            for name in (each["path"] for each in files)
        ]
    }


def validated(card: str) -> dict[str, Any]:
    """What the hub says of a model card's metadata.

    Raises: Refusal, if it is none.
    """
    _, fence, rest = card.partition("---\n")
    metadata = yaml.safe_load(rest.partition("\n---\n")[0]) if fence else None
    if not isinstance(metadata, dict):
        raise Refusal(400, message="Invalid metadata")
    relations = {"adapter", "finetune", "merge", "quantized"}
    if metadata.get("base_model_relation", "adapter") not in relations:
        raise Refusal(400, message='"base_model_relation" is none of those')
    return {"errors": [], "warnings": []}
