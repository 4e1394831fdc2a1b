"""Sums without torch have the bits of torch's, whatever the processor can do."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from weightsmith.codecs import arithmetic

TORCH = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
OPERATIONS = {"add": (arithmetic.add, torch.add), "subtract": (arithmetic.subtract, torch.sub)}


def bits(dtype: str, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Any bit pattern: infinities, NaN, subnormals; a length that fills no vector register."""
    nbytes = 70_001 * TORCH[dtype].itemsize
    return np.random.default_rng(seed).integers(0, 256, nbytes).astype(np.uint8)


def pair(dtype: str) -> tuple[bytearray, bytearray]:
    """Operands; the first half of the second nearly cancels the first's."""
    left, right = bits(dtype, 1), bits(dtype, 2)
    half, width = len(left) // 2, TORCH[dtype].itemsize
    right[:half] = left[:half]
    right[width - 1 : half : width] ^= 0x80
    right[0:half:width] ^= bits(dtype, 3)[0:half:width] & 0x0F
    return bytearray(left), bytearray(right)


def differing(dtype: str, operation: str) -> int:
    """Elements that are not torch's; one NaN is as good as another."""
    ours, theirs = OPERATIONS[operation]
    left, right = pair(dtype)
    out = bytearray(len(left))
    a, b = (torch.frombuffer(each, dtype=TORCH[dtype]) for each in (left, right))
    expected = theirs(a, b)
    ours(memoryview(left), memoryview(right), memoryview(out), dtype)
    found = torch.frombuffer(out, dtype=TORCH[dtype])
    same_bits = (found.view(torch.uint8) == expected.view(torch.uint8)).reshape(len(found), -1)
    return int((~(same_bits.all(dim=1) | (found.isnan() & expected.isnan()))).sum())


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TORCH)
def test_every_dtype_has_the_bits_of_torch(dtype: str, operation: str) -> None:
    assert differing(dtype, operation) == 0


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TORCH)
def test_what_it_is_written_over_may_be_the_second_operand(dtype: str, operation: str) -> None:
    ours, _ = OPERATIONS[operation]
    left, right = pair(dtype)
    apart = bytearray(len(left))
    ours(memoryview(left), memoryview(right), memoryview(apart), dtype)
    ours(memoryview(left), memoryview(right), memoryview(right), dtype)
    assert right == apart


@pytest.mark.parametrize("dtype", TORCH)
def test_nothing_is_added_to_nothing(dtype: str) -> None:
    arithmetic.add(memoryview(b""), memoryview(b""), memoryview(bytearray()), dtype)


def test_every_kernel_of_this_processor_has_the_bits_of_torch() -> None:
    """The kernels are taken away one by one, the fastest first, down to plain C."""
    program = """
import json, sys, numkong
from tests.codecs.test_arithmetic import differing
names = [name for name, has in numkong.get_capabilities().items() if has and name != "serial"]
found = {}
while True:
    fastest = names[-1] if names else "serial"
    found[fastest] = [differing(d, o) for d in ("F16", "BF16") for o in ("add", "subtract")]
    if not names:
        break
    numkong.disable_capability(names.pop())
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert "serial" in found
    assert {name: counts for name, counts in found.items() if any(counts)} == {}


def test_torch_is_not_imported() -> None:
    program = """
import sys
from weightsmith.codecs import arithmetic
out = bytearray(4)
for dtype in ("F16", "BF16", "F32"):
    arithmetic.add(memoryview(b"abcd"), memoryview(b"efgh"), memoryview(out), dtype)
assert any(out) and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
