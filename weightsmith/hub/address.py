"""A model's address on the hub, as people paste it from a browser or from the hub's own tools."""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from weightsmith.errors import AddressNotModel

_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_PAGES: Final = {
    "blob": "a file in a repository",
    "resolve": "a file in a repository",
    "raw": "a file in a repository",
    "commits": "a repository's history",
    "discussions": "a discussion or a pull request",
    "settings": "a repository's settings",
}
"""What kind of page an address is of, by the word after ``org/name``."""
_OTHERS: Final = {
    "datasets": "a dataset",
    "spaces": "a space",
    "buckets": "a bucket",
    "papers": "a paper",
    "collections": "a collection",
    "docs": "a page of documentation",
}
_ADDRESS: Final = re.compile(r"(https?|hf)://", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Whether `text` is an address at all: ``https://...`` or ``hf://...``."""
    return _ADDRESS.match(text) is not None


def source_of(address: str, endpoint: str = "") -> str:
    """``https://huggingface.co/org/name/tree/REV`` or ``hf://models/org/name@REV`` as
    ``org/name@REV``.

    The hub's own host and that of `endpoint` are known.
    Raises: AddressNotModel, for the address of anything but a model's repository.
    """
    parts = urlsplit(address)
    if parts.scheme.lower() == "hf":
        words = [parts.netloc, *parts.path.split("/")]
        words = words[1:] if words[0] == "models" else words
        return _named(address, [unquote(word) for word in words if word])
    if parts.netloc.lower() not in {*_HOSTS, urlsplit(endpoint).netloc.lower()}:
        raise AddressNotModel(address=address, what="of another host than the hub")
    words = [unquote(word) for word in parts.path.split("/") if word]
    return _named(address, words[1:] if words[:1] == ["models"] else words)


def _named(address: str, words: list[str]) -> str:
    """The source that the words of an address's path name."""
    if words and words[0] in _OTHERS:
        raise AddressNotModel(address=address, what=f"of {_OTHERS[words[0]]}")
    if len(words) < 2:
        raise AddressNotModel(address=address, what="of no repository")
    repo_id, page = "/".join(words[:2]), words[2:]
    if not page:
        return repo_id
    if page[0] == "tree" and len(page) > 1:
        # A branch may hold slashes; a folder below a revision has no model of its own here.
        return f"{repo_id}@{'/'.join(page[1:])}"
    if page[0] == "discussions" and page[1:2]:
        hint = f"a pull request's files: {repo_id}@refs/pr/{page[1]}"
        raise AddressNotModel(address=address, what=f"of {_PAGES['discussions']}", hint=hint)
    what = _PAGES.get(page[0], "something in a repository")
    raise AddressNotModel(address=address, what=f"of {what}", hint=f"the model itself: {repo_id}")
