"""Tell which release a delta is, from what is known before any tensor is read.

Pure functions on plain values. They are conservative on purpose: the row policies zero and mean
give deltas of the same names and shapes (Vicuna v0 and Alpaca do), and the wrong one gives a model
that almost works, so shapes alone never choose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from weightsmith.catalogue.load import alias, load_releases
from weightsmith.catalogue.schema import HubRepo, Release, Rules, Signs
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.units import counted

EMBEDDINGS: Final = "model.embed_tokens.weight"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Recognition:
    """What the catalogue has to say about a delta."""

    release: Release | None
    """The release, if it is certain; else None."""
    rules: Rules | None
    """How to apply it; also known if all `candidates` are applied alike."""
    candidates: tuple[Release, ...]
    """The releases that it may be; only `release`, if that is known."""
    reason: str
    """Why, a sentence for the user."""


def match(
    *,
    repo_id: str | None,
    config: Mapping[str, object],
    delta_shapes: Shapes,
    base_shapes: Shapes,
) -> Recognition:
    """Tell which release a delta is, or may be.

    `repo_id` is a hub id without revision, or the name of a local directory (no slash), which
    counts only if it is a known repository's name to the letter and the shapes are like that
    release's. `config` is the delta's.
    """
    named = _by_name(repo_id, delta_shapes, base_shapes)
    if named is not None:
        return named
    extra = _delta_only(delta_shapes, base_shapes)
    alike = [
        release
        for release in load_releases()
        if release.signs is not None
        and _shows(release.signs, config)
        and _are_just(extra, release.whole)
    ]
    if alike:
        return _by_config(_of_this_size(alike, config))
    rows = _new_rows(delta_shapes, base_shapes)
    if rows is None or extra:
        return Recognition(None, None, (), "no known release has such names and shapes")
    if rows == 0:
        reason = "not a known release by its name; base and delta have the same shapes"
        return Recognition(None, None, (), reason)
    may_be = [
        release
        for release in load_releases()
        if release.encoding == "add" and _growth(release) in {rows, None}
    ]
    return Recognition(
        None,
        None,
        tuple(_of_this_size(may_be, config)),
        f"the delta has {counted(rows, 'vocabulary row')} that the base lacks, and shapes cannot"
        " tell how they are meant: releases count the base's missing rows as zero or as the mean"
        " of its rows, or store the embeddings whole",
    )


def contradictions(
    release: Release, *, new_rows: str | None = None, whole: Sequence[str] = ()
) -> list[str]:
    """Where `new_rows` and `whole` say otherwise than the catalogue, as sentences.

    ``None`` and ``"auto"`` leave the rows to the catalogue; a part of what the release stores whole
    is no contradiction.
    """
    says = f"(the catalogue on {release.name}: {release.confidence})"
    found = []
    if new_rows not in {None, "auto", release.new_rows}:
        fact = (
            "it adds no vocabulary rows to the base's"
            if release.new_rows == "none"
            else f"it counts the base's missing rows as {release.new_rows}"
        )
        found.append(f"`new_rows={new_rows}`: {fact} {says}")
    stored = "only " + " and ".join(release.whole) if release.whole else "nothing"
    found += (
        f"`whole={pattern}`: it stores {stored} whole {says}"
        for pattern in whole
        if not _matches(pattern, release.whole)
    )
    return found


def releases_named(name: str) -> list[tuple[Release, str]]:
    """Releases whose repository has this id, or this name part, with the repository's id."""
    return [
        (release, repo.id)
        for release in load_releases()
        for repo in release.hub
        if name.casefold() == repo.id.casefold() or name == repo.id.partition("/")[2]
    ]


def shows_signs(config: Mapping[str, object]) -> list[Release]:
    """Releases that a delta's config alone identifies, those of its size first."""
    alike = [r for r in load_releases() if r.signs is not None and _shows(r.signs, config)]
    return _of_this_size(alike, config)


def _by_name(repo_id: str | None, delta: Shapes, base: Shapes) -> Recognition | None:
    """By hub id, or by a directory named like a repository."""
    if repo_id is None:
        return None
    for release in load_releases():
        for repo in release.hub:
            if repo.id.casefold() == repo_id.casefold():
                reason = f"{repo.id} is {release.name}"
            elif repo.id.partition("/")[2] == repo_id and _agrees(release, delta, base):
                reason = (
                    f"taken for {release.name}, since the directory is named like {repo.id};"
                    " nothing else shows it"
                )
            else:
                continue
            return Recognition(release, release.rules, (release,), reason + _doubt(repo))
    return None


def _doubt(repo: HubRepo) -> str:
    return f" (unverified: {repo.note})" if repo.confidence == "unverified" else ""


def _by_config(alike: Sequence[Release]) -> Recognition:
    rules = {release.rules for release in alike}
    return Recognition(
        alike[0] if len(alike) == 1 else None,
        rules.pop() if len(rules) == 1 else None,
        tuple(alike),
        f"its config and the tensors that only the delta has are those of {alike[0].name}"
        + (f" and {len(alike) - 1} releases like it" if len(alike) > 1 else ""),
    )


def _agrees(release: Release, delta: Shapes, base: Shapes) -> bool:
    """Whether the shapes are like this release's; a file encoding shows none."""
    if release.encoding != "add":
        return not delta
    rows = _new_rows(delta, base)
    return (
        rows is not None
        and _growth(release) in {rows, None}
        and all(_matches(name, release.whole) for name in _delta_only(delta, base))
    )


def _shows(signs: Signs, config: Mapping[str, object]) -> bool:
    architectures = config.get("architectures")
    return (
        config.get("model_type") in signs.model_type
        or any(key in config for key in signs.keys)
        or (
            isinstance(architectures, list)
            and any(each in signs.architectures for each in architectures)
        )
    )


def _are_just(extra: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the tensors that only the delta has are those that the release stores whole."""
    return all(_matches(name, whole) for name in extra) and all(
        any(fnmatchcase(name, pattern) for name in extra) for pattern in whole
    )


def _of_this_size(releases: Sequence[Release], config: Mapping[str, object]) -> list[Release]:
    """Those whose base is as wide as the config says, or all if none is."""
    fitting = [
        release
        for release in releases
        if (base := alias(release.base)) is not None
        and base.hidden_size == config.get("hidden_size")
    ]
    return fitting or list(releases)


def _delta_only(delta: Shapes, base: Shapes) -> list[str]:
    return [name for name in delta if name not in base and not is_buffer(name, delta[name])]


def _new_rows(delta: Shapes, base: Shapes) -> int | None:
    """How many more rows the delta has, the same for all shapes that differ; None if they differ in
    another way.
    """
    grown = set()
    for name, shape in delta.items():
        ours = base.get(name, shape)
        if shape != ours:
            if not shape or not ours or shape[1:] != ours[1:] or shape[0] < ours[0]:
                return None
            grown.add(shape[0] - ours[0])
    if len(grown) > 1:
        return None
    return grown.pop() if grown else 0


def _growth(release: Release) -> int | None:
    """How many more vocabulary rows a release's files have than its base; None if not known."""
    base = alias(release.base)
    if release.vocab_size is not None and base is not None:
        return release.vocab_size - base.vocab_size
    return None if release.new_rows != "none" or EMBEDDINGS in release.whole else 0


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
