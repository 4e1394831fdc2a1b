"""Read the catalogue that is installed with the package, once, and look things up in it."""

import functools
from importlib import resources

from weightsmith.catalogue.schema import Base, EntryT, PromptTemplate, Release, parse_entries
from weightsmith.errors import CatalogueInvalid


@functools.cache
def load_bases() -> tuple[Base, ...]:
    """All bases, by file and in each file's order.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(Base, "base", "bases")


@functools.cache
def load_releases() -> tuple[Release, ...]:
    """All releases, by file and in each file's order.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(Release, "release", "releases")


@functools.cache
def load_prompts() -> tuple[PromptTemplate, ...]:
    """All prompt templates.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(PromptTemplate, "prompt", "prompts")


def alias(name: str) -> Base | None:
    """The base with this alias, upper or lower case; None if there is none."""
    return next((base for base in load_bases() if base.alias == name.casefold()), None)


def find_prompt(prompt_id: str) -> PromptTemplate | None:
    """The prompt template of this id; None if there is none."""
    return next((prompt for prompt in load_prompts() if prompt.id == prompt_id), None)


def load_entries(kind: type[EntryT], heading: str, place: str) -> tuple[EntryT, ...]:
    """The entries of ``place.toml``, or of every TOML file in the folder ``place``."""
    root = resources.files("weightsmith.catalogue")
    folder = root / place
    files = (
        [file for file in folder.iterdir() if file.name.endswith(".toml")]
        if folder.is_dir()
        else [root / f"{place}.toml"]
    )
    faults: list[str] = []
    entries: list[EntryT] = []
    for file in sorted(files, key=lambda file: file.name):
        entries += parse_entries(kind, heading, file.read_text(encoding="utf-8"), file.name, faults)
    if faults:
        raise CatalogueInvalid(count=len(faults), context=faults)
    return tuple(entries)
