"""Make and read payloads through the codec, as the engine does, but from bytes in memory."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.exact import kernel
from weightsmith.codecs.exact.codec import base_elements, params_of, serves_as_base
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.making import SpanMaker
from weightsmith.codecs.exact.payload import MAGIC, MAGIC_CODED, is_coded, table_of
from weightsmith.codecs.registry import codec
from weightsmith.formats.tensors import DTYPE_BITS, TensorInfo


@dataclass(frozen=True)
class Content:
    """A tensor with its bytes."""

    info: TensorInfo
    data: bytes

    def __post_init__(self) -> None:
        assert len(self.data) == self.info.nbytes


def content(dtype: str, data: bytes, shape: tuple[int, ...] | None = None) -> Content:
    flat = (len(data) * 8 // DTYPE_BITS[dtype],)
    return Content(TensorInfo("w", dtype, flat if shape is None else shape), data)


def spans(info: TensorInfo) -> list[Range]:
    return [
        Range(n * SPAN_NBYTES, min((n + 1) * SPAN_NBYTES, info.nbytes))
        for n in range(span_count(info.nbytes))
    ]


PATHS = ("none", "plain", "avx2", "avx512")
"""How spans that are coded by class may be made and read: by the compiled part or without."""


_FOUND = kernel.find()


def by_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make and read payloads by this path, of those that this machine has, until the test ends."""
    found = _FOUND
    if name != "none":
        simd = PATHS.index(name) - 1
        if found is None or simd > found.simd:
            pytest.skip("no compiled part here, or the processor has no such vectors")
        found = Kernel(found.module, simd)
    monkeypatch.setattr(kernel, "find", lambda: None if name == "none" else found)


def encode(
    base: Content | None, target: Content, *, check: bool = True, portable: bool = False
) -> bytes:
    """The payload that stands for `target` in a delta."""
    writer = None if portable else kernel.find()
    made = []
    for span in spans(target.info):
        known = None
        if base is not None:
            assert serves_as_base(base.info, target.info)
            read = elements_as_bytes(span, target.info, base.info)
            known = memoryview(base.data)[read.start : read.stop]
        dtype = target.info.dtype if base is None else base.info.dtype
        elements = base_elements(known, dtype, target.info.dtype)
        block = memoryview(target.data)[span.start : span.stop]
        maker = SpanMaker(elements, block, target.info.dtype, writer=writer)
        assert not check or maker.restores(memoryview(maker.payload))
        made.append(maker.payload)
    coded = any(map(is_coded, made))
    return table_of([len(each) for each in made], MAGIC_CODED if coded else MAGIC) + b"".join(made)


def decode(
    base: Content | None, payload: bytes, target: TensorInfo, wanted: list[Range] | None = None
) -> bytes:
    """The bytes `wanted` of the target, all of them by default."""
    stored = content("U8", payload)
    inputs = [stored] if base is None else [base, stored]
    return made_by(codec("exact@1", params_of(target)), inputs, target, wanted)


def made_by(
    rule: Codec, inputs: Sequence[Content], target: TensorInfo, wanted: Sequence[Range] | None
) -> bytes:
    """The bytes `wanted` of what `rule` makes, all of them by default; the last is made first."""
    infos = [each.info for each in inputs]
    assert rule.signature(infos) == target

    def read(number: int, start: int, buffer: memoryview) -> None:
        found = inputs[number].data[start : start + len(buffer)]
        assert len(found) == len(buffer), "read past the end of an input"
        buffer[:] = found

    work = Work(tuple(infos), target)
    work = replace(work, state=rule.prepare(work, read))
    parts = spans(target) if wanted is None else wanted
    out = bytearray(b"\xa5") * sum(span.nbytes for span in parts)  # whatever was there before
    at = len(out)
    for span in reversed(parts):
        ranges = rule.reads(work, span)
        blocks = [
            memoryview(each.data)[place.start : place.stop]
            for each, place in zip(inputs, ranges, strict=True)
        ]
        assert all(len(b) == r.nbytes for b, r in zip(blocks, ranges, strict=True))
        at -= span.nbytes
        made = memoryview(out)[at : at + span.nbytes]
        rule.apply(work, span, blocks, made)
    return bytes(out)


def restored(base: Content | None, target: Content) -> bytes:
    """The target, through a payload and back."""
    return decode(base, encode(base, target), target.info)


def noise(nbytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(nbytes)


def stepped(data: bytes, dtype: str, seed: int = 1) -> bytes:
    """Small steps up and down from `data`, as training makes them."""
    rng = np.random.default_rng(seed)
    bits = np.frombuffer(data, f"<u{max(DTYPE_BITS[dtype], 8) // 8}")
    steps = rng.integers(-20, 20, len(bits)).astype(bits.dtype.str.replace("u", "i"))
    moved: bytes = (bits + steps.view(bits.dtype)).tobytes()
    return moved
