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
    """Remove the whole file."""
    content: bytes | None = None
    """The new content of a file that is no JSON object."""
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
    """Id of its entry in the catalogue: ``"special-tokens-blank"``."""
    file: str
    evidence: str
    """What is there, and what should be."""
    edits: tuple[Edit, ...] = ()
    error: WeightsmithError | None = None
    """Why nothing in this folder can be repaired; None if it can."""
    verdict: Verdict = "fault"
    rebuild: bool = False
    """``tokenizer.json`` is built anew from ``tokenizer.model``."""
    read_as: Mapping[str, Any] | None = None
    """A ``tokenizer.json`` that gives the wrong ids that the misreading program gives."""
    truth: Mapping[str, Any] | None = None
    """A ``tokenizer.json`` that gives the right ids; None: the folder's own does."""


def parse_object(raw: bytes, file: str) -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises: JsonInvalid, also if it is JSON but no object, or begins with a byte order mark.
    """
    document = parse_json(raw, file)
    if not isinstance(document, dict):
        raise JsonInvalid(file=file, reason="it is not an object")
    return document


def format_object(document: Mapping[str, Any]) -> bytes:
    """A JSON file's content, indented as transformers writes it."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
