"""The page ``docs/reference/catalogue.md``: all that the catalogue knows, for people."""

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from weightsmith.catalogue.consistency import inconsistencies
from weightsmith.catalogue.load import load_bases, load_prompts, load_releases
from weightsmith.catalogue.schema import (
    MEANINGS,
    Base,
    Checksums,
    HubRepo,
    PromptTemplate,
    PublishedSum,
    Release,
)
from weightsmith.errors import CatalogueInvalid

_GENERATED: Final = "<!-- Generated from `weightsmith/catalogue/`; edit the TOML files there. -->"
_ABOUT: Final = """\
What weightsmith knows of published deltas, and of the models that they were made against.
A release is an entry of a TOML file in `weightsmith/catalogue/releases/`.
Adding one is adding a file."""
_COLUMNS: Final = """\
Sum in: the dtype of the published script's arithmetic.
New rows: how the base's missing vocabulary rows count.
Stored whole: tensors that are no difference."""
_NONE: Final = "–"
_FILES: Final = {
    "meta": "Meta's",
    "huggingface": "converted",
    "delta": "the release's",
    "result": "decoded",
}


def render() -> str:
    """The page as Markdown.

    Raises: CatalogueInvalid, if entries do not go together.
    """
    bases, releases, prompts = load_bases(), load_releases(), load_prompts()
    faults = inconsistencies(bases, releases, prompts)
    if faults:
        raise CatalogueInvalid(count=len(faults), context=faults)
    sections = [
        "# Catalogue",
        _GENERATED,
        _ABOUT,
        "## How sure it is",
        "\n".join(f"- **{word}**: {meaning}" for word, meaning in MEANINGS.items()),
        "## Releases",
        _COLUMNS,
        _table(
            ("Release", "Hub", "Base", "Encoding", "Sum in", "New rows", "Stored whole", "Sure"),
            (_release_row(release) for release in releases),
        ),
        "## Bases",
        _table(
            ("Alias", "Model", "Layers", "Width", "Inner", "Heads", "Rows", "Context", "norm eps"),
            (_base_row(base) for base in bases),
        ),
        *(part for base in bases for part in _base_details(base)),
        "## What is known of each release",
        *(part for release in releases for part in _release_details(release)),
        "## Prompt templates",
        *(part for prompt in prompts for part in _prompt_details(prompt)),
    ]
    return "\n\n".join(sections) + "\n"


def _release_row(release: Release) -> Sequence[str]:
    return (
        f"[{release.name}](#{_anchor(release.id)})",
        f"`{release.hub[0].id}`" if release.hub else _NONE,
        release.base,
        release.encoding,
        release.dtype or _NONE,
        release.new_rows,
        "<br>".join(f"`{pattern}`" for pattern in release.whole) or _NONE,
        release.confidence,
    )


def _base_row(base: Base) -> Sequence[str]:
    return (
        f"`{base.alias}`",
        base.name,
        str(base.num_hidden_layers),
        str(base.hidden_size),
        str(base.intermediate_size),
        str(base.num_attention_heads),
        str(base.vocab_size),
        str(base.max_position_embeddings),
        f"{base.rms_norm_eps:g}",
    )


def _base_details(base: Base) -> Iterator[str]:
    yield f"### {base.alias}"
    yield _bullets(
        *_hub_lines(base.hub),
        *_checksum_lines(base.checksums),
        *base.notes,
        *(f"Source: {source}" for source in base.sources),
    )


def _release_details(release: Release) -> Iterator[str]:
    yield f"### {release.id}"
    rows = f"Embeddings of {release.vocab_size} rows." if release.vocab_size else ""
    prompt = f"Prompt: [{release.prompt}](#{_anchor(release.prompt)})." if release.prompt else ""
    key = f"Key: the base's `{release.key}`." if release.key else ""
    yield _bullets(
        *_hub_lines(release.hub),
        f"Tokenizer from the {release.tokenizer}.",
        *filter(None, (rows, key, prompt)),
        *(_sum_line(each) for each in release.sums),
        *_checksum_lines(release.checksums),
        *release.notes,
        *(f"Source: {source}" for source in release.sources),
    )


def _prompt_details(prompt: PromptTemplate) -> Iterator[str]:
    yield f"### {prompt.id}"
    yield "```text\n" + prompt.fill("{prompt}").rstrip("\n") + "\n```"
    yield _bullets(
        f"How sure: {prompt.confidence}.",
        *prompt.notes,
        *(f"Source: {source}" for source in prompt.sources),
    )


def _hub_lines(hub: Iterable[HubRepo]) -> Iterator[str]:
    for repo in hub:
        note = f"; {repo.note}" if repo.note else ""
        yield f"Hub: `{repo.id}` ({repo.status}; {repo.confidence}{note})"


def _checksum_lines(checksums: Iterable[Checksums]) -> Iterator[str]:
    for group in checksums:
        note = f"; {group.note}" if group.note else ""
        yield (
            f"{group.algorithm} of {len(group.files)} of {_FILES[group.of]} files"
            f" ({group.confidence}{note}): {group.source}"
        )


def _sum_line(published: PublishedSum) -> str:
    note = f"; {published.note}" if published.note else ""
    return (
        f"Published sum {published.value:.4f} ± {published.tolerance:g},"
        f" inv_freq {published.inv_freq} ({published.confidence}{note})"
    )


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {html.escape(line, quote=False)}" for line in lines)


def _anchor(heading: str) -> str:
    """What Markdown renderers make of a heading that is an id."""
    return heading.replace(".", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
