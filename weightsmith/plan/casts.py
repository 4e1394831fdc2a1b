"""Decide what a cast of a whole model leaves as it is: a quantiser's statistics, and what the
architecture keeps in float32 on purpose.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weightsmith.catalogue.float32 import float32_names
from weightsmith.checkpoint.quantised import quantiser_tensors
from weightsmith.formats.tensors import SUMMABLE, TensorInfo


@dataclass(frozen=True, slots=True)
class Casting:
    """Which dtype each tensor of a model gets."""

    wanted: str
    """The format code that floats of 16 bits and more become; empty: what they are."""
    kept: frozenset[str] = frozenset()
    """Names of the tensors that stay what they are all the same."""
    notes: tuple[str, ...] = ()
    """Which these are, and why, sentences."""

    def dtype_of(self, info: TensorInfo) -> str:
        """The dtype that a tensor gets."""
        stays = not self.wanted or info.dtype not in SUMMABLE or info.name in self.kept
        return info.dtype if stays else self.wanted


def plan_casting(
    config: Mapping[str, Any],
    infos: Collection[TensorInfo],
    wanted: str,
    *,
    everything: bool = False,
) -> Casting:
    """Decide how a model of this config is cast to `wanted`, a format code or empty.

    A quantiser's statistics are never cast, for its kernels read them as they are. With
    `everything`, what the architecture keeps in float32 is.
    """
    floats = [i for i in infos if wanted and i.dtype in SUMMABLE and i.dtype != wanted]
    if not floats:
        return Casting(wanted)
    quantised = "quantization_config" in config
    statistics = quantiser_tensors(infos, quantised=quantised)
    names = None if everything else float32_names(config, wanted)
    held = [i for i in floats if i.name in statistics]
    chosen = [i for i in floats if i.name not in statistics and names and names.search(i.name)]
    notes = []
    if held:
        notes.append(f"the quantiser's statistics are not cast: {_counted(held)}")
    if chosen:
        why = "not cast, as the architecture keeps them so on purpose (`dtype_all` casts them)"
        notes.append(f"{why}: {_counted(chosen)}")
    return Casting(wanted, frozenset(info.name for info in (*held, *chosen)), tuple(notes))


def _counted(infos: Iterable[TensorInfo]) -> str:
    """``58 e_score_correction_bias (F32)``, by the last words of their names."""
    found = Counter((_last_words(info.name), info.dtype) for info in infos)
    return ", ".join(f"{count} {words} ({dtype})" for (words, dtype), count in found.items())


def _last_words(name: str) -> str:
    """What a kind of tensor is called: ``wo.weight``, ``e_score_correction_bias``."""
    *before, last = name.split(".")
    return f"{before[-1]}.{last}" if before and last in {"weight", "bias"} else last
