"""The files of a repository, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository at one commit."""

    name: str
    nbytes: int
    digest: str
    """sha256 of a large file, git's blob id (40 digits) of a small one; empty if nobody knows."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a repository at one commit."""

    repo_id: str
    revision: str
    commit: str
    files: tuple[RepoFile, ...]
    private: bool = False
    """Whether the repository is private, as the hub said."""
