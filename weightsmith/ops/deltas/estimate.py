"""Estimate how large an exact delta would be from a sample of its spans, and rank bases by it."""

import math
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.checkpoint.renamed import named_like
from weightsmith.codecs.base import Range
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.exact import kernel
from weightsmith.codecs.exact.sample import Piece, measure
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.options import default_workers
from weightsmith.engine.spans import Buffers
from weightsmith.errors import WeightsmithError
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.exact_delta import plan_files
from weightsmith.plan.model import TensorPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.recognise import open_model

_PIECES: Final = 64
"""Whole spans that are sampled of each kind of tensor."""
_FEW: Final = 16
"""Pieces of each kind, where inputs have to be fetched or bases are only ranked."""
_SMALL_NBYTES: Final = 64 * 1024
"""Bytes of such a piece, few enough to be fetched over a network."""
_UNRELATED: Final = 0.97
"""A model is not a base if the delta to it is larger than this share of a delta to no base."""
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated size of an exact delta; the errors are two standard errors of the sample."""

    nbytes: int
    error_nbytes: int
    changed: float
    """Estimated share of the target's elements that differ from the base's."""
    error_changed: float
    target_nbytes: int
    read_nbytes: int
    """Bytes of the target that were read for the estimate."""

    @property
    def share(self) -> float:
        """The delta's size as a share of the target's."""
        return self.nbytes / self.target_nbytes if self.target_nbytes else 0.0

    def to_document(self) -> dict[str, float]:
        """The same as JSON values."""
        return {
            "nbytes": self.nbytes,
            "error_nbytes": self.error_nbytes,
            "changed": self.changed,
            "error_changed": self.error_changed,
            "target_nbytes": self.target_nbytes,
            "read_nbytes": self.read_nbytes,
        }


@dataclass(frozen=True, slots=True)
class RankedBase:
    """A candidate for the base of a model, and how well it fits."""

    base: str
    estimate: Estimate | None
    """How large the delta to it would be; None if the model was not made from it."""
    reason: str = ""
    """Then why not, as a clause."""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """One span to sample."""

    kind: str
    rule: TensorPlan
    span: Range


def estimate(
    rules: Iterable[TensorPlan],
    inputs: Mapping[str, Checkpoint],
    *,
    coded: bool,
    pieces: int = 0,
    piece_nbytes: int = 0,
    progress: Progress = SILENCE,
) -> Estimate:
    """Encode a sample of the spans that the `rules` of an exact delta would encode.

    Tensors whose names differ only in numbers, and that share a dtype, are of one kind, and
    `pieces` are sampled of each kind: by default 64 whole spans, or, if inputs would have to be
    fetched, 16 pieces of 64 KiB, which compress a little worse. The same inputs give the same
    sample. `coded` says whether spans are encoded by class, which takes the compiled part.
    A merged LoRA (base plus a product of thin matrices) is not recognised here: such a delta comes
    out smaller than estimated.
    Raises: the errors of reading the inputs.
    """
    far = any(each.is_far(file.name) for each in inputs.values() for file in each.files)
    pieces = pieces or (_FEW if far else _PIECES)
    piece_nbytes = piece_nbytes or (_SMALL_NBYTES if far else SPAN_NBYTES)
    writer = kernel.find() if coded else None
    kinds: dict[str, list[TensorPlan]] = {}
    for rule in rules:
        kind = f"{_NUMBER.sub('*', rule.output.name)} {rule.output.dtype}"
        kinds.setdefault(kind, []).append(rule)
    tasks = [task for kind in kinds for task in _choose(kind, kinds[kind], pieces, piece_nbytes)]
    measured: dict[_Task, Piece] = {}
    progress.begin("sampling", sum(task.span.nbytes for task in tasks))

    def worker(own: Buffers) -> Callable[[_Task], None]:
        def measure_piece(task: _Task) -> None:
            target = own.block(0, task.span.nbytes)
            inputs["target"].peek_into(task.rule.output.name, task.span.start, target)
            base = next((each.info for each in task.rule.inputs if each.role == "base"), None)
            block, dtype = None, task.rule.output.dtype
            if base is not None:
                part, dtype = elements_as_bytes(task.span, task.rule.output, base), base.dtype
                block = own.block(1, part.nbytes)
                inputs["base"].peek_into(base.name, part.start, block)
            measured[task] = measure(block, dtype, target, task.rule.output.dtype, writer)
            progress.advance(task.span.nbytes)

        return measure_piece

    run_tasks(tasks, [worker(Buffers()) for _ in range(default_workers())])
    found: dict[str, list[Piece]] = {kind: [] for kind in kinds}
    for task in tasks:  # in their order, so that the sums do not depend on the workers
        found[task.kind].append(measured[task])
    totals = {kind: [rule.output for rule in rules] for kind, rules in kinds.items()}
    return _sum(totals, found, piece_nbytes)


def rank_bases(
    target: str | os.PathLike[str],
    bases: Sequence[str | os.PathLike[str]],
    *,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> list[RankedBase]:
    """Rank candidates for the base of `target` by the size of the delta to each, smallest first.

    Models that it was not made from, or that cannot be opened, come last with the reason. Reads
    less than a hundredth of a large model.
    Raises: what opening the target raises.
    """
    wanted = open_model(target, offline=offline, progress=progress)
    sample = partial(
        estimate, coded=kernel.find() is not None, pieces=_FEW, piece_nbytes=_SMALL_NBYTES
    )
    alone = sample(_rules(wanted, None), {"target": wanted})
    ranked = []
    for base in bases:
        try:
            ground = named_like(open_model(base, offline=offline), wanted.tensors)
            found = sample(_rules(wanted, ground), {"target": wanted, "base": ground})
        except WeightsmithError as error:
            ranked.append(RankedBase(os.fspath(base), None, str(error)))
            continue
        if found.nbytes > _UNRELATED * alone.nbytes:
            ranked.append(RankedBase(os.fspath(base), None, "its weights are not related to these"))
        else:
            ranked.append(RankedBase(os.fspath(base), found))
    return sorted(ranked, key=lambda each: each.estimate.nbytes if each.estimate else math.inf)


def _rules(target: Checkpoint, base: Checkpoint | None) -> list[TensorPlan]:
    """The rules of an exact delta to `base`, or of one that stores every tensor whole."""
    if base is not None:
        return [rule for shard in plan_files(base, target, {}) for rule in shard.tensors]
    return [TensorPlan(each.info, "copy@1", {}, ()) for each in target.tensors.values()]


def _choose(
    kind: str, rules: Sequence[TensorPlan], pieces: int, piece_nbytes: int
) -> Iterator[_Task]:
    """The pieces to sample of one kind: spread evenly over its bytes, each at a random place in its
    share; all of them, if there are no more than `pieces`.
    """
    counts = [-(-rule.output.nbytes // piece_nbytes) for rule in rules]
    total = sum(counts)
    numbers: Iterable[int] = range(total)
    if total > pieces:
        chance = random.Random(kind)  # noqa: S311  (it keeps no secret)
        step = total / pieces
        numbers = [int((number + chance.random()) * step) for number in range(pieces)]
    first = 0
    left = list(numbers)
    for rule, count in zip(rules, counts, strict=True):
        while left and left[0] < first + count:
            start = (left.pop(0) - first) * piece_nbytes
            yield _Task(kind, rule, Range(start, min(start + piece_nbytes, rule.output.nbytes)))
        first += count


def _sum(
    totals: Mapping[str, Sequence[TensorInfo]],
    found: Mapping[str, Sequence[Piece]],
    piece_nbytes: int,
) -> Estimate:
    """Add up the kinds: each one's mean times its size, their variances as those of independent
    samples.
    """
    nbytes = changed = nbytes_variance = changed_variance = 0.0
    whole = sum(info.nbytes for infos in totals.values() for info in infos)
    for kind, infos in totals.items():
        pieces, size = found[kind], sum(info.nbytes for info in infos)
        if not pieces:
            continue
        count = sum(-(-info.nbytes // piece_nbytes) for info in infos)
        ratio, ratio_variance = _mean([each.coded_nbytes / each.nbytes for each in pieces], count)
        share, share_variance = _mean([each.changed for each in pieces], count)
        nbytes += ratio * size
        nbytes_variance += ratio_variance * size**2
        changed += share * size
        changed_variance += share_variance * size**2
    return Estimate(
        nbytes=round(nbytes),
        error_nbytes=round(2 * math.sqrt(nbytes_variance)),
        changed=changed / whole if whole else 0.0,
        error_changed=2 * math.sqrt(changed_variance) / whole if whole else 0.0,
        target_nbytes=whole,
        read_nbytes=sum(each.nbytes for pieces in found.values() for each in pieces),
    )


def _mean(values: Sequence[float], count: int) -> tuple[float, float]:
    """The mean of a sample out of `count` values, and the variance of that mean; none if the sample
    holds all of them.
    """
    mean = sum(values) / len(values)
    if len(values) < 2 or len(values) >= count:
        return mean, 0.0
    spread = sum((each - mean) ** 2 for each in values) / (len(values) - 1)
    return mean, spread / len(values) * (1 - len(values) / count)
