"""Casts and sums without torch have the bits of torch's, whatever the processor can do."""

import itertools
import json
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from weightsmith.codecs import arithmetic, sums
from weightsmith.codecs.arithmetic import Block

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
FLOATS = ["F16", "BF16", "F32", "F64"]
CASTS = [(source, wanted) for source in FLOATS for wanted in FLOATS if source != wanted]
OPERATIONS = {"add": (arithmetic.add, torch.add), "subtract": (arithmetic.subtract, torch.sub)}
NUMEL = 140_001
"""More than a piece, by what fills no vector register."""


def bits(dtype: str, seed: int) -> bytearray:
    """Any bit pattern: infinities, NaN, subnormals."""
    nbytes = NUMEL * TORCH[dtype].itemsize
    return bytearray(np.random.default_rng(seed).integers(0, 256, nbytes).astype(np.uint8))


def pair(dtype: str) -> tuple[bytearray, bytearray]:
    """Operands; the first half of the second nearly cancels the first's."""
    left, right = (np.frombuffer(bits(dtype, seed), np.uint8) for seed in (1, 2))
    half, width = NUMEL // 2 * TORCH[dtype].itemsize, TORCH[dtype].itemsize
    right[:half] = left[:half]
    right[width - 1 : half : width] ^= 0x80
    right[0:half:width] ^= np.frombuffer(bits(dtype, 3), np.uint8)[0:half:width] & 0x0F
    return bytearray(left), bytearray(right)


def every_kind(dtype: str) -> bytearray:
    """All patterns of 16 bits; of wider dtypes, before all kinds of tails, and values that lie on
    and beside the middle of two neighbours in the narrower ones.
    """
    heads = np.arange(1 << 16, dtype=np.uint32)
    if TORCH[dtype].itemsize == 2:
        return bytearray(heads.astype("<u2"))
    tails = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x1FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    singles = (heads << 16 | np.array(tails, np.uint32)[:, None]).ravel()
    if dtype == "F32":
        return bytearray(singles)
    with np.errstate(invalid="ignore"):
        doubles = singles.view("<f4").astype("<f8").view("<u8")
    return bytearray(np.concatenate([doubles, doubles + 1, doubles - 1]))


def block(memory: bytearray, dtype: str) -> Block:
    return Block(memoryview(memory), dtype)


def tensor(memory: bytearray, dtype: str) -> Tensor:
    return torch.frombuffer(memory, dtype=TORCH[dtype])


