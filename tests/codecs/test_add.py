"""add is the arithmetic of the tools that published deltas, wherever the spans are cut."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.folders import load, write_model
from tests.support.pace import examples
from tests.support.spans import DTYPES, FLOATS, assert_bits, decoded, random_tensor
from weightsmith.codecs.add import Add
from weightsmith.codecs.base import Range
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import DTYPE_BITS, TensorInfo
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.sources.sums import promoted

SPANS = [1, 7, 64, 1000]


@pytest.mark.parametrize("base, delta", [*itertools.product(FLOATS, FLOATS)])
@pytest.mark.parametrize("span", SPANS)
def test_in_the_deltas_dtype_it_is_what_fastchat_and_alpaca_do(
    span: int, base: str, delta: str
) -> None:
    """``base.to(delta.dtype)``, then ``param.data += base``."""
    ours, theirs = random_tensor(base, 13, 21), random_tensor(delta, 13, 21, scale=0.001, seed=1)
    expected = theirs.clone()
    expected += ours.to(theirs.dtype)
    assert_bits(decoded(Add(delta, delta), [ours, theirs], span), expected)


@pytest.mark.parametrize("base, delta", [*itertools.product(FLOATS, FLOATS)])
def test_in_the_bases_dtype_it_is_the_sum_of_both_there(base: str, delta: str) -> None:
    ours, theirs = random_tensor(base, 13, 21), random_tensor(delta, 13, 21, scale=0.001, seed=1)
    expected = ours + theirs.to(ours.dtype)
    assert_bits(decoded(Add(base, base), [ours, theirs], 50), expected)


@pytest.mark.parametrize("base, delta, named", [*itertools.product(FLOATS, FLOATS, FLOATS[:3])])
def test_a_named_dtype_is_summed_in_the_widest_and_rounded_once(
    base: str, delta: str, named: str
) -> None:
    ours, theirs = random_tensor(base, 300), random_tensor(delta, 300, scale=0.001, seed=1)
    compute = promoted(base, delta, named)
    found = decoded(Add(compute, named), [ours, theirs], 64)
    exact = ours.double() + theirs.double()  # exact for what F32 was, and within it for the rest
    if compute == "F32" and {base, delta} <= {"F16", "BF16", "F32"}:
        exact = (ours.float() + theirs.float()).double()
    assert_bits(found, exact.to(DTYPES[named]))


@pytest.mark.parametrize(
    "dtypes, widest",
    [
        (("F16", "F16", "F16"), "F16"),
        (("BF16", "BF16", "BF16"), "BF16"),
        (("F16", "BF16", "F16"), "F32"),
        (("F16", "F16", "BF16"), "F32"),
        (("F16", "F32", "BF16"), "F32"),
        (("F64", "F16", "BF16"), "F64"),
    ],
)
def test_the_widest_dtype_holds_every_value_of_all(dtypes: tuple[str, ...], widest: str) -> None:
    assert {promoted(*order) for order in itertools.permutations(dtypes)} == {widest}


@settings(max_examples=examples(40))
@given(st.data())
def test_cutting_elsewhere_changes_no_bit(data: st.DataObject) -> None:
    base, delta = (data.draw(st.sampled_from(FLOATS)) for _ in range(2))
    rows, more, columns = (data.draw(st.integers(1, 6)) for _ in range(3))
    policy = data.draw(st.sampled_from(["zero", "mean"]))
    ours = random_tensor(base, rows, columns)
    theirs = random_tensor(delta, rows + more, columns, seed=1)
    codec = Add(delta, delta, policy)
    whole = decoded(codec, [ours, theirs], 10_000)
    assert_bits(decoded(codec, [ours, theirs], data.draw(st.integers(1, 40))), whole)


@pytest.mark.parametrize("span", [1, 5, 6, 7, 29, 30, 31, 10_000])
@pytest.mark.parametrize("base, delta", [("F16", "F16"), ("F32", "F16"), ("BF16", "F32")])
def test_rows_that_the_base_lacks_count_as_zero(base: str, delta: str, span: int) -> None:
    """As LLaVA: ``param.data[: base.shape[0]] += base``; what is beyond stays as it is."""
    ours, theirs = random_tensor(base, 5, 6), random_tensor(delta, 8, 6, seed=1)
    theirs[-1, 0] = -0.0
    expected = theirs.clone()
    expected[:5] += ours.to(theirs.dtype)
    assert_bits(decoded(Add(delta, delta, "zero"), [ours, theirs], span), expected)


@pytest.mark.parametrize("span", [1, 5, 6, 7, 29, 30, 31, 10_000])
@pytest.mark.parametrize("base, delta", [("F32", "F32"), ("F16", "F16"), ("F16", "F32")])
def test_rows_that_the_base_lacks_count_as_the_mean_of_its_rows(
    base: str, delta: str, span: int
) -> None:
    """As Alpaca's ``smart_tokenizer_and_embedding_resize``, with the mean rounded once."""
    ours, theirs = random_tensor(base, 5, 6), random_tensor(delta, 8, 6, seed=1)
    grown = torch.cat([ours, torch.zeros(3, 6, dtype=ours.dtype)]).to(theirs.dtype)
    grown[-3:] = ours.double().mean(dim=0, keepdim=True).to(theirs.dtype)
    assert_bits(decoded(Add(delta, delta, "mean"), [ours, theirs], span), grown + theirs)


