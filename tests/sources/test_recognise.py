"""What a source is, is asked once, and in one order."""

from pathlib import Path

import pytest

from tests.support.bad_input.case import write_base, write_delta
from weightsmith.checkpoint.layout import KINDS, layout_of
from weightsmith.errors import EncodedRelease, NoWeights, WeightsmithError
from weightsmith.ops.make_delta import make_delta
from weightsmith.sources.file_release import FileRelease
from weightsmith.sources.kinds import Adapter, AdditiveDelta, ExactDelta, Meta, Model
from weightsmith.sources.recognise import open_lora, open_model, recognise

FILES = {
    "exact-delta": ["delta.safetensors.index.json", "delta-00001-of-00001.safetensors"],
    "huggingface": ["model.safetensors"],
    "adapter": ["adapter_config.json", "adapter_model.safetensors"],
    "meta": ["params.json", "consolidated.00.pth"],
    "keystream-release": [f"pytorch_model.bin.{'0' * 64}.enc"],
}


def test_the_order_is_that_of_the_kinds() -> None:
    assert [*FILES] == [*KINDS]
    for number, kind in enumerate(KINDS):
        names = [name for later in KINDS[number:] for name in FILES[later]]
        found = layout_of(names)
        assert found is not None
        assert found.kind == kind


@pytest.mark.parametrize(
    "folder, kind",
    [
        ("vicuna_v1_1/base", Model),
        ("vicuna_v1_1/delta", AdditiveDelta),
        ("meta_llama1_2shards/meta/13B", Meta),
        ("lora/plain_fp16/adapter", Adapter),
        ("oasst_xor/delta", FileRelease),
        ("point_alpaca_enc/delta", FileRelease),
    ],
)
def test_each_kind_is_recognised(folder: str, kind: type, vectors: Path) -> None:
    assert type(recognise(vectors / folder)) is kind


def test_an_exact_delta_is_no_additive_one_whatever_lies_beside_it(tmp_path: Path) -> None:
    base, delta = write_base(tmp_path), write_delta(tmp_path)
    made = make_delta(base, delta, tmp_path / "made").target
    for name in ("model.safetensors", "config.json"):
        (made / name).write_bytes((delta / name).read_bytes())
    assert isinstance(recognise(made), ExactDelta)


def test_a_delta_of_ours_is_known_by_its_record_where_norms_do_not_tell(tmp_path: Path) -> None:
    base, target = write_base(tmp_path), write_base(tmp_path, "target")
    made = make_delta(base, target, tmp_path / "made", codec="add").target
    found = recognise(made)
    assert isinstance(found, AdditiveDelta)
    assert found.record is not None


@pytest.mark.parametrize(
    "folder, error",
    [("lora/plain_fp16/adapter", NoWeights), ("oasst_xor/delta", EncodedRelease)],
)
def test_what_is_no_model_is_refused_as_one_with_the_way_out(
    folder: str, error: type[WeightsmithError], vectors: Path
) -> None:
    with pytest.raises(error) as raised:
        open_model(vectors / folder)
    assert "weightsmith" in raised.value.hint_text


def test_an_adapter_asked_for_is_opened_beside_a_model(vectors: Path, tmp_path: Path) -> None:
    folder = write_base(tmp_path)
    adapter = vectors / "lora/plain_fp16/adapter"
    for name in FILES["adapter"]:
        (folder / name).write_bytes((adapter / name).read_bytes())
    assert isinstance(recognise(folder), Model)
    assert all("lora_" in name for name in open_lora(folder).tensors)


def test_the_one_weight_file_of_a_folder_stands_for_it(vectors: Path, tmp_path: Path) -> None:
    folder = write_base(tmp_path)
    (weights,) = folder.glob("*.safetensors")
    found = recognise(weights)
    assert isinstance(found, Model)
    assert found.label == str(weights)
    assert "config.json" in found.checkpoint.sidecars
    adapter = vectors / "lora" / "plain_fp16" / "adapter" / "adapter_model.safetensors"
    assert isinstance(recognise(adapter), Adapter)
    assert all("lora_" in name for name in open_lora(adapter).tensors)


def test_damage_in_a_norm_does_not_keep_a_model_from_being_opened(tmp_path: Path) -> None:
    folder = write_base(tmp_path)
    (folder / "config.json").write_text("{")
    found = recognise(folder)
    assert isinstance(found, Model)
    assert found.guess.kind == "unknown"