def raw(found: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of each element."""
    return found.view(torch.uint8).numpy().reshape(len(found), -1)


def differing(found: Tensor, expected: Tensor) -> int:
    """Elements that are not torch's; one NaN is as good as another."""
    same = torch.from_numpy((raw(found) == raw(expected)).all(axis=1))
    return int((~(same | (found.isnan() & expected.isnan()))).sum())


def sums_differing(dtypes: tuple[str, str, str, str], operation: str) -> int:
    """Elements of a sum that are not torch's; the last two dtypes are its own and the output's."""
    ours, theirs = OPERATIONS[operation]
    first, second, compute, wanted = dtypes
    left, right = pair(first)[0], pair(second)[1]
    out = bytearray(NUMEL * TORCH[wanted].itemsize)
    ours(block(left, first), block(right, second), block(out, wanted), compute)
    a, b = (tensor(left, first), tensor(right, second))
    expected = theirs(a.to(TORCH[compute]), b.to(TORCH[compute])).to(TORCH[wanted])
    return differing(tensor(out, wanted), expected)


def cast(source: str, wanted: str, memory: bytearray) -> bytearray:
    out = bytearray(len(memory) // TORCH[source].itemsize * TORCH[wanted].itemsize)
    arithmetic.cast(block(memory, source), block(out, wanted))
    return out


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TORCH)
def test_sums_of_every_dtype_have_the_bits_of_torch(dtype: str, operation: str) -> None:
    assert sums_differing((dtype,) * 4, operation) == 0


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtypes", [*itertools.product(FLOATS[:3], repeat=3)], ids="-".join)
def test_sums_of_several_dtypes_have_the_bits_of_torch(
    dtypes: tuple[str, str, str], operation: str
) -> None:
    left, right, wanted = dtypes
    for compute in {wanted, "F32"}:
        assert sums_differing((left, right, compute, wanted), operation) == 0


WEIGHTED = [
    *itertools.product(FLOATS[:3], repeat=3),
    ("F64", "F16", "BF16"),
    ("BF16", "F16", "F64"),
]


def weighted_sum(dtypes: tuple[str, str, str], numel: int = NUMEL) -> tuple[bytearray, Tensor]:
    """A sum of three blocks of all kinds of numbers, and torch's."""
    first, second, wanted = dtypes
    compute = "F64" if "F64" in dtypes else "F32"
    terms = [
        (factor, dtype, memory[: numel * TORCH[dtype].itemsize])
        for factor, dtype, memory in (
            (0.1, first, pair(first)[0]),
            (-0.7, second, pair(second)[1]),
            (3.3, first, bits(first, 5)),
        )
    ]
    out = bytearray(numel * TORCH[wanted].itemsize)
    factors = [factor for factor, _, _ in terms]
    blocks = [block(memory, dtype) for _, dtype, memory in terms]
    arithmetic.weighted_sum(factors, blocks, block(out, wanted), compute)
    products = [
        tensor(memory, dtype).to(TORCH[compute]) * torch.tensor(factor, dtype=TORCH[compute])
        for factor, dtype, memory in terms
    ]
    total = products[0] + products[1] + products[2]
    return out, total if wanted == "F64" else total.to(torch.float32).to(TORCH[wanted])


@pytest.mark.parametrize("dtypes", WEIGHTED, ids="-".join)
def test_weighted_sums_have_the_bits_of_products_and_sums_taken_one_by_one(
    dtypes: tuple[str, str, str],
) -> None:
    out, expected = weighted_sum(dtypes)
    assert differing(tensor(out, dtypes[2]), expected) == 0


@pytest.mark.parametrize(
    "dtypes, numel",
    [
        *((dtypes, NUMEL) for dtypes in WEIGHTED),
        *itertools.product(itertools.permutations(FLOATS[:3]), (1, 31, 32, 33)),
    ],
)
def test_the_compiled_part_sums_to_the_same_bits(
    dtypes: tuple[str, str, str], numel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sums.find() is None:
        pytest.skip("no compiled part here, or a processor that it does not know")
    compiled, _ = weighted_sum(dtypes, numel)
    monkeypatch.setattr(sums, "find", lambda: None)
    by_numpy, wanted = weighted_sum(dtypes, numel)[0], dtypes[2]
    assert differing(tensor(by_numpy, wanted), tensor(compiled, wanted)) == 0


def test_blocks_of_other_lengths_are_not_summed() -> None:
    if (compiled := sums.find()) is None:
        pytest.skip("no compiled part here, or a processor that it does not know")
    factors = np.ones(2, "f4")
    for blocks, dtypes in (((bytes(8), bytes(6)), b"hh"), ((bytes(8),), b"hh"), ((), b"")):
        with pytest.raises(ValueError, match="cannot be summed"):
            compiled.weighted_sum(factors, dtypes, blocks, bytearray(8), "h")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", TORCH)
def test_what_it_is_written_over_may_be_the_second_operand(dtype: str, operation: str) -> None:
    ours, _ = OPERATIONS[operation]
    left, right = pair(dtype)
    apart = bytearray(len(left))
    ours(block(left, dtype), block(right, dtype), block(apart, dtype), dtype)
    ours(block(left, dtype), block(right, dtype), block(right, dtype), dtype)
    assert right == apart


@pytest.mark.parametrize("source, wanted", CASTS)
def test_casts_have_the_bits_of_torch(source: str, wanted: str) -> None:
    memory = every_kind(source) + bits(source, 4)
    expected = tensor(memory, source).to(TORCH[wanted])
    assert differing(tensor(cast(source, wanted, memory), wanted), expected) == 0


@pytest.mark.parametrize("source, wanted", CASTS)
def test_nan_stays_the_nan_that_torch_makes_of_it(source: str, wanted: str) -> None:
    """Its sign and what it carries, of which torch's kernels for other processors keep less."""
    memory = every_kind(source)
    given = tensor(memory, source)
    nan = given.isnan()
    found, expected = (
        tensor(cast(source, wanted, memory), wanted)[nan],
        given.to(TORCH[wanted])[nan],
    )
    assert len(found) > 0
    assert bool(found.isnan().all())
    if wanted == "BF16":
        assert set(found.view(torch.uint16).tolist()) == {0x7FC0 if source == "F16" else 0xFFFF}
    if torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}:
        assert (raw(found) == raw(expected)).all()


@pytest.mark.parametrize("offset", [1, 2, 3])
@pytest.mark.parametrize("source, wanted", CASTS)
def test_memory_may_begin_anywhere(source: str, wanted: str, offset: int) -> None:
    memory = bits(source, 5)[:80]
    moved = Block(memoryview(bytes(offset) + memory)[offset:], source)
    size = offset + len(moved) * TORCH[wanted].itemsize
    out = Block(memoryview(bytearray(size))[offset:], wanted)
    arithmetic.cast(moved, out)
    assert out.memory == cast(source, wanted, memory)
    total = Block(memoryview(bytearray(size))[offset:], wanted)
    arithmetic.add(out, out, total, wanted)
    doubled = tensor(bytearray(out.memory), wanted) * 2
    assert differing(tensor(bytearray(total.memory), wanted), doubled) == 0


@pytest.mark.parametrize("dtype", TORCH)
def test_nothing_is_added_to_nothing(dtype: str) -> None:
    nothing = block(bytearray(), dtype)
    arithmetic.add(nothing, nothing, nothing, dtype)


@pytest.mark.parametrize("source, wanted", CASTS)
def test_nothing_is_cast(source: str, wanted: str) -> None:
    none, nothing = block(bytearray(), source), block(bytearray(), wanted)
    arithmetic.cast(none, nothing)
    arithmetic.add(none, nothing, none, wanted)


def test_a_row_is_repeated_from_any_of_its_elements_on() -> None:
    row = block(bytearray(np.array([1, 2, 3], "<f4")), "F32")
    assert row.repeated(4, 5).array().tolist() == [2, 3, 1, 2, 3]
    assert row.repeated(3, 2).array().tolist() == [1, 2]
    assert len(row.repeated(1, 0)) == 0


@pytest.mark.slow
def test_every_kernel_of_this_processor_has_the_same_bits() -> None:
    """The kernels are taken away one by one, the fastest first, down to plain C."""
    program = """
import json, numkong
from tests.codecs.test_arithmetic import *
halves = [(d, o) for d in ("F16", "BF16") for o in OPERATIONS]
singles = [each for each in CASTS if "F64" not in each]
given = {dtype: every_kind(dtype) + bits(dtype, 4) for dtype in ("F16", "BF16", "F32")}
names = [name for name, has in numkong.get_capabilities().items() if has and name != "serial"]
fastest, wrong = [cast(*each, given[each[0]]) for each in singles], {}
while True:
    name = names[-1] if names else "serial"
    wrong[name] = [each for each in halves if sums_differing((each[0],) * 4, each[1])]
    found = [cast(*each, given[each[0]]) for each in singles]
    wrong[name] += [each for each, a, b in zip(singles, fastest, found) if a != b]
    if not names:
        break
    numkong.disable_capability(names.pop())
print(json.dumps(wrong))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    wrong = json.loads(done.stdout)
    assert "serial" in wrong
    assert {name: which for name, which in wrong.items() if which} == {}


def test_torch_is_not_imported() -> None:
    program = """
import sys
from weightsmith.codecs.arithmetic import Block, add, cast
for dtype in ("F16", "BF16", "F32"):
    out = Block(memoryview(bytearray(4)), dtype)
    add(Block(memoryview(b"abcd"), dtype), Block(memoryview(b"efgh"), dtype), out, dtype)
    assert any(out.memory)
    wide = Block(memoryview(bytearray(len(out) * 8)), "F64")
    cast(Block(memoryview(b"abcd"), dtype), wide)
    add(wide, out, out, dtype)
    assert any(wide.memory)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
