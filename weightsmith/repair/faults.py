"""What a fault is, and what an edit does to a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weightsmith.catalogue.repairs import Verdict
from weightsmith.errors import JsonInvalid, WeightsmithError
from weightsmith.formats.strict_json import parse_json


@dataclass(frozen=True, slots=True)
class Edit:
    """Keys of one JSON file to set and to remove; all others stay as they are, in their order."""

    file: str
    set: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    delete: bool = False
    """The whole file goes."""
    content: bytes | None = None
    """All of a file that is no JSON object."""
    within: str = ""
    """The key of an object in the file to whose keys this applies."""

    def applied(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with this edit made."""
        if self.within:
            inner = Edit(self.file, self.set, self.remove).applied(document[self.within])
            return {**document, self.within: inner}
        after = {**document, **self.set}
        return {key: value for key, value in after.items() if key not in self.remove}


@dataclass(frozen=True, slots=True)
class Fault:
    """A known fault, found in these files."""

    id: str
    """Of its entry in the catalogue: ``"special-tokens-blank"``."""
    file: str
    evidence: str
    """What is there, and what should be."""
    edits: tuple[Edit, ...] = ()
    error: WeightsmithError | None = None
    """Why nothing can be repaired here, where that is so: without it, no file can be trusted."""
    verdict: Verdict = "fault"
    rebuild: bool = False
    """``tokenizer.json`` is built anew from ``tokenizer.model``."""
    read_as: Mapping[str, Any] | None = None
    """``tokenizer.json`` as whoever errs takes it, to show what comes of that."""
    truth: Mapping[str, Any] | None = None
    """``tokenizer.json`` as it should be, where that is not what the folder's own says."""


def parse_object(raw: bytes, file: str) -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises: JsonInvalid, also if it is JSON but no object, or begins with a byte order mark.
    """
    document = parse_json(raw, file)
    if not isinstance(document, dict):
        raise JsonInvalid(file=file, reason="it is not an object")
    return document


def format_object(document: Mapping[str, Any]) -> bytes:
    """A JSON file's content, laid out as transformers lays it out."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
