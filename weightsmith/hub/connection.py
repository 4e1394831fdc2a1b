"""Where the hub is, what a repository holds there, and how to ask for it."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urljoin

from weightsmith.errors import AnswerNotFromHub, DamagedInput, FileNameUnsafe, masked
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES
from weightsmith.formats.strict_json import parse_json
from weightsmith.hub.hashes import hash_bytes, require_digest
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.translate_errors import translated
from weightsmith.units import format_size
from weightsmith.version import __version__

PUBLIC_ENDPOINTS: Final = ("https://huggingface.co", "https://hf.co")
ANSWER_LIMIT_NBYTES: Final = 64_000_000
"""Most bytes of an unpacked answer; a list of 300,000 files has fewer."""
PAGES: Final = 200
"""The most pages that a list of files may have."""
RETRIES: Final = 3
"""How often a listing is asked for again; a file is asked for more patiently."""

_HEX: Final = re.compile(r"[0-9a-f]+")
_UNSAFE_PART: Final = re.compile(r"\.{0,2}|.*[\\:\x00-\x1f\x7f].*", re.DOTALL)
"""Empty, dots, or with a separator, a drive's colon or a control character of any system."""


Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Connection:
    """A hub, the cache before it, and whether the network may be used."""

    endpoint: str
    cache: Path
    offline: bool
    xet: bool
    """Whether files may come from Xet, a storage beside the endpoint that the hub prefers."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the hub is reached."""


