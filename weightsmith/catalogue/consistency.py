"""Check that the catalogue's entries fit together; `page.render` refuses those that do not."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from weightsmith.catalogue.schema import Base, Checksums, HubRepo, PromptTemplate, Release, Signs

_ID: Final = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_REPO_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST: Final = {"md5": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_EMBEDDINGS: Final = "model.embed_tokens.weight"


def inconsistencies(
    bases: Sequence[Base], releases: Sequence[Release], prompts: Sequence[PromptTemplate]
) -> list[str]:
    """What does not fit, as sentences: names that lead nowhere or are there twice, hashes of the
    wrong length, rules that clash.
    """
    repositories = [repo.id.casefold() for release in releases for repo in release.hub]
    faults = [
        *_repeated("alias", (base.alias for base in bases)),
        *_repeated("release", (release.id for release in releases)),
        *_repeated("prompt", (prompt.id for prompt in prompts)),
        *_repeated("repository", repositories),
        *_repeated("repository name", (each.partition("/")[2] for each in repositories)),
    ]
    aliases = {base.alias: base for base in bases}
    prompt_ids = {prompt.id for prompt in prompts}
    for base in bases:
        found = (*_id_faults(base.alias, base.sources), *_hub_faults(base.hub, base.checksums))
        faults += (f"{base.alias}: {fault}" for fault in found)
    for release in releases:
        found = (
            *_id_faults(release.id, release.sources),
            *_hub_faults(release.hub, release.checksums),
            *_release_faults(release, aliases.get(release.base), prompt_ids),
        )
        faults += (f"{release.id}: {fault}" for fault in found)
    for prompt in prompts:
        found = (*_id_faults(prompt.id, prompt.sources), *_prompt_faults(prompt))
        faults += (f"{prompt.id}: {fault}" for fault in found)
    return faults


def _id_faults(name: str, sources: Sequence[str]) -> Iterator[str]:
    if not _ID.fullmatch(name):
        yield "an id is lower-case letters and digits, joined by - or ."
    if not sources:
        yield "no source"


def _hub_faults(hub: Iterable[HubRepo], checksums: Iterable[Checksums]) -> Iterator[str]:
    for repo in hub:
        if not _REPO_ID.fullmatch(repo.id):
            yield f"{repo.id} is no hub id"
    for group in checksums:
        for file, digest in group.files.items():
            if not _DIGEST[group.algorithm].fullmatch(digest):
                yield f"{file}: {digest} is no {group.algorithm}"


def _release_faults(release: Release, base: Base | None, prompts: set[str]) -> Iterator[str]:
    if base is None:
        yield f"no base {release.base}"
    if release.prompt is not None and release.prompt not in prompts:
        yield f"no prompt {release.prompt}"
    if (release.encoding == "add") != (release.dtype is not None):
        yield "dtype belongs to the encoding add, and to it alone"
    if (release.encoding == "keystream-file") != (release.key is not None):
        yield "key belongs to the encoding keystream-file, and to it alone"
    if release.encoding != "add" and (release.new_rows != "none" or release.whole):
        yield "a file encoding has neither new rows nor whole tensors"
    if release.encoding == "add" and release.vocab_size is not None and base is not None:
        grows = release.vocab_size > base.vocab_size and _EMBEDDINGS not in release.whole
        if grows != (release.new_rows != "none"):
            yield f"{release.vocab_size} rows on {base.vocab_size} with new_rows {release.new_rows}"
    if release.signs == Signs():
        yield "signs that say nothing"


def _prompt_faults(prompt: PromptTemplate) -> Iterator[str]:
    if prompt.template.count("{prompt}") != 1:
        yield "the template needs {prompt} once"
    if ("{system}" in prompt.template) != bool(prompt.system):
        yield "system text and {system} come together"


def _repeated(what: str, names: Iterable[str]) -> list[str]:
    return [f"{what} {name} is there {n} times" for name, n in Counter(names).items() if n > 1]
