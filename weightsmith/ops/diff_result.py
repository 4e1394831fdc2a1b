"""The result of comparing two checkpoints: by tensor, by kind of module, and by layer."""

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

from weightsmith.checkpoint.layers import Position
from weightsmith.codecs.measure import Measure, combine
from weightsmith.formats.tensors import TensorInfo

Status = Literal["same", "changed", "other dtype", "other shape", "added", "removed"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
"""All statuses, in the order in which they are shown."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor of A or B, and how it differs."""

    name: str
    place: Position
    a: TensorInfo | None
    """None if only B has it."""
    b: TensorInfo | None
    """None if only A has it."""
    measure: Measure | None
    """How the elements that both have differ: all elements, or, if only the numbers of rows differ,
    the rows that both have. None if nothing could be compared.
    """

    @property
    def status(self) -> Status:
        """How A and B differ here, in a word or two."""
        if self.a is None or self.b is None:
            return "added" if self.a is None else "removed"
        if self.a.shape != self.b.shape:
            return "other shape"
        if self.a.dtype != self.b.dtype:
            return "other dtype"
        return "changed" if self.measure is None or self.measure.changed else "same"

    @property
    def new_rows(self) -> int:
        """How many rows B has more than A; negative if A has more."""
        if self.measure is None or self.status != "other shape":
            return 0
        return self.b.shape[0] - self.a.shape[0] if self.a and self.b else 0

    @property
    def size(self) -> float:
        """The relative change, to sort by; infinite if A is all zeros and B is not."""
        if self.measure is None or not self.measure.change_squares:
            return 0.0
        return math.inf if self.measure.relative is None else self.measure.relative

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "layer": self.place.layer,
            "kind": self.place.kind,
            "status": self.status,
            "a": self.a and {"dtype": self.a.dtype, "shape": list(self.a.shape)},
            "b": self.b and {"dtype": self.b.dtype, "shape": list(self.b.shape)},
            "new_rows": self.new_rows,
            "measure": self.measure and self.measure.to_document(),
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Several tensors, measured together."""

    tensors: int
    different: int
    """How many of them are not the same."""
    measure: Measure
    """Of all elements that could be compared, including those that are the same."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        counts = {"tensors": self.tensors, "different": self.different}
        return {**counts, "measure": self.measure.to_document()}


@dataclass(frozen=True, slots=True)
class Side:
    """Which model A or B is, for the record of a comparison."""

    place: str
    """``org/name@commit`` for a model from the hub, or the path of a directory; empty for other
    sources, whose names say where they are.
    """
    tensors: int
    """Number of tensors, including those that no loader reads."""
    nbytes: int
    """Bytes of all tensors, as they are read."""
    fingerprint: str = ""
    """Fingerprint of all tensors, as `verify` gives it; empty unless it was asked for."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        whole = {"place": self.place, "tensors": self.tensors, "nbytes": self.nbytes}
        return {**whole, "fingerprint": self.fingerprint or None}


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between A and B."""

    a: str
    b: str
    tensors: tuple[TensorDifference, ...]
    """By name, layer 2 before layer 10."""
    notes: tuple[str, ...]
    """Sentences on what was left out, and what was compared in another way."""
    sides: tuple[Side, Side]
    """A and B."""

    @property
    def equal(self) -> bool:
        """Whether both hold the same tensors, bit for bit."""
        return all(tensor.status == "same" for tensor in self.tensors)

    @property
    def total(self) -> Group:
        """All tensors together."""
        return _together(self.tensors)

    def statuses(self) -> dict[Status, int]:
        """How many tensors there are of each status that occurs."""
        found = [tensor.status for tensor in self.tensors]
        return {status: found.count(status) for status in STATUSES if status in found}

    def kinds(self) -> dict[str, Group]:
        """By kind of module, those within layers first."""
        within_first = sorted(self.tensors, key=lambda tensor: tensor.place.layer is None)
        return grouped(within_first, lambda tensor: tensor.place.kind)

    def layers(self) -> dict[int, Group]:
        """By layer; tensors outside of all layers are left out."""
        found = grouped(self.tensors, lambda tensor: tensor.place.layer)
        return {layer: found[layer] for layer in sorted(n for n in found if n is not None)}

    def most_changed(self) -> list[TensorDifference]:
        """The tensors whose change has a size, the largest relative change first."""
        sized = [tensor for tensor in self.tensors if tensor.size]
        return sorted(sized, key=lambda tensor: -tensor.size)

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "statuses": self.statuses(),
            "total": self.total.to_document(),
            "kinds": [{"kind": kind, **each.to_document()} for kind, each in self.kinds().items()],
            "layers": [{"layer": n, **each.to_document()} for n, each in self.layers().items()],
            "tensors": [tensor.to_document() for tensor in self.tensors],
            "notes": list(self.notes),
            "sides": {
                side: each.to_document() for side, each in zip("ab", self.sides, strict=True)
            },
        }


def grouped(
    tensors: Iterable[TensorDifference], key: Callable[[TensorDifference], Key]
) -> dict[Key, Group]:
    """Tensors grouped by a key, the groups in the order in which their keys first occur."""
    found: dict[Key, list[TensorDifference]] = {}
    for tensor in tensors:
        found.setdefault(key(tensor), []).append(tensor)
    return {each: _together(of_one_key) for each, of_one_key in found.items()}


def _together(tensors: Iterable[TensorDifference]) -> Group:
    each = list(tensors)
    return Group(
        tensors=len(each),
        different=sum(tensor.status != "same" for tensor in each),
        measure=combine(tensor.measure for tensor in each if tensor.measure is not None),
    )
