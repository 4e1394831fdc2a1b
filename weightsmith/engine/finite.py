"""Values that are no numbers: found in what a run makes, and traced to the input that has them."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.codecs.base import Range
from weightsmith.codecs.nonfinite import count_nonfinite
from weightsmith.engine.shard import BELOW, MadeOfWorks, TensorWork
from weightsmith.engine.spans import Buffers, visit_spans
from weightsmith.errors import NotFinite
from weightsmith.progress import Progress

NonFinite = Mapping[str, Mapping[str, Sequence[int]]]
"""By tensor and by the role of the input that has them: how many NaNs, how many infinities. What
an input is itself made from has both roles, with `BELOW` between them.
"""
RESULT: Final = ""
"""In place of a role: values that were numbers in every input."""


class FiniteWatch:
    """Looks at every span that is made, from any thread."""

    def __init__(self) -> None:
        """Nothing is found yet."""
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, list[int]]] = {}

    @property
    def found(self) -> NonFinite:
        """What there is so far."""
        return self._found

    def look(self, work: TensorWork, span: Range, out: memoryview) -> None:
        """Count what is no number in a span just made, and in what it was made of.

        What an exact delta restores may have any bits, and buffers are nobody's weights.
        """
        output = work.output
        if work.codec.restores or is_buffer(output.name, output.shape):
            return
        made = count_nonfinite(out, output.dtype)
        if not any(made):
            return
        told = [each for each in work.nonfinite(span) if any(each[1:])]
        with self._lock:
            held = self._found.setdefault(output.name, {})
            for role, nans, infinities in told or [(RESULT, *made)]:
                before = held.get(role, [0, 0])
                held[role] = [before[0] + nans, before[1] + infinities]


def require_finite(
    found: NonFinite, roles: Collection[str], inputs: Mapping[str, Checkpoint]
) -> None:
    """Refuse what these inputs may not have, and what the deltas of a chain may not have.

    Raises: NotFinite.
    """
    for role in sorted({role for held in found.values() for role in held} - {RESULT}):
        source, refused = _behind(role, inputs)
        if role not in roles and not refused:
            continue
        lines = [f"{n} holds {_told(held[role])}" for n, held in found.items() if role in held]
        raise NotFinite(source=source.label, count=len(lines), context=lines)


def require_finite_inputs(
    inputs: Mapping[str, Checkpoint],
    roles: Iterable[str],
    buffers: Sequence[Buffers],
    progress: Progress,
) -> None:
    """Read all of these inputs, and refuse what is no number.

    Raises: NotFinite.
    """
    for role in roles:
        checkpoint = inputs[role]
        progress.begin(f"looking through {checkpoint.label}", checkpoint.nbytes)
        counts = visit_spans(
            [tensor.info for tensor in checkpoint.tensors.values()],
            checkpoint.read_into,
            buffers,
            progress.advance,
            lambda info, block: count_nonfinite(block, info.dtype),
        )
        found = {
            name: {role: [sum(each) for each in zip(*spans, strict=True)]}
            for name, spans in counts.items()
            if any(map(any, spans))
        }
        require_finite(found, [role], inputs)


def sentences(found: NonFinite, inputs: Mapping[str, Checkpoint]) -> Iterator[str]:
    """What a person should know of it, a sentence an input."""
    for role in sorted({role for held in found.values() for role in held}):
        named = ", ".join(f"{n} ({_told(h[role])})" for n, h in sorted(found.items()) if role in h)
        if role == RESULT:
            yield f"values grew too large for their dtype: {named}"
        else:
            source, _ = _behind(role, inputs)
            kind = role.rpartition(BELOW)[2]
            yield f"{kind} {source.label} holds values that are no numbers: {named}"


def _behind(role: str, inputs: Mapping[str, Checkpoint]) -> tuple[Checkpoint, bool]:
    """The checkpoint of a role, and whether what is made from it says that it must hold numbers."""
    first, *others = role.split(BELOW)
    source, refused = inputs[first], False
    for each in others:
        if not isinstance(source, MadeOfWorks):
            raise TypeError(source)
        refused = each in source.finite
        source = source.made_from[each]
    return source, refused


def _told(counts: Sequence[int]) -> str:
    """``3 NaN and 1 infinite``."""
    words = zip(counts, ("NaN", "infinite"), strict=True)
    return " and ".join(f"{count} {word}" for count, word in words if count)
