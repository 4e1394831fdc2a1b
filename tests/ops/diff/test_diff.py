"""Two checkpoints compared, as a library user does it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.diff_models import FLOATS, INTEGERS, base, tuned
from tests.support.folders import BUFFER, bits, state, write_model
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.engine.options import Options
from weightsmith.errors import ShardTruncated, SourceNotFound
from weightsmith.ops.diff import diff
from weightsmith.ops.diff_result import Difference, TensorDifference


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("before"), base())


@pytest.fixture(scope="session")
def found(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Difference:
    return diff(before, write_model(tmp_path_factory.mktemp("after"), tuned()))


def by_name(found: Difference) -> dict[str, TensorDifference]:
    return {tensor.name: tensor for tensor in found.tensors}


def compared(folder: Path, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Difference:
    return diff(write_model(folder / "a", a), write_model(folder / "b", b))


def only(found: Difference) -> TensorDifference:
    (tensor,) = found.tensors
    return tensor


# --- what is the same -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix,shards", [("bin", 1), ("bin", 3), ("safetensors", 4)])
def test_other_files_and_other_shards_are_the_same_model(
    before: Path, tmp_path: Path, suffix: str, shards: int
) -> None:
    other = write_model(tmp_path, base(), suffix=suffix, shards=shards)
    for found in (diff(before, other), diff(other, before)):
        assert found.equal
        assert found.statuses() == {"same": len(found.tensors)}
        assert found.total.measure.changed == 0


def test_the_same_bits_are_the_same_also_where_they_are_no_number(tmp_path: Path) -> None:
    strange = {"w": torch.tensor([math.nan, -math.inf, -0.0, 5e-8], dtype=torch.float16)}
    assert compared(tmp_path, strange, strange).equal


def test_inputs_are_left_as_they_were(before: Path) -> None:
    untouched = state(before)
    diff(before, before)
    assert state(before) == untouched


# --- what changed ---------------------------------------------------------------------------------


def test_every_tensor_is_measured_as_torch_would(found: Difference) -> None:
    a, b = base(), tuned()
    assert {tensor.name for tensor in found.tensors} == {n for n in a if not n.endswith(BUFFER)}
    for tensor in found.tensors:
        before, after = a[tensor.name], b[tensor.name]
        changed = (bits(before) != bits(after)).reshape(before.numel(), -1).any(1).sum()
        assert tensor.status == ("changed" if changed else "same")
        assert tensor.measure is not None
        assert tensor.measure.changed == changed
        if before.is_floating_point():
            apart = (after.double() - before.double()).norm() / before.double().norm()
            assert tensor.measure.relative == pytest.approx(float(apart), rel=1e-12)
            assert tensor.measure.largest == float((after.double() - before.double()).abs().max())
        else:
            assert tensor.measure.relative is None
    assert not found.equal
    assert found.statuses() == {"same": 13, "changed": 22}


def test_layers_and_kinds_add_up_to_the_whole(found: Difference) -> None:
    kinds, layers = found.kinds(), found.layers()
    assert set(kinds) == {*FLOATS, *INTEGERS, "embed_tokens", "norm"}
    assert [*kinds][-2:] == ["embed_tokens", "norm"]  # those in layers come first
    assert [(n, each.different) for n, each in layers.items()] == [(0, 0), (1, 11), (2, 11)]
    for groups in (kinds.values(), [*layers.values(), kinds["embed_tokens"], kinds["norm"]]):
        assert sum(each.tensors for each in groups) == found.total.tensors == 35
        assert sum(each.measure.changed for each in groups) == found.total.measure.changed
        assert math.fsum(each.measure.a_squares for each in groups) == pytest.approx(
            found.total.measure.a_squares
        )


def test_a_kind_is_measured_with_what_of_it_is_the_same(found: Difference) -> None:
    a, b = base(), tuned()
    names = [f"model.layers.{layer}.single.weight" for layer in range(3)]
    before, after = (torch.cat([side[name] for name in names]).double() for side in (a, b))
    relative = found.kinds()["single"].measure.relative
    assert relative == pytest.approx(float((after - before).norm() / before.norm()))


def test_the_most_changed_come_first(tmp_path: Path) -> None:
    names = ["little", "much", "none", "from zero"]
    a = {name: torch.ones(4) * (name != "from zero") for name in names}
    steps = {"little": 0.1, "much": 2.0, "none": 0.0, "from zero": 1e-6}
    found = compared(tmp_path, a, {name: a[name] + steps[name] for name in names})
    assert [t.name for t in found.most_changed()] == ["from zero", "much", "little"]


def test_results_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    a = {"w": torch.randn(3 * SPAN_NBYTES // 4 + 5, generator=generator)}
    b = {"w": a["w"] + torch.randn(a["w"].shape, generator=generator) / 100}
    folders = write_model(tmp_path / "a", a), write_model(tmp_path / "b", b)
    one, three = (diff(*folders, options=Options(workers=n)) for n in (1, 3))
    assert one == three
    relative = float((b["w"].double() - a["w"].double()).norm() / a["w"].double().norm())
    assert only(one).size == pytest.approx(relative, rel=1e-12)


# --- what does not fit ----------------------------------------------------------------------------


def test_added_and_removed_tensors_are_named(tmp_path: Path) -> None:
    found = compared(tmp_path, {"a": torch.ones(2), "b": torch.ones(2)}, {"b": torch.ones(2)})
    assert [(t.name, t.status, t.measure) for t in found.tensors[:1]] == [("a", "removed", None)]
    back = diff(tmp_path / "b", tmp_path / "a")
    assert back.statuses() == {"same": 1, "added": 1}
    assert not found.equal
    assert not back.equal


@pytest.mark.parametrize("rows", [(4, 6), (6, 4)])
def test_shared_rows_of_a_grown_vocabulary_are_compared(
    tmp_path: Path, rows: tuple[int, int]
) -> None:
    a, b = torch.ones(rows[0], 3), torch.ones(rows[1], 3)
    b[1] = 2
    tensor = only(compared(tmp_path, {"w": a}, {"w": b}))
    assert (tensor.status, tensor.new_rows) == ("other shape", rows[1] - rows[0])
    assert tensor.measure is not None
    assert (tensor.measure.numel, tensor.measure.changed, tensor.size) == (12, 3, 0.5)


@pytest.mark.parametrize("shapes", [((4, 3), (3, 4)), ((4,), (5,)), ((4,), (4, 1)), ((), (1,))])
def test_other_shapes_are_told_and_not_compared(
    tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    a, b = ({"w": torch.ones(shape)} for shape in shapes)
    found = compared(tmp_path, a, b)
    assert (only(found).status, only(found).measure) == ("other shape", None)
    assert found.notes == ("1 tensor with shapes or dtypes that cannot be compared",)


def test_copies_in_two_float_dtypes_are_compared_by_value(tmp_path: Path) -> None:
    """With elements of other widths, over more than one span."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(SPAN_NBYTES // 2 + 77, generator=generator).half()
    wide = half.float()
    wide[-1] += 1
    for a, b in ((half, wide), (wide, half)):
        found = compared(tmp_path / str(a.dtype), {"w": a}, {"w": b})
        assert only(found).status == "other dtype"
        assert found.total.measure.changed == 1
        assert found.total.measure.largest == 1.0
        assert found.notes == ("1 tensor of another dtype, compared by value",)
        assert not found.equal


