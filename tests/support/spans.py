"""A codec run over whole tensors, span by span, as the engine does it, with spans of any length."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.formats.tensors import TensorInfo

CODES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
DTYPES = {code: dtype for dtype, code in CODES.items()}
FLOATS = ["F16", "BF16", "F32", "F64"]


def info_of(tensor: Tensor) -> TensorInfo:
    return TensorInfo("w", CODES[tensor.dtype], tuple(tensor.shape))


def raw(tensor: Tensor) -> bytes:
    """A tensor's bytes in row-major order."""
    data: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def decoded(codec: Codec, inputs: Sequence[Tensor], span_elements: int | None = None) -> Tensor:
    """The codec's whole output, its spans made in a random order into soiled memory; one span, if
    none is told.
    """
    infos = [info_of(tensor) for tensor in inputs]
    output = codec.signature(infos)
    stored = [raw(tensor) for tensor in inputs]

    def read(number: int, start: int, buffer: memoryview) -> None:
        stop = start + len(buffer)
        assert stop <= len(stored[number])
        buffer[:] = stored[number][start:stop]

    work = Work(tuple(infos), output)
    work = replace(work, state=codec.prepare(work, read))
    whole = bytearray(b"\xa5" * output.nbytes)
    elements = output.numel if span_elements is None else span_elements
    step = elements * output.nbytes // output.numel if output.numel else 1
    spans = [
        Range(start, min(start + step, output.nbytes)) for start in range(0, output.nbytes, step)
    ]
    random.Random(0).shuffle(spans)
    for span in spans:
        ranges = codec.reads(work, span)
        blocks = [memoryview(bytearray(each.nbytes)) for each in ranges]
        for number, each in enumerate(ranges):
            read(number, each.start, blocks[number])
        out = memoryview(bytearray(b"\x5a" * span.nbytes))
        codec.apply(work, span, blocks, out)
        whole[span.start : span.stop] = out
    if not whole:
        return torch.empty(output.shape, dtype=DTYPES[output.dtype])
    return torch.frombuffer(whole, dtype=DTYPES[output.dtype]).reshape(output.shape)


def random_tensor(dtype: str, *shape: int, scale: float = 0.02, seed: int = 0) -> Tensor:
    """Weights as models have them, in any dtype."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return values.to(DTYPES[dtype])


def assert_bits(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert raw(found) == raw(expected)
