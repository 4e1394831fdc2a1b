"""Measure what changed between a base and a fine-tune, and the error that an adapter leaves."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.codecs.measure import Measure
from weightsmith.engine.derived import Derived
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers
from weightsmith.formats.tensors import DTYPES, SUMMABLE, TensorInfo
from weightsmith.ops.diff_pairs import Comparison, measure_pairs
from weightsmith.ops.merge_lora import MergedDType, plan_merge_lora
from weightsmith.plan.model import InputTensor, TensorPlan
from weightsmith.progress import Progress
from weightsmith.sources.locate import label_of


def changes_of(
    base: Checkpoint, target: Checkpoint, options: Options, progress: Progress
) -> dict[str, Measure]:
    """How tensors of the target differ from the base's of the same name, for those that do.

    The base is compared as rounded to the target's dtypes. A tensor of another shape, or of a dtype
    that cannot be cast to the target's, is there with an empty measure.
    """
    ours, theirs = infos_of(base), infos_of(target)
    both = [name for name in theirs if name in ours]
    alike = [name for name in both if _are_comparable(ours[name], theirs[name])]
    if any(ours[name].dtype != theirs[name].dtype for name in alike):
        base = _cast(base, [(ours[name], theirs[name].dtype) for name in alike])
        ours = infos_of(base)
    found = _measured(
        base, target, [(ours[name], theirs[name]) for name in alike], options, progress
    )
    return {n: found.get(n, Measure()) for n in both if n not in found or _moved(found[n])}


def _are_comparable(ours: TensorInfo, theirs: TensorInfo) -> bool:
    """Whether the shapes agree, and the dtypes do or can be cast."""
    dtypes = {ours.dtype, theirs.dtype}
    return ours.shape == theirs.shape and (len(dtypes) == 1 or dtypes <= SUMMABLE)


def _cast(base: Checkpoint, dtypes: Iterable[tuple[TensorInfo, str]]) -> Checkpoint:
    """The base cast to the target's dtypes as it is read: such rounding is no change that an
    adapter could make.
    """
    return Derived(
        label=base.label,
        directory=base.directory,
        rules=[TensorPlan.cast_or_copy(InputTensor("base", info), to) for info, to in dtypes],
        inputs={"base": base},
        sidecars={},
    )


def _moved(measure: Measure) -> bool:
    """Whether any value changed; a zero that only changed its sign does not count."""
    other = measure.change_squares or measure.sized < measure.numel
    return bool(measure.changed and other)


def _measured(
    a: Checkpoint,
    b: Checkpoint,
    pairs: list[tuple[TensorInfo, TensorInfo]],
    options: Options,
    progress: Progress,
) -> dict[str, Measure]:
    """How tensors of B differ from those of A, by name."""
    comparisons = [Comparison(*pair) for pair in pairs]
    progress.begin("comparing", sum(each.nbytes for each in comparisons))
    buffers = [Buffers() for _ in range(options.threads)]
    found = measure_pairs(comparisons, a.read_into, b.read_into, buffers, progress.advance)
    return {name: each.measure for name, each in found.items()}


def left_by(
    base: str | os.PathLike[str],
    adapter: Path,
    target: Checkpoint,
    changed: Iterable[str],
    options: Options,
    progress: Progress,
) -> dict[str, Measure]:
    """The error that an adapter leaves: how the tensors named in `changed` differ between the
    target and the base with the adapter merged into it, by name.

    The merge is computed as it is read, in the dtype of most of the target's tensors.
    """
    nowhere = adapter.with_name(f".{adapter.name}.merged")  # a plan needs a target; none is written
    spelt = {code: name for name, code in DTYPES.items()}
    dtype = cast("MergedDType", spelt.get(target.common_dtype, "base"))
    merged = plan_merge_lora(base, adapter, nowhere, dtype=dtype)
    there = Derived(
        label=f"{adapter} on {label_of(base)}",
        directory=adapter,
        rules=merged.plan.tensors,
        inputs=merged.bindings.inputs,
        sidecars={},
    )
    ours, theirs = infos_of(there), infos_of(target)
    names = [n for n in changed if n in ours and ours[n].shape == theirs[n].shape]
    pairs = [(ours[name], theirs[name]) for name in names]
    return _measured(there, target, pairs, options, progress)


def infos_of(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    """Name, shape and dtype of all tensors except buffers, which no loader reads."""
    infos = {name: tensor.info for name, tensor in checkpoint.tensors.items()}
    return {name: info for name, info in infos.items() if not is_buffer(name, info.shape)}