@pytest.mark.parametrize("other", [torch.int16, torch.int8, torch.float32])
def test_integers_of_another_dtype_are_not_compared(tmp_path: Path, other: torch.dtype) -> None:
    a, b = torch.ones(4, dtype=torch.int32), torch.ones(4, dtype=other)
    for number, (one, two) in enumerate([(a, b), (b, a)]):
        tensor = only(compared(tmp_path / str(number), {"w": one}, {"w": two}))
        assert (tensor.status, tensor.measure) == ("other dtype", None)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors_are_the_same(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = {"w": torch.ones(shape), "u": torch.ones(2), "v": torch.ones(2)}
    assert compared(tmp_path, model, model).equal


def test_rotary_buffers_are_left_out_and_said_so(tmp_path: Path) -> None:
    a = {"w": torch.ones(2), f"model.layers.0.self_attn.{BUFFER}": torch.ones(4)}
    found = compared(tmp_path, a, {"w": torch.ones(2)})
    assert found.equal
    buffers = "left out: 1 buffer that no loader reads: rotary_emb.inv_freq"
    assert found.notes == (buffers,)


def test_what_a_checkpoint_notes_is_told_of_its_side(tmp_path: Path) -> None:
    write_model(tmp_path / "a", {"w": torch.ones(2)})
    torch.save({"w": torch.ones(2)}, tmp_path / "a" / "pytorch_model.bin")
    found = compared(tmp_path, {"w": torch.ones(2)}, {"w": torch.ones(2)})
    assert [note.split(":")[0] for note in found.notes] == ["A"]


def test_numbers_that_are_none_are_counted_in_a_note(tmp_path: Path) -> None:
    a = {"w": torch.tensor([math.nan, 1.0, math.inf])}
    found = compared(tmp_path, a, {"w": torch.tensor([1.0, 1.0, math.inf])})
    assert found.notes == ("2 elements NaN or infinite in A or B, which have no size",)
    assert found.total.measure.changed == 1


def test_a_source_that_is_missing_or_cut_short_is_named(before: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="nowhere"):
        diff(before, tmp_path / "nowhere")
    cut = write_model(tmp_path / "cut", base())
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ShardTruncated, match=r"model\.safetensors"):
        diff(before, cut)


# --- as JSON --------------------------------------------------------------------------------------


def test_the_document_holds_all_and_no_number_that_json_lacks(found: Difference) -> None:
    document: dict[str, Any] = json.loads(json.dumps(found.to_document(), allow_nan=False))
    assert document["statuses"] == {"same": 13, "changed": 22}
    assert [each["layer"] for each in document["layers"]] == [0, 1, 2]
    assert {each["kind"] for each in document["kinds"]} == set(found.kinds())
    tensor = next(t for t in document["tensors"] if t["name"] == "model.layers.1.half.weight")
    assert (tensor["layer"], tensor["kind"], tensor["status"]) == (1, "half", "changed")
    assert tensor["a"] == tensor["b"] == {"dtype": "F16", "shape": [6, 8]}
    measured = tensor["measure"]
    assert measured["compared"] == sum(measured["ulps"].values()) == 48
    assert measured["change_l2"] / measured["a_l2"] == pytest.approx(measured["relative"])
    assert measured["share"] == measured["changed"] / 48
