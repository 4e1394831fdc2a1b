"""Where a model of torch keeps its tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class Holder:
    """Where a module keeps a parameter or buffer."""

    module: "Module"
    attribute: str
    is_parameter: bool

    @property
    def tensor(self) -> "Tensor":
        """What is there now."""
        held = self.module._parameters if self.is_parameter else self.module._buffers  # noqa: SLF001
        tensor = held[self.attribute]
        if tensor is None:
            raise TypeError(self.attribute)
        return tensor

    def put(self, tensor: "Tensor") -> None:
        """Keep another tensor there."""
        held: dict[str, Any] = (
            self.module._parameters if self.is_parameter else self.module._buffers  # noqa: SLF001
        )
        held[self.attribute] = tensor


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of the model, which several modules may share."""

    names: tuple[str, ...]
    holders: tuple[Holder, ...]

    @property
    def tensor(self) -> "Tensor":
        """What is there now."""
        return self.holders[0].tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, on the meta device too."""
        return tuple(self.tensor.shape)


def slots_of(model: "Module") -> list[Slot]:
    """The model's parameters and the buffers that it saves; what is shared is one."""
    shared: dict[int, list[tuple[str, Holder]]] = {}
    for name, holder in holders_of(model, saved=True):
        shared.setdefault(id(holder.tensor), []).append((name, holder))
    return [
        Slot(tuple(name for name, _ in held), tuple(holder for _, holder in held))
        for held in shared.values()
    ]


def holders_of(model: "Module", *, saved: bool) -> Iterator[tuple[str, Holder]]:
    """By name, where the model keeps parameters and saved buffers, or else the other buffers."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        if saved:
            for name, parameter in module._parameters.items():  # noqa: SLF001
                if parameter is not None:
                    yield dot + name, Holder(module, name, is_parameter=True)
        for name, buffer in module._buffers.items():  # noqa: SLF001
            is_saved = name not in module._non_persistent_buffers_set  # noqa: SLF001
            if buffer is not None and is_saved == saved:
                yield dot + name, Holder(module, name, is_parameter=False)