def connect(
    *,
    endpoint: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Connection:
    """The hub as arguments, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_HUB_DISABLE_XET say.

    Xet's storage does not stand behind a mirror: there it is used only if the user says so.
    """
    from huggingface_hub import constants

    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    offline = offline or constants.is_offline_mode()
    installed = importlib.util.find_spec("hf_xet") is not None
    xet = installed and not constants.HF_HUB_DISABLE_XET and not offline
    notes = []
    if xet and endpoint not in PUBLIC_ENDPOINTS and "HF_HUB_DISABLE_XET" not in os.environ:
        xet = False
        shown = masked(endpoint)
        notes.append(
            f"files are fetched from {shown} alone, without Xet, which is faster but asks other "
            "hosts (HF_HUB_DISABLE_XET=0 allows it)"
        )
    return Connection(
        endpoint=endpoint,
        cache=Path(cache or constants.HF_HUB_CACHE).expanduser().absolute(),
        offline=offline,
        xet=xet,
        notes=tuple(notes),
    )


def request_headers() -> dict[str, str]:
    """Headers of a request to the hub: who asks, and the token of HF_TOKEN or ``hf auth login``."""
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers(library_name="weightsmith", library_version=__version__)
    return {**headers, "Accept-Encoding": "identity"}


def file_url(connection: Connection, listing: Listing, name: str) -> str:
    """Where a file's bytes are."""
    return f"{connection.endpoint}/{listing.repo_id}/resolve/{listing.commit}/{quote(name)}"


def list_repo(connection: Connection, repo_id: str, revision: str) -> Listing:
    """Ask the hub for a revision's commit and all its files with their hashes.

    One answer has both. A mirror that leaves the hashes out is asked for the files of the commit
    that it names; so files of two commits can never be mixed.
    Raises: RepoNotFound, RevisionNotFound, RepoGated, LoginNeeded, AccessDenied, HubUnreachable,
    HubBusy; AnswerNotFromHub, if it is not a hub's answer; FileNameUnsafe, if it names one outside.
    """
    api = f"{connection.endpoint}/api/models/{repo_id}"
    url = f"{api}/revision/{quote(revision, safe='')}?blobs=true"

    def parse(content: Any) -> tuple[Listing, bool]:
        return _parse_listing(repo_id, revision, content), bool(content.get("gated"))

    listing, gated = _ask(connection, url, repo_id, revision, "files", parse)
    if any(not file.digest for file in listing.files):
        files = tuple(_tree(connection, repo_id, listing.commit))
        listing = dataclasses.replace(listing, files=files)
    unsafe = [file.name for file in listing.files if not is_safe_name(file.name)]
    if unsafe:
        raise FileNameUnsafe(repo=repo_id, name=unsafe[0], context=unsafe[1:])
    if gated:
        _get(connection, f"{api}/auth-check", repo_id, revision)
    return listing


def _tree(connection: Connection, repo_id: str, commit: str) -> Iterator[RepoFile]:
    """The files of a commit, page by page.

    Raises: as `list_repo`.
    """
    url = f"{connection.endpoint}/api/models/{repo_id}/tree/{commit}?recursive=true"
    start = url
    for _ in range(PAGES):
        response = _get(connection, url, repo_id, commit)
        yield from _parsed(connection, response, repo_id, "files", _parse_tree)
        following = response.links.get("next", {}).get("url")
        if following is None:
            return
        url = urljoin(url, following)
        if url.partition("?")[0] != start.partition("?")[0]:
            reason = "the next page of its list lies elsewhere"
            raise AnswerNotFromHub(endpoint=connection.endpoint, reason=reason)
    reason = f"its list of {repo_id}'s files has more than {PAGES} pages"
    raise AnswerNotFromHub(endpoint=connection.endpoint, reason=reason)


def list_branches(connection: Connection, repo_id: str) -> frozenset[str]:
    """Names of a repository's branches, and of its pull requests, ``refs/pr/1``: commits can be
    added to these, and to no tag or other commit.

    Raises: as `list_repo`.
    """
    url = f"{connection.endpoint}/api/models/{repo_id}/refs?include_prs=1"

    def parse(content: Any) -> frozenset[str]:
        refs = (each["ref"] for each in (*content["branches"], *content["pullRequests"]))
        return frozenset(ref.removeprefix("refs/heads/") for ref in refs)

    return _ask(connection, url, repo_id, "", "branches", parse)


def is_web_page(headers: Mapping[str, str]) -> bool:
    """Whether an answer is a page for people, as proxies and login pages send."""
    return headers.get("Content-Type", "").partition(";")[0].strip() == "text/html"


def is_safe_name(name: str) -> bool:
    """Whether a file of this name lands inside its repository's directory, on every system."""
    return not any(_UNSAFE_PART.fullmatch(part) for part in name.split("/"))


def read_file(connection: Connection, listing: Listing, file: RepoFile) -> bytes:
    """A small file's bytes, checked, without writing anything.

    Raises: as `list_repo`; HashMismatch.
    """
    url = file_url(connection, listing, file.name)
    repo = (listing.repo_id, listing.revision, file.name)
    content = _get(connection, url, *repo, limit_nbytes=MAX_HEADER_NBYTES).content
    require_digest(file, hash_bytes(content, file.digest))
    return bytes(content)


def read_range(
    connection: Connection, listing: Listing, file: RepoFile, start: int, stop: int
) -> bytes:
    """Bytes `start` to `stop` of a file, unchecked: only the whole has a hash.

    Raises: as `list_repo`; AnswerNotFromHub, if what comes is not that range.
    """
    if start == stop:
        return b""
    url = file_url(connection, listing, file.name)
    wanted = {"Range": f"bytes={start}-{stop - 1}"}
    repo = (listing.repo_id, listing.revision, file.name)
    limit = max(stop - start, ANSWER_LIMIT_NBYTES)
    content = bytes(_get(connection, url, *repo, headers=wanted, limit_nbytes=limit).content)
    if len(content) == file.nbytes:  # a server without ranges sends all of it
        content = content[start:stop]
    if len(content) != stop - start:
        reason = f"it sends {len(content)} bytes for {stop - start} of {file.name}"
        raise AnswerNotFromHub(endpoint=connection.endpoint, reason=reason)
    return content


def _get(
    connection: Connection,
    url: str,
    repo_id: str,
    revision: str,
    file: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    limit_nbytes: int = ANSWER_LIMIT_NBYTES,
) -> Any:
    """The hub's answer to a question, after some patience.

    Raises: AnswerNotFromHub, if it comes to more than `limit_nbytes`; what `translated` raises.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff, httpx

    with (
        translated(connection.endpoint, repo_id, revision, file),
        http_stream_backoff(
            "GET",
            url,
            headers={**request_headers(), **(headers or {})},
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            max_retries=RETRIES,
        ) as answer,
    ):
        content = bytearray()
        for piece in answer.iter_bytes():  # unpacked, whatever it was packed with
            content += piece
            if len(content) > limit_nbytes:
                reason = f"it sends more than {format_size(limit_nbytes)} for an answer"
                raise AnswerNotFromHub(endpoint=connection.endpoint, reason=reason)
        packed = {"content-encoding", "content-length", "transfer-encoding"}
        kept = [(name, each) for name, each in answer.headers.items() if name.lower() not in packed]
        response = httpx.Response(
            answer.status_code, headers=kept, content=bytes(content), request=answer.request
        )
        hf_raise_for_status(response)
    return response


def _ask(
    connection: Connection,
    url: str,
    repo_id: str,
    revision: str,
    what: str,
    parse: Callable[[Any], Answer],
) -> Answer:
    """The hub's answer to a question about `what`, as `parse` reads it."""
    return _parsed(connection, _get(connection, url, repo_id, revision), repo_id, what, parse)


def _parsed(
    connection: Connection, response: Any, repo_id: str, what: str, parse: Callable[[Any], Answer]
) -> Answer:
    """Raises: AnswerNotFromHub, if it is no answer of a hub."""
    if is_web_page(response.headers):
        raise AnswerNotFromHub(endpoint=connection.endpoint, reason="it sends a web page")
    try:
        return parse(parse_json(response.content, "its answer"))
    except DamagedInput as error:  # whatever it is that is no JSON
        raise AnswerNotFromHub(endpoint=connection.endpoint, reason=str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"its list of {repo_id}'s {what} makes no sense"
        raise AnswerNotFromHub(endpoint=connection.endpoint, reason=reason) from error


def _parse_listing(repo_id: str, revision: str, content: object) -> Listing:
    """A model's record; of a mirror that knows no hashes, files of size 0 without any.

    Raises: KeyError, TypeError, ValueError, if `content` is no model's record.
    """
    if not isinstance(content, dict):
        raise TypeError(content)
    entries = content["siblings"]
    if all("blobId" in entry or entry.get("lfs") for entry in entries):
        files = [_file(each["rfilename"], each, each.get("blobId")) for each in entries]
    else:
        files = [RepoFile(_text(each["rfilename"]), 0, "") for each in entries]
    private = content.get("private") is True
    return Listing(repo_id, revision, _hex(content["sha"], 40), tuple(files), private)


def _parse_tree(content: object) -> list[RepoFile]:
    """Raises: KeyError, TypeError, ValueError, if `content` is no page of a commit's files."""
    if not isinstance(content, list):
        raise TypeError(content)
    files = (entry for entry in content if entry["type"] == "file")
    return [_file(entry["path"], entry, entry.get("oid")) for entry in files]


def _file(name: object, entry: Mapping[str, Any], blob_id: Any) -> RepoFile:
    """A file from what says its size and hash; of a large one, its sha256 under either name."""
    large = entry.get("lfs")
    nbytes = large["size"] if large else entry["size"]
    if type(nbytes) is not int or nbytes < 0:
        raise TypeError(entry)
    sha256 = (large.get("sha256") or large["oid"]) if large else None
    digest = _hex(blob_id, 40) if sha256 is None else _hex(sha256, 64)
    return RepoFile(_text(name), nbytes, digest)


def _text(name: object) -> str:
    """Raises: TypeError, if it is none."""
    if not isinstance(name, str):
        raise TypeError(name)
    return name


def _hex(text: str, length: int) -> str:
    """`text` if it is a hash; hashes become names of files, so nothing else may pass.

    Raises: TypeError, ValueError.
    """
    if not _HEX.fullmatch(text) or len(text) != length:
        raise ValueError(text)
    return text
