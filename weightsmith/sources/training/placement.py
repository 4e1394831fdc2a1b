"""Which box of a tensor a process holds, by the placements of its DTensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from weightsmith.formats.pickle_names import DTYPES
from weightsmith.formats.tensors import TensorInfo
from weightsmith.formats.torch_pickle import Record, Symbol, View, Wrapped

_PLACEMENTS: Final = "torch.distributed.tensor.placement_types"


class PlacementError(Exception):
    """A spec that cannot be, or is of a kind that is not known; its text says why."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One process's part of a DTensor."""

    view: View
    """Of the part."""
    start: tuple[int, ...]
    """The index in the whole of the part's first element."""
    shape: tuple[int, ...]
    """Of the part, by its place."""
    processes: int
    """How many processes there are in the mesh."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """What one axis of the mesh does to a tensor."""

    number: int
    size: int
    at: int
    """This process's place on the axis."""
    dim: int
    """The tensor's dimension that is cut along it."""
    split: int
    """Of a strided shard, into how many parts the axes to its right cut the dimension; else 0."""


def whole_of(name: str, wrapped: Wrapped) -> TensorInfo:
    """Name, dtype and shape of a tensor of which a file holds a part.

    Raises: PlacementError.
    """
    dtype = DTYPES.get(wrapped.dtype.name) if isinstance(wrapped.dtype, Symbol) else None
    if dtype is None or not are_counts(wrapped.shape):
        raise PlacementError(f"{name} has no known dtype or shape")
    return TensorInfo(name, dtype, tuple(wrapped.shape))


def place(wrapped: Wrapped, whole: TensorInfo) -> Placed:
    """Where a DTensor's part lies in the whole.

    An axis with Shard cuts a dimension as ``torch.chunk`` does: parts of the same length, rounded
    up, the last ones shorter or empty. Axes cut one after the other, from left to right; a strided
    shard (FSDP over tensor parallelism) after those to its right. On an axis with Replicate all
    hold the same.
    Raises: PlacementError.
    """
    match wrapped.state:
        case (None, {"_local_tensor": View() as view, "_spec": Record() as spec}):
            pass
        case _:
            raise PlacementError(f"{whole.name} has no part, or no spec")
    mesh, placements = spec.get("mesh"), spec.get("placements")
    if not isinstance(mesh, Record) or not isinstance(placements, tuple | list):
        raise PlacementError(f"{whole.name} has no mesh, or no placements")
    sizes, at = _sizes(mesh), mesh.get("_coordinate_on_dim")
    if not are_counts(at) or not len(sizes) == len(at) == len(placements):
        raise PlacementError(f"{whole.name} does not say where in the mesh its part belongs")
    if any(place >= size for place, size in zip(at, sizes, strict=True)):
        raise PlacementError(f"{whole.name} belongs outside of its mesh")
    axes = [
        axis
        for number, placement in enumerate(placements)
        if (axis := _axis(number, sizes[number], at[number], placement, whole)) is not None
    ]
    start, shape = list[int](), list[int]()
    for dim, size in enumerate(whole.shape):
        low, high = 0, size
        for axis in _in_order([each for each in axes if each.dim == dim], spec, whole):
            length = -(-(high - low) // axis.size)
            low, high = min(low + axis.at * length, high), min(low + (axis.at + 1) * length, high)
        start.append(low)
        shape.append(high - low)
    return Placed(view, tuple(start), tuple(shape), math.prod(sizes))


def _sizes(mesh: Record) -> tuple[int, ...]:
    """How many processes there are along each axis.

    torch 2.13 writes a layout of axes; those before it one of shapes, or a tensor of ranks.
    """
    layout, ranks = mesh.get("_layout"), mesh.get("mesh")
    if isinstance(layout, Record):
        axes = layout.get("axes")
        shapes = (
            [axis.get("shape") for axis in axes if isinstance(axis, Record)]
            if isinstance(axes, tuple | list)
            else layout.get("shape")
        )
        if type(shapes) is int:
            shapes = (shapes,)
        if isinstance(shapes, tuple | list):
            sizes = tuple(math.prod(_flat(each)) for each in shapes)
            if sizes and all(sizes):
                return sizes
    elif isinstance(ranks, View) and are_counts(ranks.shape) and all(ranks.shape):
        return tuple(ranks.shape)
    raise PlacementError("its mesh has no known shape")


def _flat(value: object) -> tuple[int, ...]:
    if type(value) is int and value > 0:
        return (value,)
    if isinstance(value, tuple | list) and all(type(each) is int and each > 0 for each in value):
        return tuple(value)
    raise PlacementError("its mesh has no known shape")


def _axis(number: int, size: int, at: int, placement: object, whole: TensorInfo) -> _Axis | None:
    """What an axis cuts; None where all along it hold the same."""
    if isinstance(placement, Record):
        kind, dim = placement.name.removeprefix(f"{_PLACEMENTS}."), placement.get("dim")
        if kind == "Replicate":
            return None
        if type(dim) is int and -len(whole.shape) <= dim < len(whole.shape):
            split = placement.get("split_factor") if kind == "_StridedShard" else 0
            if kind in {"Shard", "_StridedShard"} and type(split) is int and split >= 0:
                return _Axis(number, size, at, dim % len(whole.shape), split)
    raise PlacementError(f"{whole.name} has a placement that is not known")


def _in_order(axes: Sequence[_Axis], spec: Record, whole: TensorInfo) -> list[_Axis]:
    """The axes that cut one dimension, in the order in which they do."""
    if len(axes) > 1 and not any(axis.split for axis in axes):
        return _by_shard_order(axes, spec, whole)
    ordered: list[_Axis] = []
    for axis in reversed(axes):
        if axis.split:
            if math.prod(each.size for each in ordered) != axis.split:
                reason = f"{whole.name} is cut in strides that its mesh does not account for"
                raise PlacementError(reason)
            ordered.append(axis)
        else:
            ordered.insert(0, axis)
    return ordered


def _by_shard_order(axes: Sequence[_Axis], spec: Record, whole: TensorInfo) -> list[_Axis]:
    """From left to right, unless the spec says otherwise: (dimension, axes in their order)."""
    entries = spec.get("shard_order")
    if not isinstance(entries, tuple | list):
        return list(axes)
    for entry in entries:
        match entry:
            case Record(arguments=(int(dim), (*numbers,))) if dim == axes[0].dim:
                by_number = {axis.number: axis for axis in axes}
                if sorted(by_number) == sorted(n for n in numbers if type(n) is int):
                    return [by_number[number] for number in numbers if type(number) is int]
    raise PlacementError(f"{whole.name} is cut in an order that is not known")


def are_counts(value: object) -> TypeGuard[tuple[int, ...]]:
    """Whether it is a tuple or list of whole numbers from 0 on; a bool is none."""
    return isinstance(value, tuple | list) and all(type(n) is int and n >= 0 for n in value)
