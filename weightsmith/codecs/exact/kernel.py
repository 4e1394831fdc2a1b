"""The compiled part of the rule *exact*, where there is one: spans that are coded by class.

`kernel.c` is built with the package where there is a C compiler. Without it such spans are read by
NumPy (`coded`), slowly, and none are written.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Final

from weightsmith.errors import KernelUnfit

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits, Elements

_INTERFACE: Final = 2
"""Version of the interface to `kernel.c`. A compiled file may be left from another version of the
package; the number that it gives must be this one.
"""


@dataclass(frozen=True, slots=True)
class Coded:
    """A span that was coded."""

    payload: bytes
    """Empty, if every fourth element would be an exception."""
    changes: int
    """How many elements differ from the base's."""
    wasted: int
    """About how many bits are spent on differences far shorter than most, or on zeros."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled part, by one of its paths; all of them make the same bytes."""

    module: ModuleType
    simd: int
    """Elements at a time: 0 for one, 1 for eight (AVX2), 2 for sixteen (AVX-512)."""

    def encode(self, base: "Bits | None", target: "Bits", elements: "Elements") -> Coded:
        """A span; the base has as many elements, or is None."""
        return Coded(*self.module.encode(base, target, *_form(elements), self.simd))

    def decode(
        self, payload: memoryview, base: "Bits | None", out: "Bits", elements: "Elements"
    ) -> None:
        """Fill `out`; the base has as many elements, or is None.

        Raises: ValueError, if the payload is damaged.
        """
        self.module.decode(payload, base, out, *_form(elements), self.simd)

    def __str__(self) -> str:
        return ("plain C", "C with AVX2", "C with AVX-512")[self.simd]


@cache
def find() -> Kernel | None:
    """The compiled part by its fastest path, or None without one.

    Raises: KernelUnfit, if it is of another version than the package.
    """
    try:
        from weightsmith.codecs.exact import _kernel
    except ImportError:
        return None
    if _kernel.INTERFACE != _INTERFACE:
        raise KernelUnfit(found=_kernel.INTERFACE, wanted=_INTERFACE)
    return Kernel(_kernel, _kernel.SIMD)


def _form(elements: "Elements") -> tuple[int, int, int]:
    if elements.exponents is None:
        raise ValueError("elements that have no exponents")
    return elements.nbytes, elements.exponents.shift, elements.exponents.mask
