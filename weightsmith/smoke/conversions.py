"""Tensors that transformers makes from several of a file's, as all experts of a layer, stacked.

Since version 5 transformers keeps some architectures in another form than their files, and has a
table of how the one is made of the other. That table is followed; there is none of our own.
Source: transformers 5.23, ``conversion_mapping.py`` and ``core_model_loading.py``.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class Conversion:
    """Tensors of a source, and the model's tensors that are made from them."""

    target: str
    """The first tensor of the model that it makes; others may come of the same ones."""
    converter: Any
    """A ``WeightConverter`` of transformers, without tensors."""
    model: "Module"
    parts: list[tuple[str, str]] = field(default_factory=list)
    """Names in the source, each with the pattern of the converter that it fits, in the order in
    which they are put together.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the source."""
        return tuple(name for name, _ in self.parts)

    def make(self, read: "Callable[[str], Tensor]") -> "dict[str, Tensor]":
        """The model's tensors by name, made of what `read` gives for names of the source.

        Memory: all of these tensors, and what transformers makes on the way: about three times the
        result.
        Raises: whatever transformers raises where they do not fit together.
        """
        converter = deepcopy(self.converter)
        for name, pattern in self.parts:
            converter.add_tensor(self.target, name, pattern, _Read(read, name))
        config = getattr(self.model, "config", None)
        made = converter.convert(self.target, model=self.model, config=config)
        tensors = ((n, each[0] if isinstance(each, list) else each) for n, each in made.items())
        return {name: each.contiguous() for name, each in tensors}

    def shapes(
        self, shape_of: Callable[[str], tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]] | str:
        """The shapes of what `make` gives, by name, or why it would give nothing; reads nothing."""
        import torch

        try:
            made = self.make(lambda name: torch.empty(shape_of(name), device="meta"))
        except Exception as error:  # noqa: BLE001 - shapes that do not fit can raise anything
            return str(error).partition("\n")[0]
        return {name: tuple(each.shape) for name, each in made.items()}


@dataclass(frozen=True, slots=True)
class _Read:
    """Reads a tensor when it is called; transformers accepts such a callable for a tensor."""

    read: "Callable[[str], Tensor]"
    name: str

    def __call__(self) -> "Tensor":
        return self.read(self.name)


@dataclass(frozen=True, slots=True)
class Conversions:
    """How transformers takes the names of a source."""

    renamed: Mapping[str, str]
    """The model's name for tensors that are taken as they are, where it is another one."""
    made: tuple[Conversion, ...]


def find_conversions(model: "Module", names: Iterable[str]) -> Conversions:
    """What transformers does with tensors of these names for this model: nothing, where it is no
    model of transformers, or of a version without the table.
    """
    found: dict[str, Conversion] = {}
    renamed: dict[str, str] = {}
    table = _table(model)
    if not table:
        return Conversions(renamed, ())
    from transformers import core_model_loading as loading

    library: Any = loading
    converters = [each for each in table if isinstance(each, library.WeightConverter)]
    renamings = [each for each in table if isinstance(each, library.WeightRenaming)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    held = model.state_dict()
    for name in sorted(names, key=library.dot_natural_key):  # experts are stacked in this order
        target, pattern = library.rename_source_key(
            name, renamings, converters, getattr(model, "base_model_prefix", ""), held
        )
        if target not in held:
            continue
        if pattern is None:
            if target != name:
                renamed[name] = target
            continue
        if target not in found:
            found[target] = Conversion(target, by_pattern[pattern], model)
        found[target].parts.append((name, pattern))
    return Conversions(renamed, tuple(found.values()))


def _table(model: "Module") -> list[Any]:
    """The rules of transformers for a model; a model of it cannot be without its being imported."""
    if "transformers" not in sys.modules:
        return []
    import transformers

    if not isinstance(model, transformers.PreTrainedModel):
        return []
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # before version 5
        return []
    return list(get_model_conversion_mapping(model))
