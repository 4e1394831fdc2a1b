"""The schema of the catalogue's files, and a reader that refuses anything else.

The classes are the schema: a key is a field, its type is the field's type, a key without a field is
a fault, and so is a field without a default that has no key. Every fault is collected.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Confidence = Literal["verified-source", "reproduced", "stated", "derived", "unverified"]
"""How sure the catalogue is of what an entry says; `MEANINGS` says what each word means."""
Encoding = Literal["add", "xor-file", "keystream-file"]
"""How a release encodes its target against its base."""
NewRows = Literal["none", "zero", "mean"]
"""How vocabulary rows count that the base lacks."""
HubStatus = Literal["published", "mirror", "removed"]
"""Published by the authors themselves; somebody's copy; no longer there."""

MEANINGS: Mapping[Confidence, str] = types.MappingProxyType(
    {
        "verified-source": "read in the published script or data itself",
        "reproduced": "seen to hold by running it, or by rebuilding the very bytes",
        "stated": "said by the authors, or by several users, in public",
        "derived": "follows from facts that are known",
        "unverified": "one weak source; check before you rely on it",
    }
)

EntryT = TypeVar("EntryT")


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of the hub, and how sure it is that it holds what the entry says."""

    id: str
    """``"lmsys/vicuna-7b-delta-v0"``."""
    confidence: Confidence
    status: HubStatus = "published"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Checksums:
    """Published hashes of whole files of one kind, from one source."""

    of: Literal["meta", "huggingface", "delta", "result"]
    """Meta's own files, a conversion of them, a release as published, or what it decodes to."""
    algorithm: Literal["md5", "sha256"]
    source: str
    confidence: Confidence
    files: Mapping[str, str]
    """File name to lower-case hex."""
    note: str = ""
    needed_by: tuple[str, ...] = ()
    """Ids of releases of whole files that were made from these very files."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model that releases were made against, by the alias that commands accept."""

    alias: str
    """``"llama-7b"``."""
    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    """As Meta's ``params.json`` has it in ``norm_eps``; it is not the same for all sizes."""
    sources: tuple[str, ...]
    hub: tuple[HubRepo, ...] = ()
    """Candidates, the best first."""
    checksums: tuple[Checksums, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs in a config by which a release is known; any one of them is enough."""

    model_type: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Config keys that no plain model has."""


@dataclass(frozen=True, slots=True)
class PublishedSum:
    """The sum of all weights of the target, as a release's own script checks it."""

    value: float
    tolerance: float
    """Absolute."""
    inv_freq: Literal["included", "excluded", "unknown"]
    """Whether the rotary buffers that old transformers kept as weights are in it."""
    confidence: Confidence
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """How to apply a release: what must be known beside base and delta."""

    encoding: Encoding
    new_rows: NewRows
    whole: tuple[str, ...]
    tokenizer: Literal["delta", "base"]


@dataclass(frozen=True, slots=True)
class Release:
    """A published delta."""

    id: str
    """Unique and lower-case: ``"vicuna-7b-v0"``."""
    name: str
    base: str
    """Alias of the base."""
    encoding: Encoding
    tokenizer: Literal["delta", "base"]
    """From which side the target's tokenizer comes."""
    confidence: Confidence
    """How sure encoding, rows, whole tensors and base are; repositories and sums have their own."""
    sources: tuple[str, ...]
    hub: tuple[HubRepo, ...] = ()
    dtype: Literal["float16", "float32", "delta"] | None = None
    """In what the published script sums; ``"delta"``: as the files are; None: a file encoding."""
    new_rows: NewRows = "none"
    whole: tuple[str, ...] = ()
    """Patterns of tensor names that the release stores whole, not as a difference."""
    vocab_size: int | None = None
    """Rows of the target's embeddings, where known."""
    key: str | None = None
    """The base's file that keystream encodings use as their key."""
    signs: Signs | None = None
    """How its config tells it from other releases; None if nothing there does so safely."""
    sums: tuple[PublishedSum, ...] = ()
    checksums: tuple[Checksums, ...] = ()
    prompt: str | None = None
    """Id of the prompt template that it was trained with, where known."""
    notes: tuple[str, ...] = ()
    """Symptoms and warnings, a sentence each."""

    @property
    def rules(self) -> Rules:
        """How to apply it."""
        return Rules(self.encoding, self.new_rows, self.whole, self.tokenizer)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The exact text that a family of models was trained to answer."""

    id: str
    template: str
    """With ``{prompt}``, and ``{system}`` if there is a system text; the tokenizer adds BOS."""
    confidence: Confidence
    sources: tuple[str, ...]
    system: str = ""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, beside the EOS token."""
    notes: tuple[str, ...] = ()

    def fill(self, prompt: str) -> str:
        """The text to tokenize; braces in `prompt` stay as they are."""
        return self.template.replace("{system}", self.system).replace("{prompt}", prompt)


def parse_entries(
    kind: type[EntryT], heading: str, text: str, where: str, faults: list[str]
) -> list[EntryT]:
    """The ``[[heading]]`` tables of a TOML text; keys above the first are shared by all of them.

    Whatever does not fit is left out and added to `faults` as a sentence that begins with `where`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{where}: no valid TOML: {error}")
        return []
    tables = document.pop(heading, None)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(f"{where}: no [[{heading}]] tables")
        return []
    entries = []
    for number, table in enumerate(tables, 1):
        before = len(faults)
        entry = _read(kind, {**document, **table}, f"{where}: {heading} {number}", faults)
        if len(faults) == before:
            entries.append(entry)
    return entries


def _read(hint: Any, raw: object, where: str, faults: list[str]) -> Any:
    """`raw` as a value of the type `hint`, or a fault."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        (hint,) = (option for option in options if option is not types.NoneType)
        return _read(hint, raw, where, faults)
    if origin is Literal:
        if raw not in options:
            faults.append(f"{where} is {raw!r}, which is none of {', '.join(options)}")
        return raw
    if origin is tuple and isinstance(raw, list):
        return tuple(_read(options[0], item, f"{where}[{n}]", faults) for n, item in enumerate(raw))
    if origin is Mapping and isinstance(raw, dict):
        return types.MappingProxyType(
            {name: _read(str, item, f"{where}.{name}", faults) for name, item in raw.items()}
        )
    if dataclasses.is_dataclass(hint) and isinstance(raw, dict):
        return _read_fields(hint, raw, where, faults)
    if type(raw) is not hint:
        faults.append(f"{where} is {raw!r}, which is no {_spelled(hint)}")
    elif raw == "":
        faults.append(f"{where} is empty")
    return raw


def _read_fields(kind: Any, table: Mapping[str, object], where: str, faults: list[str]) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    before = len(faults)
    faults.extend(f"{where}: unknown key {name}" for name in table if name not in fields)
    faults.extend(
        f"{where}: no {name}"
        for name, field in fields.items()
        if name not in table and field.default is field.default_factory is dataclasses.MISSING
    )
    values = {
        name: _read(hints[name], raw, f"{where}.{name}", faults)
        for name, raw in table.items()
        if name in fields
    }
    return kind(**values) if len(faults) == before else None


def _spelled(hint: Any) -> str:
    """A type as the catalogue's writer knows it."""
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is Mapping:
        return "table"
    if typing.get_origin(hint) is tuple:
        return "array"
    return {str: "text", int: "integer", float: "float", bool: "true or false"}[hint]
