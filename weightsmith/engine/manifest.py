"""The manifest ``weightsmith.json``: the record inside a finished output that vouches for every
byte.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest, fingerprint
from weightsmith.checkpoint.layout import MANIFEST
from weightsmith.checkpoint.sidecars import CARD
from weightsmith.errors import JsonInvalid, SourceNotFound
from weightsmith.formats.strict_json import parse_json
from weightsmith.plan.base_record import text
from weightsmith.plan.model import Plan
from weightsmith.version import __version__

NAME: Final = MANIFEST
SCHEMA: Final = "weightsmith/manifest@1"
LIMIT_NBYTES: Final = 500_000_000


@dataclass(frozen=True, slots=True)
class File:
    """A published weight file."""

    size: int
    header_digest: str
    rest_digest: str = ""
    """Of a torch file, `file_hashes.rest_digest`: what a header of safetensors covers is spread
    over it. Outputs that were made before there was any lack it.
    """

    def to_document(self) -> dict[str, Any]:
        """The file as JSON values."""
        return {key: value for key, value in asdict(self).items() if value != ""}


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A published file beside the weights."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was made, by which plan, from what, and the digest of every part."""

    verb: str
    plan: str
    """The plan's digest."""
    fingerprint: str
    made_by: str
    inputs: Mapping[str, list[dict[str, Any]]]
    """By role: name, size and header digest of each weight file."""
    files: Mapping[str, File]
    sidecars: Mapping[str, Sidecar]
    """The index too, where there is one."""
    tensors: Mapping[str, str]
    """Tensor digests by name."""
    dropped: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    """Ids of the repairs made on the sidecars."""
    release: str = ""
    """The catalogue's id of the published delta that was applied, where it is certain."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """By role, ``org/name@commit`` of the inputs that came from the hub."""
    delta: Mapping[str, Any] | None = None
    """Of a delta, its record (`plan.exact_record`, `plan.add_record`)."""
    own_digest: str = field(default="", compare=False)
    """Of a manifest that was read, what it says is the digest of its file with this left empty."""
    schema: str = SCHEMA

    def to_bytes(self) -> bytes:
        """The file's content, which bears a digest of itself."""
        files = {name: each.to_document() for name, each in self.files.items()}
        document = {**asdict(replace(self, own_digest="")), "files": files}
        raw = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
        return raw.replace(_own_line(""), _own_line(bytes_digest(raw)), 1)

    def is_of(self, raw: bytes) -> bool:
        """Whether a file's content is as it was written: not one byte of it is another.

        One that has no digest of itself was written before there was any.
        """
        own = self.own_digest
        return not own or bytes_digest(raw.replace(_own_line(own), _own_line(""), 1)) == own


def _own_line(digest: str) -> bytes:
    """How the file says its digest; indented less than anything of that name further in."""
    return f'\n "own_digest": {json.dumps(digest)}'.encode()


def manifest_of(plan: Plan, digests: Mapping[str, str], index: Mapping[str, bytes]) -> Manifest:
    """The manifest of a finished run; `index` is the index file's content by name, or empty."""
    sidecars = {each.name: Sidecar(each.nbytes, each.digest) for each in plan.sidecars}
    sidecars |= {name: Sidecar(len(raw), bytes_digest(raw)) for name, raw in index.items()}
    return Manifest(
        verb=plan.verb,
        plan=plan.digest,
        fingerprint=fingerprint(digests),
        made_by=f"weightsmith {__version__}",
        inputs={each.role: [asdict(file) for file in each.files] for each in plan.inputs},
        files={s.name: File(s.nbytes, bytes_digest(s.header)) for s in plan.shards},
        sidecars=sidecars,
        tensors=digests,
        dropped=plan.dropped,
        repairs=plan.repairs,
        release=plan.release,
        delta=plan.delta.record,
        origins={each.role: each.origin for each in plan.inputs if each.origin},
    )


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a finished output, or None where there is none.

    Raises: JsonInvalid, if there is one that weightsmith did not write in this version's form.
    """
    path = directory / NAME
    try:
        raw = fs.read_small(path, LIMIT_NBYTES)
    except SourceNotFound:
        return None
    try:
        return parse_manifest(raw, path)
    except JsonInvalid as error:
        hint = f"to have it again from a copy: weightsmith verify {directory} --fix --from COPY"
        raise JsonInvalid(file=path, reason=error.values["reason"], hint=hint) from error


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _are_facts(value: object) -> bool:
    """Whether it is a map of names to sizes and digests."""
    return _is_map(
        value,
        lambda entry: (
            isinstance(entry, dict)
            and all(_is_size(v) if key == "size" else _is_text(v) for key, v in entry.items())
        ),
    )


def _are_inputs(value: object) -> bool:
    def is_file(entry: object) -> bool:
        return _are_facts({"": entry})

    return _is_map(value, lambda files: isinstance(files, list) and all(map(is_file, files)))


def _is_map(value: object, is_right: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(is_right(each) for each in value.values())


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_FORMS: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("verb", "plan", "fingerprint", "made_by", "release", "own_digest"), _is_text),
    **dict.fromkeys(("files", "sidecars"), _are_facts),
    **dict.fromkeys(("tensors", "origins"), lambda value: _is_map(value, _is_text)),
    **dict.fromkeys(("dropped", "repairs"), _are_names),
    "inputs": _are_inputs,
    "delta": lambda value: isinstance(value, dict | None),
}
"""What each part of a manifest must be, whoever wrote it."""


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest of these bytes; `path` is for messages.

    Raises: JsonInvalid, if weightsmith did not write it in this version's form.
    """
    document = parse_json(raw, path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise JsonInvalid(file=path, reason=f"its schema is not {SCHEMA}")
    for key, is_right in _FORMS.items():
        if key in document and not is_right(document[key]):
            raise JsonInvalid(file=path, reason=f"not a manifest: its {key} has another form")
    try:
        fields = dict(document)
        fields["files"] = {name: File(**each) for name, each in fields["files"].items()}
        fields["sidecars"] = {n: Sidecar(**each) for n, each in fields["sidecars"].items()}
        fields |= {key: tuple(map(text, fields[key])) for key in ("dropped", "repairs")}
        return Manifest(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise JsonInvalid(file=path, reason=f"not a manifest: {error}") from error


def target_card(sidecars: Collection[str]) -> str:
    """What the ``README.md`` among a target's sidecars is called in a delta on the hub, where a
    repository's ``README.md`` is its own card.
    """
    name = "README.target.md"
    while name in sidecars:
        name = name.replace(".md", ".target.md")
    return name


def own_sidecars(manifest: Manifest, there: Collection[str]) -> dict[str, str]:
    """By name, which of the files `there` holds each sidecar of a delta's target.

    A delta that went over the hub has a card of its own beside the target's.
    """
    renamed = target_card(manifest.sidecars)
    files = {name: name for name in there if name not in {CARD, renamed}}
    if CARD in manifest.sidecars and (held := [n for n in (renamed, CARD) if n in there]):
        files[CARD] = held[0]
    return files
