"""A quantised model: its weights, what each is stored as, and the rule that makes floats of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weightsmith.errors import QuantisationInvalid
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import InputTensor, TensorPlan

ReadSmall = Callable[[str], bytes]
"""The bytes of a small tensor, by name."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight and its parts."""

    name: str
    """As the model without a quantiser has it."""
    rule: str
    """Id in `codecs.registry`."""
    params: Mapping[str, str]
    """Settings of the rule, but for the dtype of the result."""
    inputs: tuple[TensorInfo, ...]
    beside: tuple[str, ...] = ()
    """Tensors that say what is in `params`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all tensors that stand for it."""
        return (*(info.name for info in self.inputs), *self.beside)

    def plan(self, dtype: str, role: str) -> TensorPlan:
        """The weight as floats of a dtype."""
        inputs = [InputTensor(role, info) for info in self.inputs]
        return TensorPlan.make(self.rule, {**self.params, "dtype": dtype}, inputs, name=self.name)


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised model."""

    method: str
    """As its config names it: ``gptq``."""
    width: str
    """What a number takes: ``4 bit``."""
    weights: tuple[Weight, ...]
    statistics: frozenset[str] = frozenset()
    """Tensors of the quantiser that stand for no weight: scales of activations, say."""

    def __str__(self) -> str:
        """``gptq, 4 bit``."""
        return f"{self.method}, {self.width}"

    @property
    def names(self) -> frozenset[str]:
        """Names of the weights."""
        return frozenset(weight.name for weight in self.weights)

    def infos(self, infos: Iterable[TensorInfo]) -> list[TensorInfo]:
        """What the whole model has as floats, in bfloat16."""
        return [plan.output for plan in self.plans(infos, "BF16", "")]

    def plans(self, infos: Iterable[TensorInfo], dtype: str, role: str) -> list[TensorPlan]:
        """The whole model as floats: every tensor of `infos`, in that order, and in place of a
        weight's first part the weight.
        """
        first = {weight.parts[0]: weight for weight in self.weights}
        gone = {part for weight in self.weights for part in weight.parts} | self.statistics
        found = []
        for info in infos:
            if info.name in first:
                found.append(first[info.name].plan(dtype, role))
            elif info.name not in gone:
                found.append(TensorPlan.make("copy@1", {}, [InputTensor(role, info)]))
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """What a method's finder looks at."""

    settings: Mapping[str, Any]
    """The config's ``quantization_config``."""
    infos: Mapping[str, TensorInfo]
    read: ReadSmall
    dtype: str
    """What the config says that the model computes in, a format code."""
    found: list[Weight] = field(default_factory=list)

    def part(self, name: str, of: str, dtypes: Iterable[str] = ()) -> TensorInfo:
        """A part that a weight cannot be without.

        Raises: QuantisationInvalid.
        """
        info = self.infos.get(name)
        if info is None:
            raise QuantisationInvalid(name=of, reason=f"{name} is missing")
        allowed = tuple(dtypes)
        if allowed and info.dtype not in allowed:
            reason = f"it is {info.dtype}, not {' or '.join(allowed)}"
            raise QuantisationInvalid(name=name, reason=reason)
        return info

    def ends(self, suffix: str) -> list[str]:
        """What stands before a suffix, in the names that end so."""
        return [name.removesuffix(suffix) for name in self.infos if name.endswith(suffix)]


FLOATS: Final = ("F16", "BF16", "F32")
"""Dtypes of scales."""


def require_shape(info: TensorInfo, *shapes: tuple[int, ...], why: str) -> None:
    """Raises: QuantisationInvalid, if a part has none of these shapes."""
    if info.shape not in shapes:
        due = " or ".join(str(list(shape)) for shape in shapes)
        reason = f"it is {list(info.shape)}, and {due} is due {why}"
        raise QuantisationInvalid(name=info.name, reason=reason)
