"""Push files to a repository on the hub in one commit, and check there what arrived."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith.errors import (
    LoginNeeded,
    PushedWrong,
    PushOffline,
    PushRefused,
    RepoNotFound,
    RevisionNotFound,
    UploadBroken,
    masked,
)
from weightsmith.hub.connection import Connection, list_repo
from weightsmith.hub.hashes import hash_bytes, hash_file
from weightsmith.hub.listing import Listing
from weightsmith.hub.resolve import DEFAULT_REVISION
from weightsmith.hub.translate_errors import page_of, translated
from weightsmith.hub.voice import library_heard
from weightsmith.progress import Progress
from weightsmith.units import format_size
from weightsmith.version import __version__

_LARGE_NBYTES: Final = 1_000_000
"""The upload of a file of this size or more is announced."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a push goes, and what is there before it."""

    repo_id: str
    revision: str
    listing: Listing | None
    """What is there, or at the start of a branch that is to be made; None where there is no such
    repository yet.
    """
    new_branch: bool
    """The revision is to be made, as a branch that starts at ``main``."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit adds, replaces and deletes."""

    message: str
    files: Mapping[str, Path | bytes]
    """Files to push, by name in the repository: a path on this machine, or the content."""
    deleted: tuple[str, ...] = ()
    private: bool = True
    """Whether the repository is private, if it has to be made."""
    create_pr: bool = False
    """Offer the commit in a pull request, for the repository's owner to take."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size
            for name, file in self.files.items()
        }


@dataclass(frozen=True, slots=True)
class Pushed:
    """A finished push, checked on the hub."""

    repo_id: str
    url: str
    revision: str
    commit: str
    files: tuple[str, ...]
    nbytes: int
    private: bool
    pull_request: str | None
    """The page of the pull request that holds the commit; None if it is on the branch."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "repo_id": self.repo_id,
            "url": self.url,
            "revision": self.revision,
            "commit": self.commit,
            "files": list(self.files),
            "nbytes": self.nbytes,
            "private": self.private,
            "pull_request": self.pull_request,
        }


def find_destination(connection: Connection, repo_id: str, revision: str) -> Destination:
    """Find out what is at the destination of a push; nothing is changed there.

    Raises: PushOffline; LoginNeeded, if there is no token; what `list_repo` raises, but for a
    repository or branch that is not there yet.
    """
    from huggingface_hub import get_token

    if connection.offline:
        raise PushOffline(repo=repo_id)
    if get_token() is None:
        hint = "hf auth login, with a token that may write; or set HF_TOKEN"
        raise LoginNeeded(repo=repo_id, reason="there is no token here", hint=hint)
    try:
        return Destination(repo_id, revision, list_repo(connection, repo_id, revision), False)
    except RepoNotFound:
        return Destination(repo_id, revision, None, revision != DEFAULT_REVISION)
    except RevisionNotFound:
        start = list_repo(connection, repo_id, DEFAULT_REVISION)
        return Destination(repo_id, revision, start, True)


