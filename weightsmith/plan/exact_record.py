"""The record of an exact delta: its base, its target, and how the one becomes the other.

It is the part ``"delta"`` of the delta's ``weightsmith.json``. It may come from anywhere, so
all of it is checked before it is used (`base_record`).
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith.checkpoint.digest import fingerprint
from weightsmith.codecs.exact.codec import params_of, serves_as_base
from weightsmith.codecs.exact.payload import table_nbytes
from weightsmith.codecs.low_rank.form import has_room_for
from weightsmith.errors import DamagedInput, DeltaInvalid, DeltaUnknown
from weightsmith.formats.safetensors_header import parse_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.base_record import BaseRecord, count_of, digest_of, info_of, items, text
from weightsmith.plan.model import InputTensor, TensorPlan

FORM: Final = "exact-delta@1"
SECOND_FORM: Final = "exact-delta@2"
"""Of a record with tensors that are predicted, or spans that are coded by class: those who know the
first form alone do not know of these.
"""
FORMS: Final = frozenset({FORM, SECOND_FORM})
_READER: Final = "0.1.0"
"""The first weightsmith that reads the later form."""
_VERSION: Final = re.compile(r"\d+(\.\d+){1,3}")
_FILE_NAME: Final = re.compile(r"[^/\\:\0]+\.safetensors")


@dataclass(frozen=True, slots=True)
class TargetTensor:
    """A tensor of the target, its digest, and what it is restored from."""

    info: TensorInfo
    digest: str
    base: str | None
    """The base's tensor that it is restored from; None, if the payload is enough."""
    payload: str | None
    """The delta's tensor that holds its payload; None, if it is the base's tensor itself."""
    rank: int = 0
    """Of the factors with which it is predicted from the base; 0, if it is not."""

    def to_document(self) -> dict[str, Any]:
        """The tensor as JSON values."""
        factors = {"rank": self.rank} if self.rank else {}
        return {
            "name": self.info.name,
            "dtype": self.info.dtype,
            "shape": list(self.info.shape),
            "digest": self.digest,
            "base": self.base,
            "payload": self.payload,
            **factors,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "TargetTensor":
        """The inverse of `to_document`.

        Raises: KeyError, TypeError, ValueError, if it is no such document.
        """
        base, payload = document["base"], document["payload"]
        return cls(
            info=info_of(document["name"], document["dtype"], document["shape"]),
            digest=digest_of(document["digest"]),
            base=None if base is None else text(base),
            payload=None if payload is None else text(payload),
            rank=count_of(document.get("rank", 0)),
        )


@dataclass(frozen=True, slots=True)
class TargetFile:
    """A weight file of the target, as it was published."""

    name: str
    size: int
    sha256: str
    header: bytes
    """Its first bytes, up to the first tensor."""

    def to_document(self) -> dict[str, Any]:
        """The file as JSON values."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "header": base64.b64encode(self.header).decode("ascii"),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "TargetFile":
        """The inverse of `to_document`.

        Raises: KeyError, TypeError, ValueError, if it is no such document.
        """
        return cls(
            name=text(document["name"]),
            size=count_of(document["size"]),
            sha256=digest_of(document["sha256"]),
            header=base64.b64decode(document["header"], validate=True),
        )


@dataclass(frozen=True, slots=True)
class DeltaRecord:
    """All that an exact delta says of its base and its target."""

    base: BaseRecord
    tensors: tuple[TargetTensor, ...]
    """In the order of the target's files."""
    files: tuple[TargetFile, ...]
    """Empty where tensors are restored and files are not: the target's were torch files."""
    index: bytes | None
    """The target's index, where it had one and its files are restored."""
    coded: bool = False
    """Whether spans of payloads may be coded by class, as versions before `_READER` do not know."""

    @property
    def fingerprint(self) -> str:
        """Of the whole target."""
        return fingerprint({each.info.name: each.digest for each in self.tensors})

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of the tensors that are their base plus a product of factors, in order."""
        return tuple(sorted(each.rank for each in self.tensors if each.rank))

    @property
    def low_rank(self) -> str:
        """``64 of 224 tensors are their base plus rank 8``; empty, if none is."""
        if not self.ranks:
            return ""
        least, most = self.ranks[0], self.ranks[-1]
        rank = f"rank {least}" if least == most else f"rank {least} to {most}"
        count, whole = len(self.ranks), len(self.tensors)
        are = "is its" if count == 1 else "are their"
        return f"{count} of {whole} tensors {are} base plus {rank}"

    def rules(self, payloads: Mapping[str, TensorInfo]) -> Iterator[TensorPlan]:
        """How each tensor of the target is made; `payloads` are the delta's tensors.

        Raises: DeltaInvalid, if the record and the delta's files do not belong together.
        """
        bases = {each.info.name: each for each in self.base.tensors}
        for tensor in self.tensors:
            info, digest = tensor.info, tensor.digest
            inputs = []
            if tensor.base is not None:
                base = bases[tensor.base]
                inputs.append(InputTensor("base", base.info, base.digest))
            if tensor.payload is None:
                yield TensorPlan(info, "copy@1", {}, tuple(inputs), digest)
                continue
            payload = payloads.get(tensor.payload)
            if payload is None or payload.dtype != "U8":
                raise DeltaInvalid(
                    name=f"tensor {tensor.payload}", reason="it is not there, or no payload"
                )
            if payload.nbytes < table_nbytes(info):
                raise DeltaInvalid(name=f"tensor {tensor.payload}", reason="it is too short")
            inputs.append(InputTensor("delta", payload))
            rule, params = "exact@1", params_of(info)
            if tensor.rank:
                rule, params = "low-rank@1", {**params, "rank": str(tensor.rank)}
            yield TensorPlan(info, rule, params, tuple(inputs), digest)

    def to_document(self) -> dict[str, Any]:
        """The record as JSON values."""
        second = bool(self.ranks) or self.coded
        return {
            **({"form": SECOND_FORM, "needs": _READER} if second else {"form": FORM}),
            "base": self.base.to_document(),
            "target": {
                "fingerprint": self.fingerprint,
                "tensors": [each.to_document() for each in self.tensors],
                "files": [each.to_document() for each in self.files],
                "index": None if self.index is None else self.index.decode(),
            },
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "DeltaRecord":
        """The inverse of `to_document`, for records from anywhere.

        Raises: DeltaUnknown, for another version's; DeltaInvalid.
        """
        form = document.get("form")
        if not isinstance(form, str) or form not in FORMS:
            raise DeltaUnknown(what="the record", found=form, hint=_way_to_read(document))
        try:
            target = document["target"]
            record = cls(
                base=BaseRecord.from_document(document["base"]),
                tensors=tuple(map(TargetTensor.from_document, items(target["tensors"]))),
                files=tuple(map(TargetFile.from_document, items(target["files"]))),
                index=None if target["index"] is None else text(target["index"]).encode(),
                coded=form == SECOND_FORM,
            )
            _require_consistent(record, target["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise DeltaInvalid(name="record", reason=error) from error
        return record


def _way_to_read(document: Mapping[str, Any]) -> str | None:
    """The version to install for a form that this one does not know, if the record says it."""
    needed = document.get("needs")
    if not isinstance(needed, str) or not _VERSION.fullmatch(needed):
        return None
    return f"weightsmith {needed} reads it: pip install 'weightsmith>={needed}'"


def _require_consistent(record: DeltaRecord, target_fingerprint: object) -> None:
    """Raises: ValueError; DeltaInvalid, if a file cannot be as large as its header has it."""
    bases = {each.info.name: each.info for each in record.base.tensors}
    names = [each.info.name for each in record.tensors]
    if len({*names}) < len(names):
        raise ValueError("a name stands in it twice")
    if not are_file_names([each.name for each in record.files]):
        raise ValueError("its files cannot have the names that it gives them")
    if target_fingerprint != record.fingerprint:
        raise ValueError("the target's fingerprint is not that of its tensors")
    for file in record.files:
        try:
            parse_header(file.header, file.size, Path(file.name))
        except DamagedInput as error:
            raise DeltaInvalid(name=file.name, reason=error) from error
    for tensor in record.tensors:
        base = None if tensor.base is None else bases.get(tensor.base)
        if (tensor.base is not None and base is None) or tensor.base == tensor.payload is None:
            raise ValueError(f"{tensor.info.name} is made from nothing")
        if tensor.rank and (base is None or tensor.payload is None):
            raise ValueError(f"{tensor.info.name} has factors, and no base or payload")
        if base is None:
            continue
        if tensor.rank and not has_room_for(tensor.rank, base, tensor.info):
            raise ValueError(f"{tensor.info.name} has factors of rank {tensor.rank} for {base}")
        if not serves_as_base(base, tensor.info):
            raise ValueError(f"{tensor.info.name} cannot be made from {base}")
        alike = (base.dtype, base.shape) == (tensor.info.dtype, tensor.info.shape)
        if tensor.payload is None and not alike:
            raise ValueError(f"{tensor.info.name} is not {base}")


def are_file_names(names: Sequence[str]) -> bool:
    """Whether weight files of these names may be made in a directory of ours, on any system."""
    distinct = len({name.lower() for name in names}) == len(names)
    return distinct and all(_FILE_NAME.fullmatch(name) for name in names)
