"""A derived checkpoint whose tensors must have checksums that another tool gave for them."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.checksums import Algorithm, Hasher, hasher
from weightsmith.engine.derived import Derived
from weightsmith.engine.shard import TensorWork
from weightsmith.engine.spans import span_range

_WAITING: Final = 16
"""Blocks that may be read before their turn, as several workers do, and are kept until then."""


@dataclass(slots=True)
class _Heard:
    """How far a tensor was hashed; such sums are taken from front to back."""

    hasher: Hasher
    at: int = 0
    waiting: dict[int, bytes] = field(default_factory=dict)


class Checked(Derived):
    """Every tensor that has a checksum is held against it by the time that its last byte is read;
    where it is read in some other order than from front to back, at once.
    """

    def __init__(
        self,
        *,
        checksums: Mapping[str, tuple[Algorithm, str]],
        failed: Callable[[str], NoReturn],
        **rest: Any,
    ) -> None:
        """`checksums` by the tensors' names; `failed` is told the name of one that has another, and
        raises. The rest is `Derived`'s.
        """
        super().__init__(**rest)
        self._checksums = checksums
        self._failed = failed
        self._hear_anew()

    def _hear_anew(self) -> None:
        """Nothing was hashed yet."""
        self._heard: dict[str, _Heard] = {}
        self._right: set[str] = set()
        self._hearing = threading.Lock()

    def renamed(self, names: Mapping[str, str], *notes: str) -> Self:
        """The same tensors under other names, held against the same checksums; `failed` is told
        the names that it knows.
        """
        alike = super().renamed(names, *notes)
        known = {names.get(name, name): name for name in self._checksums if names.get(name, name)}

        def failed(name: str) -> NoReturn:
            self._failed(known[name])

        alike._checksums = {new: self._checksums[old] for new, old in known.items()}  # noqa: SLF001
        alike._failed = failed  # noqa: SLF001
        alike._hear_anew()  # noqa: SLF001
        return alike

    def work_of(self, name: str) -> TensorWork | None:
        """What makes a tensor, if it has no checksum: else it must be read here."""
        return None if name in self._checksums else super().work_of(name)

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """As `Derived`.

        Raises: what `failed` does.
        """
        super().read_into(name, start, buffer)
        if name not in self._checksums or name in self._right:
            return
        # A lock for all tensors: such sums are many times as fast as what comes before.
        with self._hearing:
            in_order = self._hear(name, start, buffer)
        if not in_order:
            self._hear_all(name)

    def checksum(self, name: str, algorithm: Algorithm) -> str:
        """Of a tensor, which is read for it from front to back."""
        found, nbytes = hasher(algorithm), self.tensors[name].info.nbytes
        block = bytearray(min(nbytes, SPAN_NBYTES))
        for number in range(span_count(nbytes)):
            span = span_range(number, nbytes)
            part = memoryview(block)[: span.nbytes]
            super().read_into(name, span.start, part)
            found.update(part)
        return found.hexdigest()

    def _hear(self, name: str, start: int, buffer: memoryview) -> bool:
        """Hash what was read as far as it goes on from what was; False where it cannot be kept."""
        algorithm, _ = self._checksums[name]
        heard = self._heard.setdefault(name, _Heard(hasher(algorithm)))
        if start != heard.at:
            if start < heard.at or len(heard.waiting) >= _WAITING:
                return False
            heard.waiting[start] = bytes(buffer)
            return True
        heard.hasher.update(buffer)
        heard.at += len(buffer)
        while (block := heard.waiting.pop(heard.at, None)) is not None:
            heard.hasher.update(block)
            heard.at += len(block)
        if heard.at == self.tensors[name].info.nbytes:
            self._judge(name, heard.hasher.hexdigest())
        return True

    def _hear_all(self, name: str) -> None:
        self._judge(name, self.checksum(name, self._checksums[name][0]))

    def _judge(self, name: str, found: str) -> None:
        self._heard.pop(name, None)
        if found != self._checksums[name][1].lower():
            self._failed(name)
        self._right.add(name)