def push(
    connection: Connection, destination: Destination, commit: Commit, progress: Progress
) -> Pushed:
    """Make the repository and branch where they are missing, upload, commit, and compare what the
    hub has then with what is here.

    Raises: AccessFault; PushRefused; RepoChanged, if it is not as `destination` says any more;
    HubUnreachable, HubBusy, UploadBroken; PushedWrong, if the hub has something else.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repo_id, revision, there = destination.repo_id, destination.revision, destination.listing
    api = HfApi(connection.endpoint, library_name="weightsmith", library_version=__version__)
    sizes = commit.sizes
    with _prepared(connection, progress), _translated(connection, destination):
        if there is None:
            # Never `exist_ok`: what somebody made meanwhile may be public.
            api.create_repo(repo_id, private=commit.private)
        if destination.new_branch:
            start = None if there is None else there.commit
            api.create_branch(repo_id, branch=revision, revision=start)
        progress.begin("uploading", sum(sizes.values()))
        additions = [CommitOperationAdd(name, file) for name, file in commit.files.items()]
        for addition in additions:
            # One by one: what has arrived is not sent again after an interruption, which the
            # library's threads, that it has for several, would not heed before all have ended.
            name = addition.path_in_repo
            if sizes[name] >= _LARGE_NBYTES:
                progress.note(f"uploading {name}, {format_size(sizes[name])}")
            api.preupload_lfs_files(
                repo_id,
                [addition],
                revision=revision,
                create_pr=commit.create_pr,
                free_memory=False,
            )
            progress.advance(sizes[name])
        made = api.create_commit(
            repo_id,
            [*additions, *map(CommitOperationDelete, commit.deleted)],
            commit_message=commit.message,
            revision=revision,
            create_pr=commit.create_pr,
            parent_commit=None if there is None else there.commit,
        )
    listing = list_repo(connection, repo_id, made.oid)
    _require_same(listing, commit, sizes, progress)
    return Pushed(
        repo_id=repo_id,
        url=f"{masked(connection.endpoint)}/{repo_id}",
        revision=revision,
        commit=made.oid,
        files=tuple(commit.files),
        nbytes=sum(sizes.values()),
        private=listing.private,
        pull_request=made.pr_url,
    )


def _require_same(
    listing: Listing, commit: Commit, sizes: Mapping[str, int], progress: Progress
) -> None:
    """Compare what the hub lists for a commit with the files on this machine.

    Raises: PushedWrong.
    """
    progress.begin("comparing with the hub", sum(sizes.values()))
    there = {file.name: file for file in listing.files}
    wrong = [f"{name} is still there" for name in commit.deleted if name in there]
    for name, content in commit.files.items():
        file = there.get(name)
        if file is None:
            wrong.append(f"{name} is not there")
        else:
            found = (
                hash_bytes(content, file.digest)
                if isinstance(content, bytes)
                else hash_file(content, file.digest)
            )
            if (file.nbytes, file.digest) != (sizes[name], found):
                wrong.append(f"{name} is {file.digest} there, {found} here")
        progress.advance(sizes[name])
    if wrong:
        raise PushedWrong(
            count=len(wrong), repo=listing.repo_id, commit=listing.commit[:12], context=wrong
        )


@contextlib.contextmanager
def _prepared(connection: Connection, progress: Progress) -> Iterator[None]:
    """Have the hub library draw no bars, say what it has to say to `progress`, and use Xet only
    where the connection does: for none of these has it an argument.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars, xet = not are_progress_bars_disabled(), constants.HF_HUB_DISABLE_XET
    with library_heard(progress.note), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        disable_progress_bars()
        constants.HF_HUB_DISABLE_XET = not connection.xet
        try:
            yield
        finally:
            constants.HF_HUB_DISABLE_XET = xet
            if bars:
                enable_progress_bars()
            for each in warned:
                if each.category is UserWarning:  # what the library does wrong is its own affair
                    progress.note("hub: " + " ".join(str(each.message).split()))


@contextlib.contextmanager
def _translated(connection: Connection, destination: Destination) -> Iterator[None]:
    """As `translate_errors.translated`, and for what the library raises for uploads alone."""
    from huggingface_hub.utils import httpx

    repo_id = destination.repo_id
    try:
        with translated(connection.endpoint, repo_id, destination.revision):
            try:
                yield
            except (RuntimeError, OSError) as error:
                # A large file's fault comes wrapped; one of Xet's storage as the library's own.
                cause = error.__cause__ if isinstance(error, RuntimeError) else error
                systems = isinstance(cause, OSError) and cause.errno is not None
                if cause is not None and (systems or isinstance(cause, httpx.HTTPError)):
                    raise cause from None
                reason = str(error).partition("\n")[0]
                raise UploadBroken(repo=repo_id, reason=reason) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise PushRefused(repo=repo_id, reason=reason, page=page_of(repo_id)) from error
