"""Fill a model in memory with a checkpoint's tensors, one after the other."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import BuffersUnset, ModelDiffers, TiedDiffer
from weightsmith.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

_META: Final = "meta"
"""The device of tensors that have a shape and no values."""
_EXPERT: Final = re.compile(r"\bexperts\.\d+\.")
"""In the name of a tensor that is one expert's."""


@dataclass(frozen=True, slots=True)
class LoadedInto:
    """What a model was filled with."""

    names: tuple[str, ...]
    """The source's tensors that the model has now."""
    unused: tuple[str, ...]
    """Those that it has no place for."""
    cast: tuple[str, ...]
    """Those that the model keeps in another dtype than the source, by its own names."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module keeps a parameter or buffer."""

    module: "Module"
    attribute: str
    is_parameter: bool

    @property
    def tensor(self) -> "Tensor":
        held = self.module._parameters if self.is_parameter else self.module._buffers  # noqa: SLF001
        tensor = held[self.attribute]
        if tensor is None:
            raise TypeError(self.attribute)
        return tensor

    def put(self, tensor: "Tensor") -> None:
        held: dict[str, Any] = (
            self.module._parameters if self.is_parameter else self.module._buffers  # noqa: SLF001
        )
        held[self.attribute] = tensor


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor of the model, which several modules may share."""

    names: tuple[str, ...]
    places: tuple[_Place, ...]


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

    slots = _slots(model)
    wanted = _wanted(model, slots, checkpoint)
    unused = [
        name
        for name, tensor in checkpoint.tensors.items()
        if name not in wanted and not is_buffer(name, tensor.info.shape)
    ]
    _require_fit(checkpoint, slots, wanted, unused if strict else ())
    _compute_buffers(model, device)
    filled: dict[int, str] = {}
    cast = []
    progress.begin(f"loading {checkpoint.label}", sum(checkpoint[n].nbytes for n in wanted))
    for name in wanted:
        slot, tensor = wanted[name], checkpoint[name].torch()
        there = slot.places[0].tensor
        if id(slot) in filled:
            if not torch.equal(there, tensor.to(there.device, there.dtype)):
                raise TiedDiffer(a=filled[id(slot)], b=name, source=checkpoint.label)
        else:
            filled[id(slot)] = name
            if tensor.dtype != there.dtype:
                cast.append(slot.names[0])
            _fill(slot, tensor, device)
        progress.advance(checkpoint[name].nbytes)
    return LoadedInto(tuple(wanted), tuple(unused), tuple(cast))


def _fill(slot: _Slot, tensor: "Tensor", device: "str | torch.device") -> None:
    """Give a tensor of the model its values; the source's own memory becomes the model's where that
    can be.
    """
    import torch

    there = slot.places[0].tensor
    if there.device.type != _META:
        with torch.no_grad():
            there.copy_(tensor)
        return
    made = tensor.to(device, there.dtype)
    if slot.places[0].is_parameter:
        made = torch.nn.Parameter(made, requires_grad=there.requires_grad)
    for place in slot.places:
        place.put(made)


def _slots(model: "Module") -> list[_Slot]:
    """The model's parameters and the buffers that it saves; what is shared is one."""
    shared: dict[int, list[tuple[str, _Place]]] = {}
    for name, place in _places(model, saved=True):
        shared.setdefault(id(place.tensor), []).append((name, place))
    return [
        _Slot(tuple(name for name, _ in held), tuple(place for _, place in held))
        for held in shared.values()
    ]


def _places(model: "Module", *, saved: bool) -> Iterator[tuple[str, _Place]]:
    """By name, where the model keeps parameters and saved buffers, or else the other buffers."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        if saved:
            for name, parameter in module._parameters.items():  # noqa: SLF001
                if parameter is not None:
                    yield dot + name, _Place(module, name, is_parameter=True)
        for name, buffer in module._buffers.items():  # noqa: SLF001
            is_saved = name not in module._non_persistent_buffers_set  # noqa: SLF001
            if buffer is not None and is_saved == saved:
                yield dot + name, _Place(module, name, is_parameter=False)


def _wanted(model: "Module", slots: list[_Slot], checkpoint: Checkpoint) -> dict[str, _Slot]:
    """By the source's names, in its order, what each tensor is for."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    known: dict[str, _Slot] = {}
    for slot in slots:
        for name in slot.names:
            known |= {each: slot for each in _spellings(name, prefix) if each not in known}
        known |= dict.fromkeys(slot.names, slot)
    return {name: known[name] for name in checkpoint.tensors if name in known}


def _spellings(name: str, prefix: str) -> tuple[str, ...]:
    """How a source may call a tensor of the model, whose body has a prefix or is a model itself."""
    return name, name.removeprefix(prefix), prefix.removeprefix(".") + name


def _require_fit(
    checkpoint: Checkpoint,
    slots: list[_Slot],
    wanted: Mapping[str, _Slot],
    unused: "list[str] | tuple[()]",
) -> None:
    """Raises: ModelDiffers, with every reason."""
    given = {id(slot) for slot in wanted.values()}
    problems = [f"{slot.names[0]} is not there" for slot in slots if id(slot) not in given]
    for name, slot in wanted.items():
        ours, theirs = tuple(slot.places[0].tensor.shape), checkpoint[name].shape
        if ours != theirs:
            problems.append(f"{name} has the shape {list(theirs)}, not {list(ours)}")
    problems += [f"the model has no place for {name}" for name in unused]
    if problems:
        hint = None
        if any(_EXPERT.search(name) for name in checkpoint.tensors if name not in wanted):
            hint = (
                "the source has each expert for itself, the model all of a layer in one tensor: "
                f"weightsmith convert {checkpoint.label} DIR, and from_pretrained stacks them"
            )
        raise ModelDiffers(
            source=checkpoint.label, count=len(problems), context=problems, hint=hint
        )


def _compute_buffers(model: "Module", device: "str | torch.device") -> None:
    """Let transformers compute anew what no file holds: the frequencies of rotary positions, say.

    Whatever else that initialises is filled from the source afterwards.
    Raises: BuffersUnset, for those that it has no way to compute.
    """
    import torch

    unset = [(n, p) for n, p in _places(model, saved=False) if p.tensor.device.type == _META]
    initialise = getattr(model, "_init_weights", lambda _: None)
    for _, place in unset:
        place.put(torch.full_like(place.tensor, _never(place.tensor.dtype), device=device))
    with torch.no_grad():
        for module in {id(place.module): place.module for _, place in unset}.values():
            initialise(module)
    left = [
        name
        for name, place in unset
        if place.tensor.numel() and bool(_is_never(place.tensor).all())
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
