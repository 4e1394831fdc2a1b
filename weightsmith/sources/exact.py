"""Restore the target of an exact delta: the rules for it, and the target itself, read lazily."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_digest, tensor_digest
from weightsmith.checkpoint.layout import DELTA_INDEX
from weightsmith.checkpoint.renamed import named_like
from weightsmith.codecs.exact import kernel
from weightsmith.engine.derived import Derived, Proved
from weightsmith.engine.expected import require_inputs, wrong_base
from weightsmith.engine.manifest import Manifest, own_sidecars
from weightsmith.engine.spans import Buffers
from weightsmith.errors import DeltaInvalid
from weightsmith.plan.base_record import BaseRecord, BaseTensor
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import InputTensor, TensorPlan
from weightsmith.progress import Progress
from weightsmith.sources.kinds import ExactDelta
from weightsmith.sources.links import ON
from weightsmith.units import counted

_GLANCE_NBYTES: Final = 32 * SPAN_NBYTES
"""How many bytes of the base are digested while planning, taken from its smallest tensors."""
_GLANCE_AFAR: Final = 8
"""How many tensors are digested instead if the base's files would have to be fetched."""
_SLOW: Final = "without the compiled part"
_SLOW_NBYTES_A_MINUTE: Final = 400_000_000
"""Bytes that one core decodes without the compiled part; more workers hardly help."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """The rules and inputs that restore a target."""

    base: Checkpoint
    """The base, its tensors under the names that the delta records."""
    payloads: Checkpoint
    rules: tuple[TensorPlan, ...]
    sidecars: Mapping[str, Content]
    """The target's own files beside the weights, which the delta holds."""

    def model(self, label: str = "", *, proved: bool = True) -> Derived:
        """The target, restored as it is read; with `proved`, compared with its digests."""
        kind = Proved if proved else Derived
        restored = kind(
            label=label or f"{self.payloads.label} on {self.base.label}",
            directory=self.payloads.directory,
            rules=self.rules,
            inputs={"base": self.base, "delta": self.payloads},
            sidecars=self.sidecars,
        )
        origins = [each.origin for each in (self.payloads, self.base) if each.origin]
        restored.origin = ON.join(origins)
        return restored


def restore(base: Checkpoint, delta: ExactDelta) -> Restoring:
    """Decide how to restore a delta's target from `base`; a little of the base is digested.

    If decoding will be slow, the payloads get a note that says so.
    Raises: WrongBase; DeltaInvalid, DeltaUnknown.
    """
    manifest, record, payloads = delta.manifest, delta.record, delta.checkpoint
    if record.coded and kernel.find() is None and not _slow_notes(payloads):
        payloads.notes = (*payloads.notes, _slow(record))
    base = named_like(base, [each.info.name for each in record.base.tensors])
    require_base(record.base, {tensor.base for tensor in record.tensors}, base)
    rules = tuple(record.rules({n: each.info for n, each in payloads.tensors.items()}))
    payloads.take_sidecars(own_sidecars(manifest, (*payloads.sidecars, *payloads.large)))
    return Restoring(base, payloads, rules, _sidecars(manifest, payloads))


def tell_slow(progress: Progress, *checkpoints: Checkpoint) -> None:
    """Warn before reading that decoding will be slow, for commands whose plan shows no notes."""
    for each in checkpoints:
        for note in _slow_notes(each):
            progress.note(note)


def _slow_notes(checkpoint: Checkpoint) -> list[str]:
    return [note for note in checkpoint.notes if note.startswith(_SLOW)]


def _slow(record: DeltaRecord) -> str:
    """A note on how long decoding takes if NumPy has to decode spans that are encoded by class."""
    coded = (each for each in record.tensors if each.payload is not None)
    minutes = math.ceil(sum(each.info.nbytes for each in coded) / _SLOW_NBYTES_A_MINUTE)
    return f"{_SLOW}, decoding takes about {counted(minutes, 'minute')}"


def require_base(record: BaseRecord, needed: Container[str | None], base: Checkpoint) -> None:
    """Compare the base's `needed` tensors with the record: names, dtypes, shapes, a few digests.

    `base.wanted` is set to the id of the base that the delta was made from, for messages.
    Raises: WrongBase.
    """
    base.wanted = record.id
    known = {each.info.name: each for each in record.tensors if each.info.name in needed}
    problems = []
    for name, each in known.items():
        there = base.tensors.get(name)
        if there is None:
            problems.append(f"{name} is missing")
        elif there.info != each.info:
            problems.append(f"{name} is {there.info}, not {each.info}")
    # What a delta promises of its target needs no reading: of a chain of hundreds, each link would
    # else be read through all those before it.
    promised = _promised(base)
    problems += [
        name for name, each in known.items() if promised.get(name, each.digest) != each.digest
    ]
    unknown = [each for name, each in known.items() if name not in promised]
    smallest = sorted(unknown, key=lambda each: each.info.nbytes)
    far = bool(unknown) and any(base.is_far(file.name) for file in base.files)
    if far and not problems:
        problems = [each.info.name for each in _glance_afar(smallest) if _differs(each, base)]
    if problems:
        raise wrong_base(base, problems)
    if unknown and not far:
        glance = [InputTensor("base", each.info, each.digest) for each in _glance(smallest)]
        require_inputs(glance, {"base": base}, [Buffers()])


def _promised(base: Checkpoint) -> dict[str, str]:
    """The digests that the tensors of a chain must have, by name, if its last link holds any."""
    rules = base.plans if isinstance(base, Derived) else ()
    return {rule.output.name: rule.digest for rule in rules if rule.digest}


def _glance(smallest: Sequence[BaseTensor]) -> list[BaseTensor]:
    """The smallest tensors, up to `_GLANCE_NBYTES` together."""
    ends = accumulate(each.info.nbytes for each in smallest)
    return [each for each, end in zip(smallest, ends, strict=True) if end <= _GLANCE_NBYTES]


def _glance_afar(smallest: Sequence[BaseTensor]) -> list[BaseTensor]:
    """A few tensors that fit into a span each, for each is a request to the hub."""
    return [each for each in smallest if 0 < each.info.nbytes <= SPAN_NBYTES][:_GLANCE_AFAR]


def _differs(tensor: BaseTensor, base: Checkpoint) -> bool:
    """Whether a tensor of one span has another digest in the base."""
    digest = span_digest(base.read_small(tensor.info.name))
    return tensor_digest(tensor.info, [digest]) != tensor.digest


def _sidecars(manifest: Manifest, delta: Checkpoint) -> dict[str, Content]:
    """The target's sidecars, which the delta holds.

    Raises: DeltaInvalid, if one is not as it was published.
    """
    contents: dict[str, Content] = {}
    there = {*delta.sidecars, *delta.large}
    for name, sidecar in sorted(manifest.sidecars.items()):
        if name == DELTA_INDEX:
            continue
        if name not in there:
            raise DeltaInvalid(name=name, reason="it is missing")
        contents[name] = delta.sidecar(name)
        if contents[name].digest != sidecar.digest:
            raise DeltaInvalid(name=name, reason="it was changed")
    return contents
