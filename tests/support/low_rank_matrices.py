"""Matrices that changed by a product of thin factors, and the payloads that stand for them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.exact_payloads import Content, content, made_by
from weightsmith.checkpoint.digest import span_count
from weightsmith.codecs.base import Range
from weightsmith.codecs.exact.codec import params_of
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.making import SpanMaker
from weightsmith.codecs.exact.payload import place_of
from weightsmith.codecs.low_rank.factors import Integers, Predictor, pack
from weightsmith.codecs.low_rank.find import Factors, Given, find
from weightsmith.codecs.low_rank.form import Geometry, Head, geometry_of
from weightsmith.codecs.low_rank.making import Prediction
from weightsmith.codecs.low_rank.round_once import round_once, values_of
from weightsmith.codecs.registry import codec
from weightsmith.formats.safetensors_header import layout
from weightsmith.formats.tensors import TensorInfo

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changed:
    """A tensor of the base and what became of it."""

    base: TensorInfo
    target: TensorInfo
    base_data: bytes
    target_data: bytes
    left: Values
    """Of the product that was added, ``(..., rows, rank)``."""
    right: Values
    """``(..., columns, rank)``."""

    @property
    def geometry(self) -> Geometry:
        geometry = geometry_of(self.target.shape)
        assert geometry is not None
        return geometry

    @property
    def reads(self) -> tuple[Callable[[int, memoryview], None], Callable[[int, memoryview], None]]:
        return reader(self.base_data), reader(self.target_data)

    def find(self, *, given: bool = False) -> Factors | None:
        factors = [
            Given(*each) for each in zip(*map(stacked, (self.left, self.right)), strict=True)
        ]
        dtypes = self.base.dtype, self.target.dtype
        return find(self.geometry, dtypes, self.reads, factors if given else ())

    def predicted(self, *, given: bool = False) -> Prediction:
        factors = self.find(given=given)
        assert factors is not None
        return Prediction(self.base, self.target, factors)


def stacked(factor: Values) -> Values:
    return factor if factor.ndim == 3 else factor[np.newaxis]


def reader(data: bytes) -> Callable[[int, memoryview], None]:
    def read(start: int, buffer: memoryview) -> None:
        buffer[:] = data[start : start + len(buffer)]

    return read


def merged(
    shape: tuple[int, ...],
    rank: int,
    dtype: str,
    *,
    base_dtype: str = "",
    size: float = 0.02,
    product_rounded: bool = False,
    seed: int = 0,
) -> Changed:
    """A base of normal numbers and what merging a LoRA makes of it; `size` is the change's, as a
    share of the weights'.
    """
    rng = np.random.default_rng(seed)
    base_dtype = base_dtype or dtype
    base = round_once(rng.normal(0, 0.02, shape), base_dtype)
    left = rng.normal(0, 0.02 * size / rank**0.5, (*shape[:-1], rank))
    right = rng.normal(0, 1, (*shape[:-2], shape[-1], rank))
    product = left @ np.swapaxes(right, -1, -2)
    if product_rounded:
        product = values_of(round_once(product, dtype), dtype).reshape(shape)
    target = round_once(values_of(base, base_dtype).reshape(shape) + product, dtype)
    return Changed(
        base=TensorInfo("w", base_dtype, shape),
        target=TensorInfo("w", dtype, shape),
        base_data=base.tobytes(),
        target_data=target.tobytes(),
        left=left,
        right=right,
    )


def integers(*shape: int, seed: int = 0, bits: int = 16) -> Integers:
    rng = np.random.default_rng(seed)
    return rng.integers(-(1 << bits), 1 << bits, shape)


def with_integers(
    changed: Changed, left: Integers, rights: list[Integers], head: dict[str, Any]
) -> Prediction:
    """A prediction with factors of one's own choice, and `head` for some of its settings."""
    packed = tuple(map(pack, rights))
    rank = left.shape[1]
    settings = {"product_rounded": False, "exponents": (-40,) * len(rights), **head}
    whole = Head(rank=rank, lengths=tuple(map(len, packed)), **settings)
    factors = Factors(
        whole, packed, left.astype(np.int32), Predictor(changed.geometry, whole, packed)
    )
    return Prediction(changed.base, changed.target, factors)


def encode(changed: Changed, prediction: Prediction, writer: Kernel | None = None) -> bytes:
    """The payload; without a `writer`, none of its spans is coded by class."""
    made = []
    width = (
        len(changed.base_data) // changed.base.numel,
        len(changed.target_data) // changed.base.numel,
    )
    for number in range(span_count(changed.target.nbytes)):
        place = place_of(number, changed.target)
        start, stop = (edge // width[1] * width[0] for edge in (place.start, place.stop))
        known, prefix = prediction.span(number, memoryview(changed.base_data)[start:stop])
        target = memoryview(changed.target_data)[place.start : place.stop]
        maker = SpanMaker(known, target, changed.target.dtype, prefix, writer)
        assert maker.restores(memoryview(maker.payload))
        made.append(maker.payload)
    start_bytes = prediction.start_of([len(each) for each in made])
    assert len(start_bytes) == prediction.start_nbytes
    return start_bytes + b"".join(made)


def decode(changed: Changed, payload: bytes, rank: int, wanted: list[Range] | None = None) -> bytes:
    """The target's bytes, or the ranges `wanted` of them."""
    rule = codec("low-rank@1", {**params_of(changed.target), "rank": str(rank)})
    inputs = [Content(changed.base, changed.base_data), content("U8", payload)]
    return made_by(rule, inputs, changed.target, wanted)


def digest_of_predictions() -> str:
    found = hashlib.sha256()
    for dtype in ("F16", "BF16", "F32"):
        changed = merged((300, 700), 7, dtype)
        left, right = integers(300, 33, bits=20), integers(700, 33, seed=1, bits=20)
        prediction = with_integers(changed, left, [right], {"product_rounded": True})
        for number in range(-(-changed.target.nbytes // (2 << 20))):
            known, _ = prediction.span(number, memoryview(changed.base_data))
            found.update(known.tobytes())
    return found.hexdigest()


def digest_of_factors() -> str:
    """Of factors that are found in this process."""
    factors = merged((512, 1024), 8, "BF16").find()
    assert factors is not None
    return hashlib.sha256(b"".join(factors.rights) + factors.left.tobytes()).hexdigest()


def write_merged(folder: Path, rows: int) -> None:
    """A matrix of `rows` rows of 2048, block by block, and itself with a product merged."""
    info = TensorInfo("model.layers.0.up.weight", "F16", (rows, 2048))
    header, _ = layout([info], {"format": "pt"})
    rng = np.random.default_rng(0)
    right = rng.normal(0, 0.02, (8, 2048))
    for side in ("base", "target"):
        (folder / side).mkdir(parents=True)
        (folder / side / "config.json").write_text("{}")
    with (
        (folder / "base/model.safetensors").open("wb") as base,
        (folder / "target/model.safetensors").open("wb") as target,
    ):
        base.write(header)
        target.write(header)
        for _ in range(rows // 1024):
            block = rng.normal(0, 0.02, (1024, 2048)).astype("<f2")
            base.write(block.tobytes())
            change = rng.normal(0, 0.02, (1024, 8)) @ right
            target.write((block + change).astype("<f2").tobytes())
