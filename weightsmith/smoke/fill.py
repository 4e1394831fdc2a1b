"""Fill a model in memory with a checkpoint's tensors, one after the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import BuffersUnset, ModelDiffers, TiedDiffer
from weightsmith.progress import Progress
from weightsmith.smoke.conversions import Conversion, find_conversions
from weightsmith.smoke.slots import Slot, holders_of, slots_of
from weightsmith.units import counted

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

_META: Final = "meta"
"""The device of tensors that have a shape and no values."""


@dataclass(frozen=True, slots=True)
class LoadedInto:
    """What a model was filled with."""

    names: tuple[str, ...]
    """The source's tensors that the model has now."""
    unused: tuple[str, ...]
    """Those that it has no place for."""
    cast: tuple[str, ...]
    """Those that the model keeps in another dtype than the source, by its own names."""


def fill(
    model: "Module",
    checkpoint: Checkpoint,
    device: "str | torch.device",
    progress: Progress,
    *,
    strict: bool,
) -> LoadedInto:
    """Fill a model of torch with a checkpoint's tensors, in the order of its files.

    Raises: as `ops.load_into.load_into`.
    """
    import torch

    slots = slots_of(model)
    by_name = {name: slot for slot in slots for name in slot.names}
    found = find_conversions(model, checkpoint.tensors)
    taken = {name for each in found.made for name in each.names}
    wanted = _wanted(model, slots, [n for n in checkpoint.tensors if n not in taken], found.renamed)
    unused = [
        name
        for name, tensor in checkpoint.tensors.items()
        if name not in wanted and name not in taken and not is_buffer(name, tensor.info.shape)
    ]
    _require_fit(checkpoint, slots, wanted, found.made, unused if strict else ())
    _compute_buffers(model, device)
    filled: dict[int, str] = {}
    cast: dict[str, None] = {}
    names = [*wanted, *(name for each in found.made for name in each.names)]
    progress.begin(f"loading {checkpoint.label}", sum(checkpoint[n].nbytes for n in names))

    def read(name: str) -> "Tensor":
        tensor = checkpoint[name].torch()
        progress.advance(checkpoint[name].nbytes)
        return tensor

    def put(slot: Slot, name: str, tensor: "Tensor") -> None:
        there = slot.tensor
        if id(slot) in filled:
            if not torch.equal(there, tensor.to(there.device, there.dtype)):
                raise TiedDiffer(a=filled[id(slot)], b=name, source=checkpoint.label)
            return
        filled[id(slot)] = name
        if tensor.dtype != there.dtype:
            cast[slot.names[0]] = None
        _fill(slot, tensor, device)

    for name, slot in wanted.items():
        put(slot, name, read(name))
    for conversion in found.made:
        for name, tensor in conversion.make(read).items():
            put(by_name[name], conversion.names[0], tensor)
    return LoadedInto(tuple(names), tuple(unused), tuple(cast))


def _fill(slot: Slot, tensor: "Tensor", device: "str | torch.device") -> None:
    """Give a tensor of the model its values; the source's own memory becomes the model's where that
    can be.
    """
    import torch

    there = slot.tensor
    if there.device.type != _META:
        with torch.no_grad():
            there.copy_(tensor)
        return
    made = tensor.to(device, there.dtype)
    if slot.holders[0].is_parameter:
        made = torch.nn.Parameter(made, requires_grad=there.requires_grad)
    for holder in slot.holders:
        holder.put(made)


def _wanted(
    model: "Module", slots: list[Slot], names: Iterable[str], renamed: Mapping[str, str]
) -> dict[str, Slot]:
    """The model's slot for each tensor of the source, in the source's order; `renamed` maps some of
    the source's names to other names of the model.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    known: dict[str, Slot] = {}
    for slot in slots:
        for name in slot.names:
            known |= {each: slot for each in _spellings(name, prefix) if each not in known}
        known |= dict.fromkeys(slot.names, slot)
    by_source = {name: known.get(renamed.get(name, name)) or known.get(name) for name in names}
    return {name: slot for name, slot in by_source.items() if slot is not None}


def _spellings(name: str, prefix: str) -> tuple[str, ...]:
    """How a source may call a tensor of the model, whose body has a prefix or is a model itself."""
    return name, name.removeprefix(prefix), prefix.removeprefix(".") + name


def _require_fit(
    checkpoint: Checkpoint,
    slots: list[Slot],
    wanted: Mapping[str, Slot],
    made: Sequence[Conversion],
    unused: "list[str] | tuple[()]",
) -> None:
    """Raises: ModelDiffers, with every reason."""
    given = {id(slot) for slot in wanted.values()}
    by_name = {name: slot for slot in slots for name in slot.names}
    wrong: list[str] = []
    for name, slot in wanted.items():
        theirs = checkpoint[name].shape
        if slot.shape != theirs:
            wrong.append(f"{name} has the shape {list(theirs)}, not {list(slot.shape)}")
    for conversion in made:
        what = f"{counted(len(conversion.parts), 'tensor')} like {conversion.parts[0][0]}"
        shapes = conversion.shapes(lambda name: checkpoint[name].shape)
        if isinstance(shapes, str):
            wrong.append(f"{what} make no {conversion.target}: {shapes}")
            shapes = {conversion.target: by_name[conversion.target].shape}
        for name, theirs in shapes.items():
            if name not in by_name:
                wrong.append(f"the model has no place for {name}, which {what} make")
                continue
            given.add(id(by_name[name]))
            ours = by_name[name].shape
            if ours != theirs:
                wrong.append(f"{what} make {name} of {list(theirs)}, not {list(ours)}")
    problems = [f"{slot.names[0]} is not there" for slot in slots if id(slot) not in given]
    problems += wrong
    problems += [f"the model has no place for {name}" for name in unused]
    if problems:
        raise ModelDiffers(source=checkpoint.label, count=len(problems), context=problems)


def _compute_buffers(model: "Module", device: "str | torch.device") -> None:
    """Let transformers compute the buffers that no file holds, as rotary frequencies.

    It may initialise other tensors too; those are filled from the source afterwards.
    Raises: BuffersUnset, for those that it has no way to compute.
    """
    import torch

    unset = [(n, p) for n, p in holders_of(model, saved=False) if p.tensor.device.type == _META]
    initialise = getattr(model, "_init_weights", lambda _: None)
    for _, holder in unset:
        holder.put(torch.full_like(holder.tensor, _never(holder.tensor.dtype), device=device))
    with torch.no_grad():
        for module in {id(holder.module): holder.module for _, holder in unset}.values():
            initialise(module)
    left = [
        name
        for name, holder in unset
        if holder.tensor.numel() and bool(_is_never(holder.tensor).all())
    ]
    if left:
        raise BuffersUnset(count=len(left), context=left)


def _never(dtype: "torch.dtype") -> float | int | bool:
    """A value that no computed buffer is full of."""
    import torch

    if dtype == torch.bool:
        return True
    return torch.nan if dtype.is_floating_point else torch.iinfo(dtype).min


def _is_never(tensor: "Tensor") -> "Tensor":
    import torch

    if tensor.is_floating_point():
        return tensor.isnan()
    return tensor == (True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).min)