def test_the_mean_is_the_same_however_many_rows_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = random_tensor("F16", 1000, 40), random_tensor("F16", 1001, 40, seed=1)
    expected = decoded(Add("F16", "F16", "mean"), [ours, theirs], 10**6)
    for nbytes in (1, 80, 400, 79_999, 80_000):
        monkeypatch.setattr("weightsmith.codecs.add._MEAN_BLOCK_NBYTES", nbytes)
        assert_bits(decoded(Add("F16", "F16", "mean"), [ours, theirs], 999), expected)


@pytest.mark.parametrize("dtype", ["U8", "I8", "I16", "I32", "I64"])
def test_integers_are_added_as_torch_adds_them(dtype: str) -> None:
    """Position ids and quantisation codes: they wrap around and are never floats on the way."""
    limits = torch.iinfo(DTYPES[dtype])
    ours = torch.tensor([limits.max, limits.min, 0, 3], dtype=DTYPES[dtype])
    theirs = torch.tensor([1, limits.max, 0, 4], dtype=DTYPES[dtype])
    assert_bits(decoded(Add(dtype, dtype), [ours, theirs], 3), ours + theirs)


@pytest.mark.parametrize(
    "dtype", sorted(DTYPE_BITS.keys() - {*FLOATS, "U8", "I8", "I16", "I32", "I64"})
)
def test_what_has_no_sum_is_refused_by_name(dtype: str) -> None:
    info = TensorInfo("mask", dtype, (8,))
    with pytest.raises(DtypeNotSummable, match=f"mask is {dtype}"):
        Add(dtype, dtype).signature([info, info])


def test_integers_of_two_kinds_and_floats_have_no_sum() -> None:
    for base, delta in [("I32", "I64"), ("I64", "F16"), ("F16", "I64"), ("U8", "I8")]:
        infos = [TensorInfo("w", base, (8,)), TensorInfo("w", delta, (8,))]
        for out in {base, delta}:
            with pytest.raises(DtypeNotSummable):
                Add(out, out).signature(infos)


def test_infinities_and_overflows_are_those_of_torch() -> None:
    inf, most = float("inf"), 65504.0
    ours = torch.tensor([inf, -inf, most, -most, 6e-8, -0.0, 0.0], dtype=torch.float16)
    theirs = torch.tensor([1.0, 1.0, most, -most, -6e-8, -0.0, -0.0], dtype=torch.float16)
    assert_bits(decoded(Add("F16", "F16"), [ours, theirs], 2), ours + theirs)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1), (2, 3, 4)])
def test_any_shape_will_do(shape: tuple[int, ...]) -> None:
    ours, theirs = random_tensor("F16", *shape), random_tensor("F16", *shape, seed=1)
    assert_bits(decoded(Add("F16", "F16"), [ours, theirs], 5), ours + theirs)


