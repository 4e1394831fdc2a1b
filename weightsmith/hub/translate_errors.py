"""The hub library's exceptions as weightsmith's own, in one place."""

import contextlib
from collections.abc import Iterator
from typing import Any

from weightsmith.errors import (
    AccessDenied,
    AnswerNotFromHub,
    DownloadBroken,
    HubBusy,
    HubUnreachable,
    LoginNeeded,
    NotCached,
    PushRefused,
    RepoChanged,
    RepoGated,
    RepoNotFound,
    RevisionNotFound,
    WeightsmithError,
)


@contextlib.contextmanager
def translated(
    endpoint: str, repo_id: str, revision: str, file: str | None = None
) -> Iterator[None]:
    """Turn what the hub library and its transport raise into our errors, not the system's."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, OfflineModeIsEnabled, OSError) as error:
        fault = _fault(error, endpoint, repo_id, revision, file)
        if fault is None:
            raise
        raise fault from error


def page_of(repo_id: str) -> str:
    """Where people read about a repository; licences are accepted there, not at a mirror."""
    return f"https://huggingface.co/{repo_id}"


def _fault(
    error: BaseException | None, endpoint: str, repo_id: str, revision: str, file: str | None
) -> WeightsmithError | None:
    """The fault behind an exception; None for the system's own, a full disk say."""
    from huggingface_hub import errors as hub
    from huggingface_hub.utils import httpx

    page = page_of(repo_id)
    match error:
        case hub.GatedRepoError():
            return RepoGated(repo=repo_id, page=page)
        case hub.RepositoryNotFoundError():
            return RepoNotFound(repo=repo_id)
        case hub.DisabledRepoError():
            return RepoNotFound(repo=repo_id, context=["the hub has disabled access to it"])
        case hub.RevisionNotFoundError() if file is not None:
            return RepoChanged(repo=repo_id, reason="the commit is gone")
        case hub.RevisionNotFoundError():
            return RevisionNotFound(repo=repo_id, revision=revision, page=page)
        case hub.RemoteEntryNotFoundError():
            return RepoChanged(repo=repo_id, reason=f"{file} is gone")
        case hub.HfHubHTTPError():
            return _refusal(error, endpoint, repo_id)
        case hub.OfflineModeIsEnabled():
            return NotCached(what=repo_id)
        case hub.FileMetadataError():
            return AnswerNotFromHub(endpoint=endpoint, reason=f"it sends no hash for {file}")
        case hub.LocalEntryNotFoundError():
            # The library's word for "and the cache does not have it either"; the cause says why.
            cause = _fault(error.__cause__, endpoint, repo_id, revision, file)
            return cause or HubUnreachable(endpoint=endpoint, reason=f"no answer about {file}")
        case httpx.ProxyError():
            return HubUnreachable(endpoint=endpoint, reason=f"the proxy says: {error}")
        case httpx.TimeoutException():
            return HubUnreachable(endpoint=endpoint, reason="it does not answer in time")
        case httpx.HTTPError() | httpx.InvalidURL():
            return HubUnreachable(endpoint=endpoint, reason=str(error) or type(error).__name__)
        case OSError(errno=None):
            # Of the library's own making: a length that is not the announced one.
            return DownloadBroken(file=file, reason=str(error).partition("\n")[0])
    return None


def _refusal(error: Any, endpoint: str, repo_id: str) -> WeightsmithError:
    """What a refused request means, by its status."""
    response = error.response
    status: int = response.status_code
    said = response.headers.get("X-Error-Message") or f"HTTP status {status}"
    writing = response.request.method in {"POST", "PUT"}
    page = page_of(repo_id)
    match status:
        case 401:
            return LoginNeeded(repo=repo_id, reason=said)
        case 403:
            hint = "check that your token may write there: hf auth whoami" if writing else None
            return AccessDenied(repo=repo_id, reason=said, page=page, hint=hint)
        case 404:
            return RepoNotFound(repo=repo_id)
        case 409 | 412:  # it was made, or went on, since we looked
            return RepoChanged(repo=repo_id, reason=said)
        case 429:
            wait = response.headers.get("Retry-After", "")
            when = f"in {wait} seconds" if wait.isdecimal() else "in some minutes"
            return HubBusy(endpoint=endpoint, reason="it was asked too often", when=when)
        case _ if status >= 500 or status == 408:
            return HubBusy(endpoint=endpoint, reason=f"HTTP status {status}", when="later")
        case _ if writing:
            return PushRefused(repo=repo_id, reason=said, page=page)
    return AnswerNotFromHub(endpoint=endpoint, reason=said)
