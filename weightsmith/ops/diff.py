"""Compare two checkpoints tensor by tensor."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layers import name_order, positions
from weightsmith.checkpoint.renamed import named_like
from weightsmith.codecs.measure import FLOATS
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers
from weightsmith.formats.tensors import SUMMABLE, TORCH_NAMES, TensorInfo
from weightsmith.ops.diff_fingerprints import digests_known, fingerprint_all
from weightsmith.ops.diff_pairs import Comparison, measure_pairs
from weightsmith.ops.diff_result import Difference, Side, TensorDifference
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.dequantised import dequantised, quantisation_of
from weightsmith.sources.exact import tell_slow
from weightsmith.sources.recognise import open_model
from weightsmith.units import counted


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    offline: bool = False,
    fingerprints: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Difference:
    """Compare all tensors of two sources, however they are spread over files; sidecars are not
    compared.

    `fingerprints`: compute those of both models too. Tensors are read a second time for them only
    if the other model lacks them, if the sizes of their elements differ, or if they were compared
    as other numbers than they are stored as.
    If one model is quantised, or both in different ways, they are compared as the floats that they
    stand for.
    Memory: a few spans a worker. Torch is not needed.
    Raises: QuantisationInvalid, QuantisationUnknown; as `open_model`.
    """
    stored_a, stored_b = (open_model(each, offline=offline, progress=progress) for each in (a, b))
    floats_a, after, said = _as_floats(stored_a, stored_b)
    before = named_like(floats_a, after.tensors)
    ours, theirs = _infos(before), _infos(after)
    names = sorted(ours.keys() | theirs.keys(), key=name_order)
    matched = [
        _comparison(ours[name], theirs[name]) for name in names if name in ours and name in theirs
    ]
    pairs = [pair for pair in matched if pair is not None]
    tell_slow(progress, before, after)
    progress.begin("comparing", sum(pair.nbytes for pair in pairs))
    buffers = [Buffers() for _ in range((options or Options()).threads)]
    measured = measure_pairs(
        pairs,
        before.read_into,
        after.read_into,
        buffers,
        progress.advance,
        digests=fingerprints,
    )
    marks = ["", ""]
    if fingerprints:
        known_a, known_b = digests_known(pairs, measured, before, after)
        # A's tensors may have got B's names; they are the same ones in the same order.
        own_names = dict(zip(before.tensors, floats_a.tensors, strict=True))
        known_a = {own_names[name]: mark for name, mark in known_a.items()}
        marks = fingerprint_all(
            [
                (stored_a, known_a if floats_a is stored_a else {}),
                (stored_b, known_b if after is stored_b else {}),
            ],
            buffers,
            progress,
        )
    place = positions(names)
    measures = {name: each.measure for name, each in measured.items()}
    tensors = tuple(
        TensorDifference(name, place[name], ours.get(name), theirs.get(name), measures.get(name))
        for name in names
    )
    return Difference(
        before.label,
        after.label,
        tensors,
        notes=(*said, *_notes(before, after, tensors)),
        sides=(_side(stored_a, marks[0]), _side(stored_b, marks[1])),
    )


def _side(checkpoint: Checkpoint, mark: str) -> Side:
    """Which model this is, with its fingerprint `mark`."""
    # Path.exists would raise where a name is too long, as that of a chain may be.
    here = os.path.abspath(checkpoint.label) if os.path.lexists(checkpoint.label) else ""  # noqa: PTH100
    place = checkpoint.origin or here
    return Side(place, len(checkpoint.tensors), checkpoint.nbytes, mark)


def _as_floats(a: Checkpoint, b: Checkpoint) -> tuple[Checkpoint, Checkpoint, list[str]]:
    """Both models with quantised weights read as floats, unless both are quantised alike; and notes
    that say so.

    Raises: QuantisationInvalid, QuantisationUnknown.
    """
    found = {side: quantisation_of(c) for side, c in (("A", a), ("B", b))}
    if str(found["A"]) == str(found["B"]):
        return a, b, []
    others = [c for c, side in ((a, "A"), (b, "B")) if found[side] is None]
    dtype = others[0].common_dtype if others and others[0].common_dtype in SUMMABLE else "BF16"
    sides, notes = {"A": a, "B": b}, []
    for side, quantised in found.items():
        if quantised is not None:
            sides[side] = dequantised(sides[side], quantised, dtype)
            meant = f"compared as the {TORCH_NAMES[dtype]} that it stands for"
            notes.append(f"{side} is quantised ({quantised}): {meant}")
    return sides["A"], sides["B"], notes


def _infos(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    """Name, shape and dtype of all tensors except buffers, which no loader reads."""
    infos = {name: tensor.info for name, tensor in checkpoint.tensors.items()}
    return {name: info for name, info in infos.items() if not is_buffer(name, info.shape)}


def _comparison(a: TensorInfo, b: TensorInfo) -> Comparison | None:
    """The elements of a tensor that can be compared: all, or the rows that both sides have; None if
    shapes or dtypes do not allow it.
    """
    if a.dtype != b.dtype and not {a.dtype, b.dtype} <= FLOATS:
        return None
    shared = a.shape
    if a.shape != b.shape:
        if len(a.shape) < 2 or a.shape[1:] != b.shape[1:]:
            return None
        shared = (min(a.shape[0], b.shape[0]), *a.shape[1:])
    return Comparison(replace(a, shape=shared), replace(b, shape=shared))


def _notes(a: Checkpoint, b: Checkpoint, tensors: Iterable[TensorDifference]) -> Iterator[str]:
    """Notes for whoever reads the numbers, as sentences."""
    buffers = sorted({*a.tensors} - {*_infos(a)} | {*b.tensors} - {*_infos(b)})
    if buffers:
        kinds = sorted({".".join(name.split(".")[-2:]) for name in buffers})
        unread = counted(len(buffers), "buffer")
        yield f"left out: {unread} that no loader reads: {', '.join(kinds)}"
    both = [(t, t.a, t.b, t.measure) for t in tensors if t.a is not None and t.b is not None]
    for count, word, what in (
        (
            sum(a.dtype != b.dtype for _, a, b, measure in both if measure),
            "tensor",
            "of another dtype, compared by value",
        ),
        (
            sum(measure is None for *_, measure in both),
            "tensor",
            "with shapes or dtypes that cannot be compared",
        ),
        (
            sum(bool(m and m.changed) for _, a, _, m in both if a.dtype not in FLOATS),
            "changed tensor",
            "without floats: shares are counted, sizes are not",
        ),
        (
            sum(m.numel - m.sized for _, a, _, m in both if m and a.dtype in FLOATS),
            "element",
            "NaN or infinite in A or B, which have no size",
        ),
    ):
        if count:
            yield f"{counted(count, word)} {what}"
    for side, checkpoint in (("A", a), ("B", b)):
        yield from (f"{side}: {note}" for note in checkpoint.notes)
