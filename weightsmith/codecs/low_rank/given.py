"""Factors of a change that are known: those of an adapter that was merged."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weightsmith.codecs.lora.steps import Step, StepKind
from weightsmith.formats.tensors import SUMMABLE, TensorInfo

if TYPE_CHECKING:
    import numpy as np

    from weightsmith.codecs.low_rank.find import Given

KINDS: frozenset[StepKind] = frozenset({"linear", "transposed", "embedding"})
"""Steps that add a product of two factors, A and B."""


def are_products(steps: Sequence[Step], infos: Sequence[TensorInfo]) -> bool:
    """Whether these steps of a merge, which take tensors `infos`, add products and nothing else."""
    plain = all(step.kind in KINDS and not step.dora for step in steps)
    return bool(steps) and plain and all(info.dtype in SUMMABLE - {"F64"} for info in infos)


def given_factors(
    steps: Sequence[Step], infos: Sequence[TensorInfo], blocks: Sequence[memoryview]
) -> "Given":
    """The factors of all steps together; `infos` and `blocks` are A and B of the first step, of the
    second, ...

    Shapes: as `Step` has them, and of a convolution with its kernel.
    Raises: ValueError, if one of them holds NaN or infinity.
    """
    import numpy as np

    from weightsmith.codecs.low_rank.find import Given

    lefts, rights = [], []
    for number, step in enumerate(steps):
        place = slice(2 * number, 2 * number + 2)
        a, b = (
            _values(info, block) for info, block in zip(infos[place], blocks[place], strict=True)
        )
        left, right = (b, a.T) if step.kind == "linear" else (a.T, b)
        lefts.append(step.scale * left)
        rights.append(right)
    return Given(np.concatenate(lefts, axis=1), np.concatenate(rights, axis=1))


def _values(info: TensorInfo, block: memoryview) -> "np.typing.NDArray[np.float64]":
    """Numbers of a factor, in float64; two dimensions, the first as it is."""
    from weightsmith.codecs.elements import elements_of
    from weightsmith.codecs.low_rank.round_once import FORMATS, values_of

    elements = elements_of(info.dtype).view(block)
    infinity = FORMATS[info.dtype].infinity
    if ((elements & elements.dtype.type(infinity)) == infinity).any():
        raise ValueError(f"{info.name} holds NaN or infinity")
    return values_of(elements, info.dtype).reshape(info.shape[0], -1)
