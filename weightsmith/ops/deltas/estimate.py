"""How large an exact delta would be, from a sample of its spans."""

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
"""Spans sampled of each kind of tensor."""
_FEW: Final = 16
"""Pieces of each kind, where only the nearest base is looked for."""
_SMALL_NBYTES: Final = 64 * 1024
"""Bytes of such a piece, few enough to be fetched over a network."""
_UNRELATED: Final = 0.97
"""A base is no base if the delta to it takes more than this share of the delta to none."""
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A delta that was not made; errors are two standard errors of the sample."""

    nbytes: int
    error_nbytes: int
    changed: float
    """Share of the target's elements that are others than the base's."""
    error_changed: float
    target_nbytes: int
    read_nbytes: int
    """What was read of the target for it."""

    @property
    def share(self) -> float:
        """Of the target's size."""
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
    """A model that another may have been made from."""

    base: str
    estimate: Estimate | None
    """What a delta to it would come to; None where it is no base."""
    reason: str = ""
    """Why it is none, as a clause."""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
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
    """Code a sample of the spans that the `rules` of an exact delta would code.

    Tensors are of one kind by their names without numbers, and `pieces` are taken of each kind. The
    same inputs give the same sample. By default these are whole spans, 64 of each kind; of inputs
    that would have to be fetched, a few small pieces, which code a little worse.
    That a tensor is its base plus a product of thin matrices, a merged LoRA, is not looked for:
    such a delta comes out smaller.
    Raises: what reading meets.
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
    """Which of several models another was made from: the one to which its delta is the smallest
    comes first, those that are none come last, with the reason.

    Reads less than a hundredth of a large model.
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
            ranked.append(RankedBase(os.fspath(base), None, "its weights tell nothing of these"))
        else:
            ranked.append(RankedBase(os.fspath(base), found))
    return sorted(ranked, key=lambda each: each.estimate.nbytes if each.estimate else math.inf)


def _rules(target: Checkpoint, base: Checkpoint | None) -> list[TensorPlan]:
    """Those of an exact delta to a base, or to none."""
    if base is not None:
        return [rule for shard in plan_files(base, target, {}) for rule in shard.tensors]
    return [TensorPlan(each.info, "copy@1", {}, ()) for each in target.tensors.values()]


def _choose(
    kind: str, rules: Sequence[TensorPlan], pieces: int, piece_nbytes: int
) -> Iterator[_Task]:
    """Pieces spread over all bytes of a kind: all, where there are no more than are wanted."""
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
    """Each kind's mean times its size; their errors are independent."""
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
    """The mean of a sample of `count` values, and its variance."""
    mean = sum(values) / len(values)
    if len(values) < 2 or len(values) >= count:
        return mean, 0.0
    spread = sum((each - mean) ** 2 for each in values) / (len(values) - 1)
    return mean, spread / len(values) * (1 - len(values) / count)
