"""The part of a delta's record that both kinds of delta have: what their base is.

A record may come from anywhere: everything in it is checked before it is used, but for digests,
which are there to check with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.checkpoint.digest import fingerprint
from weightsmith.formats.tensors import DTYPE_BITS, TORCH_ONLY_BITS, TensorInfo

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """A tensor of the base, and its digest."""

    info: TensorInfo
    digest: str


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """What a delta says of its base."""

    id: str
    """``ORG/NAME@COMMIT`` on the hub; empty, if whoever made the delta did not say."""
    tensors: tuple[BaseTensor, ...]
    """All of them, those too that the target lacks."""

    @property
    def fingerprint(self) -> str:
        """Of the whole base."""
        return fingerprint({each.info.name: each.digest for each in self.tensors})

    def __str__(self) -> str:
        """What it is on the hub, or else the beginning of its fingerprint."""
        return self.id or f"of fingerprint {self.fingerprint[:16]}..."

    def to_document(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "tensors": [
                [each.info.name, each.info.dtype, list(each.info.shape), each.digest]
                for each in self.tensors
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "BaseRecord":
        """The inverse of `to_document`.

        Raises: KeyError, TypeError, ValueError, if it is no such document.
        """
        record = cls(
            text(document["id"]),
            tuple(
                BaseTensor(info_of(name, dtype, shape), digest_of(digest))
                for name, dtype, shape, digest in items(document["tensors"])
            ),
        )
        if len({each.info.name for each in record.tensors}) < len(record.tensors):
            raise ValueError("a name stands in it twice")
        if document["fingerprint"] != record.fingerprint:
            raise ValueError("the base's fingerprint is not that of its tensors")
        return record


def info_of(name: object, dtype: object, shape: object) -> TensorInfo:
    """A tensor's name, dtype and shape. Raises: TypeError, ValueError."""
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS | TORCH_ONLY_BITS:
        raise ValueError(f"unknown dtype {dtype}")
    return TensorInfo(text(name), dtype, tuple(map(count_of, items(shape))))


def items(value: Any) -> list[Any]:
    """A list. Raises: TypeError."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def text(value: object) -> str:
    """A string. Raises: TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def count_of(value: object) -> int:
    """A number of things. Raises: TypeError."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError(f"{value!r} is no count")
    return value


def digest_of(value: object) -> str:
    """A blake3 digest in hex. Raises: TypeError, ValueError."""
    if not _DIGEST.fullmatch(text(value)):
        raise ValueError(f"{value!r} is no digest")
    return text(value)