@given(st.data())
def test_the_spans_of_an_input_cover_it_once(data: st.DataObject) -> None:
    wide, narrow = (data.draw(st.sampled_from(FLOATS)) for _ in range(2))
    ours, theirs = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    info, output = TensorInfo("w", wide, (ours,)), TensorInfo("w", narrow, (ours + theirs,))
    step = data.draw(st.integers(1, 60)) * DTYPE_BITS[narrow] // 8
    end = 0
    for start in range(0, output.nbytes, step):
        found = elements_as_bytes(Range(start, min(start + step, output.nbytes)), output, info)
        assert found.start == end
        end = found.stop
    assert end == info.nbytes or output.nbytes == 0


# --- end to end -----------------------------------------------------------------------------------


def model(dtype: str, scale: float, seed: int, rows: int = 400) -> dict[str, Tensor]:
    """Some tensors of a LLaMA; norms near 1 or near 0, by which a delta is told from a model."""
    return {
        "model.embed_tokens.weight": random_tensor(dtype, rows, 24, scale=scale, seed=seed),
        "model.layers.0.mlp.up_proj.weight": random_tensor(dtype, 37, 24, scale=scale, seed=seed),
        "model.norm.weight": random_tensor(dtype, 24, scale=scale, seed=seed)
        + (1 if scale > 0.01 else 0),
    }


@pytest.mark.parametrize("base, delta", [("F16", "F16"), ("F32", "F16"), ("BF16", "F32")])
@pytest.mark.parametrize("dtype", ["delta", "base", "float16", "bfloat16", "float32"])
def test_end_to_end_every_dtype_is_what_torch_gives(
    dtype: str, base: str, delta: str, tmp_path: Path
) -> None:
    ours, theirs = model(base, 0.02, 0), model(delta, 0.001, 1)
    write_model(tmp_path / "base", ours, suffix="bin")
    write_model(tmp_path / "delta", theirs, shards=2)
    target = tmp_path / "out"
    apply_delta(tmp_path / "base", tmp_path / "delta", target=target, dtype=dtype)  # type: ignore[arg-type]
    names = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
    out = {"delta": delta, "base": base}.get(dtype) or names[dtype]
    compute = DTYPES[promoted(base, delta, out) if dtype in names else out]
    found = load(target)
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = (ours[name].to(compute) + tensor.to(compute)).to(DTYPES[out])
        assert_bits(found[name], expected)
    torch_name = str(DTYPES[out]).removeprefix("torch.")
    assert f'"torch_dtype": "{torch_name}"' in (target / "config.json").read_text()


@pytest.mark.slow
def test_end_to_end_neither_casts_nor_sums_import_torch(tmp_path: Path) -> None:
    write_model(tmp_path / "base", model("F32", 0.02, 0))
    write_model(tmp_path / "delta", model("BF16", 0.001, 1))
    program = """
import sys
from pathlib import Path
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
folder = Path(sys.argv[1])
convert(folder / "base", folder / "half", dtype="float16")
apply_delta(folder / "half", folder / "delta", target=folder / "out", dtype="bfloat16")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert load(tmp_path / "out")["model.norm.weight"].dtype == torch.bfloat16


def test_end_to_end_sums_do_not_depend_on_where_a_span_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With spans of a few hundred bytes, each tensor has many, and workers share them out."""
    ours, theirs = model("F32", 0.02, 0), model("F16", 0.001, 1)
    write_model(tmp_path / "base", ours)
    write_model(tmp_path / "delta", theirs)
    for number, nbytes in enumerate((94, 512)):
        for module in ("engine.spans", "checkpoint.digest"):
            monkeypatch.setattr(f"weightsmith.{module}.SPAN_NBYTES", nbytes)
        target = tmp_path / f"out{number}"
        apply_delta(tmp_path / "base", tmp_path / "delta", target=target)
        for name, tensor in load(target).items():
            assert_bits(tensor, ours[name].half() + theirs[name])
