"""A wrong base, a damaged delta, anything in the way: named, and nothing is published."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.delta_models import base_tensors, edit_record, trained, write_pair
from tests.support.folders import contents, staging, write_model
from tests.support.world import interrupt_after
from weightsmith import fs
from weightsmith.codecs.exact.making import SpanMaker
from weightsmith.engine.options import Options, Verify
from weightsmith.errors import (
    BaseIsTarget,
    DamagedInput,
    DeltaInvalid,
    DeltaUnknown,
    DiskFull,
    DtypeNotStorable,
    InputChanged,
    Mismatch,
    NoWeights,
    OptionMeaningless,
    OtherDeltaThere,
    TargetExists,
    TargetIsInput,
    VerificationFailed,
    WeightsmithError,
    WrongBase,
)
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.sources.recognise import open_model


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Base, target, and the delta between them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "base", tmp_path / "target", tmp_path / "delta"


def refused(base: Path, delta: Path, **options: Any) -> WeightsmithError:
    """What applying raises; nothing may be published."""
    out = delta.parent / "out"
    with pytest.raises(WeightsmithError) as caught:
        apply_delta(base, delta, target=out, **options)
    assert not out.exists()
    shutil.rmtree(delta.parent / ".out.weightsmith-partial", ignore_errors=True)
    return caught.value


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 0x10
    path.write_bytes(raw)


# --- bases --------------------------------------------------------------------------------------


def test_another_base_is_refused_before_anything_is_written(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    other = {n: trained(t) if t.is_floating_point() else t for n, t in base_tensors().items()}
    error = refused(write_model(tmp_path / "other", other), pair[2])
    assert isinstance(error, WrongBase)
    assert error.exit_code == 7
    assert any("lm_head.weight" in line for line in error.context)


@pytest.mark.parametrize("large", [True, False])
def test_one_changed_bit_of_the_base_is_found_and_its_tensor_named(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # nothing is looked at before the run
        monkeypatch.setattr("weightsmith.sources.exact._GLANCE_NBYTES", 0)
    tensors = base_tensors()
    tensors["model.layers.0.up.weight"].view(torch.int16)[700, 3] ^= 1
    write_model(pair[0], tensors, shards=2)
    error = refused(pair[0], pair[2])
    assert isinstance(error, WrongBase)
    assert error.context == ("model.layers.0.up.weight",)


def test_a_base_without_what_the_delta_needs_is_refused(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    tensors = base_tensors()
    del tensors["lm_head.weight"]
    tensors["model.layers.0.down.weight"] = tensors["model.layers.0.down.weight"].float()
    error = refused(write_model(tmp_path / "other", tensors), pair[2])
    assert isinstance(error, WrongBase)
    assert "2 tensors" in str(error)
    assert "lm_head.weight is missing" in error.context


def test_a_base_in_other_files_and_with_more_tensors_will_do(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    tensors = base_tensors() | {"extra": torch.ones(3)}
    del tensors["model.layers.0.gone"]
    base = write_model(tmp_path / "other", tensors, suffix="bin")
    apply_delta(base, pair[2], target=tmp_path / "out")
    assert contents(pair[1]).items() <= contents(tmp_path / "out").items()


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}])
def test_the_hint_names_the_base_where_the_delta_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    base, target = write_pair(tmp_path)
    make_delta(base, target, tmp_path / "delta", base_id="meta/llama@0123abc")
    error = refused(target, tmp_path / "delta", **options)
    assert isinstance(error, Mismatch)
    assert "meta/llama@0123abc" in error.hint_text
    flip(next(base.glob("*.safetensors")), -1)
    for glance in (2**26, 0):  # before the run, and in it
        monkeypatch.setattr("weightsmith.sources.exact._GLANCE_NBYTES", glance)
        error = refused(base, tmp_path / "delta", **options)
        assert isinstance(error, WrongBase)
        assert error.hint_text == "it was made from this one: `base=meta/llama@0123abc`"


# --- damaged deltas ------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_a_delta_is_noticed(pair: tuple[Path, Path, Path]) -> None:
    base, target, delta = pair
    expected = contents(target)
    sound = contents(delta)
    for name, raw in sound.items():
        for at in {0, 9, len(raw) // 3, len(raw) // 2, len(raw) - 2}:
            flip(delta / name, at)
            try:
                error = refused(base, delta)
            except pytest.fail.Exception:  # a space, or words that nothing depends on
                out = delta.parent / "out"
                assert expected.items() <= contents(out).items()
                shutil.rmtree(out)
            else:
                assert isinstance(error, DamagedInput | Mismatch), (name, at)
            (delta / name).write_bytes(raw)


def test_a_flipped_bit_in_a_payload_names_the_tensor(pair: tuple[Path, Path, Path]) -> None:
    base, _, delta = pair
    from weightsmith.checkpoint.opening import open_checkpoint

    stored = open_checkpoint(delta, kind="exact-delta").tensors["model.layers.0.up.weight"]
    flip(delta / stored.file, stored.stored.offset + 2000)
    error = refused(base, delta)
    assert isinstance(error, DeltaInvalid)
    assert error.exit_code == 6
    assert "model.layers.0.up.weight" in str(error)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "weightsmith.json"])
def test_a_file_that_is_missing_is_named(pair: tuple[Path, Path, Path], name: str) -> None:
    (pair[2] / name).unlink()
    error = refused(pair[0], pair[2])
    assert isinstance(error, DamagedInput)
    assert name in str(error)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["target"]["files"][0].update(name="../evil.safetensors"),
        lambda d: d["target"]["files"][0].update(name="weightsmith.json"),
        lambda d: d["target"]["files"][0].update(name=d["target"]["files"][1]["name"]),
        lambda d: d["target"]["files"][0].update(name=d["target"]["files"][1]["name"].upper()),
        lambda d: d["target"]["files"][0].update(sha256="00"),
        lambda d: d["target"]["files"][0].update(size=-1),
        lambda d: d["target"]["files"][0].update(size=10**6),
        lambda d: d["target"]["files"][0].update(header="AAAA"),
        lambda d: d["target"]["files"][0].update(header="!"),
        lambda d: d["target"]["files"].pop(),
        lambda d: d["target"].update(files={}),
        lambda d: d["target"].update(index=7),
        lambda d: d["target"].update(index="garbage"),
        lambda d: d["target"].update(
            index='{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
        ),
        lambda d: d["target"].update(fingerprint="00" * 32),
        lambda d: d["target"]["tensors"][0].update(digest="00" * 32),
        lambda d: d["target"]["tensors"][0].update(digest="x"),
        lambda d: d["target"]["tensors"][0].update(shape=[2**62, 2**62]),
        lambda d: d["target"]["tensors"][0].update(shape=[1.5]),
        lambda d: d["target"]["tensors"][0].update(shape=[True]),
        lambda d: d["target"]["tensors"][0].update(shape=5),
        lambda d: d["target"]["tensors"][0].update(dtype="F17"),
        lambda d: d["target"]["tensors"][0].update(base="nowhere"),
        lambda d: d["target"]["tensors"][0].update(payload="nowhere"),
        lambda d: d["target"]["tensors"][0].update(base=None, payload=None),
        lambda d: d["target"]["tensors"].append(d["target"]["tensors"][0]),
        lambda d: d["target"]["tensors"].pop(),
        lambda d: d["target"]["tensors"].clear(),
        lambda d: d["base"]["tensors"].pop(),
        lambda d: d["base"].update(id=None),
        lambda d: d.pop("base"),
        lambda d: d.update(target=[]),
    ],
)
def test_a_record_that_contradicts_itself_or_the_files_is_refused(
    pair: tuple[Path, Path, Path], edit: Callable[[Any], object]
) -> None:
    edit_record(pair[2], edit)
    assert isinstance(refused(pair[0], pair[2]), DeltaInvalid)


def _another_hash(file: dict[str, Any]) -> None:
    file["sha256"] = "00" * 32


def _another_header(file: dict[str, Any]) -> None:
    """That is one all the same, and says the same of the tensors."""
    header = base64.b64decode(file["header"])
    file["header"] = base64.b64encode(header.replace(b'"pt"', b'"tp"')).decode()


@pytest.mark.parametrize("harm", [_another_hash, _another_header])
@pytest.mark.parametrize("verify", ["cache", "disk", "no"])
def test_a_record_of_another_file_is_the_deltas_fault_where_every_tensor_is_right(
    pair: tuple[Path, Path, Path], harm: Callable[[dict[str, Any]], None], verify: Verify
) -> None:
    edit_record(pair[2], lambda d: harm(d["target"]["files"][1]))
    error = refused(pair[0], pair[2], options=Options(verify=verify))
    assert isinstance(error, DeltaInvalid)
    assert "the record of model-00002-of-00002.safetensors" in str(error)


def test_a_restored_file_that_was_written_wrong_is_not_the_deltas_fault(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_from = fs.PositionedFile.write_from

    def write_one_bit_wrong(file: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
        if file.path.suffix == ".safetensors" and len(buffer) > 100_000:
            buffer = memoryview(bytes([buffer[0] ^ 1]) + bytes(buffer[1:]))
        write_from(file, offset, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(fs.PositionedFile, "write_from", write_one_bit_wrong)
        error = refused(pair[0], pair[2])
    assert isinstance(error, VerificationFailed)
    assert "1 tensor" in str(error)
    assert error.context == ("model.layers.0.up.weight",)


def test_a_restored_file_that_was_damaged_in_staging_is_not_the_deltas_fault(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target, delta = pair
    steps = 7  # three for the plan, and three for the first file
    out = delta.parent / "out"
    with monkeypatch.context() as patch:
        patch.setattr(fs, "on_durable_step", interrupt_after(steps))
        with pytest.raises(KeyboardInterrupt):
            apply_delta(base, delta, target=out)
    (receipt,) = (staging(out) / "receipts").glob("*.json")
    flip(staging(out) / "output" / receipt.name.removesuffix(".json"), -1)
    with pytest.raises(VerificationFailed) as caught:
        apply_delta(base, delta, target=out)
    assert "restart=True" in caught.value.hint_text
    apply_delta(base, delta, target=out, options=Options(restart=True))
    assert contents(target).items() <= contents(out).items()


@pytest.mark.parametrize(
    "wrong",
    [{"delta": [1]}, {"delta": "x"}, {"dropped": [{}]}, {"repairs": 3}, {"files": {"a": 1}}],
)
def test_a_manifest_that_is_none_of_ours_is_a_damaged_input(
    pair: tuple[Path, Path, Path], wrong: dict[str, object]
) -> None:
    path = pair[2] / "weightsmith.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | wrong))
    error = refused(pair[0], pair[2])
    assert isinstance(error, DamagedInput)
    assert "weightsmith.json" in str(error)


def test_a_record_of_another_version_is_refused_by_name(pair: tuple[Path, Path, Path]) -> None:
    edit_record(pair[2], lambda d: d.update(form="exact-delta@9", needs="0.9.1"))
    error = refused(pair[0], pair[2])
    assert isinstance(error, DeltaUnknown)
    assert "exact-delta@9" in str(error)
    assert error.hint_text == "weightsmith 0.9.1 reads it: pip install 'weightsmith>=0.9.1'"
    edit_record(pair[2], lambda d: d.update(needs="0.9; rm -rf ~"))
    assert refused(pair[0], pair[2]).hint_text == DeltaUnknown.hint


def test_a_delta_given_as_a_model_is_told_with_what_to_do(pair: tuple[Path, Path, Path]) -> None:
    with pytest.raises(NoWeights) as caught:
        open_model(pair[2])
    assert caught.value.context[0] == "it holds an exact delta, which is no model without its base"
    assert f"weightsmith apply-delta --base SOURCE --delta {pair[2]}" in caught.value.hint_text


@pytest.mark.parametrize("options", [{"new_rows": "zero"}, {"whole": ["a"]}])
def test_options_that_only_a_sum_could_heed_are_refused(
    pair: tuple[Path, Path, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(OptionMeaningless):
        apply_delta(pair[0], pair[2], target=tmp_path / "out", **options)


# --- making --------------------------------------------------------------------------------------


def test_a_span_that_does_not_decode_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = write_pair(tmp_path)
    restores = SpanMaker.restores

    def fails_once(maker: SpanMaker, stored: memoryview) -> bool:
        damaged = bytearray(stored)
        if len(damaged) > 100_000:
            damaged[5000] ^= 1
        return restores(maker, memoryview(damaged))

    monkeypatch.setattr(SpanMaker, "restores", fails_once)
    with pytest.raises(VerificationFailed, match=r"up\.weight"):
        make_delta(base, target, tmp_path / "delta", options=Options(workers=3))
    assert not (tmp_path / "delta").exists()


def test_a_full_disk_stops_all_workers_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = write_pair(tmp_path)
    write_from = fs.PositionedFile.write_from

    def full(file: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
        if offset > 300_000:
            raise DiskFull(file=file.path, reason="full")
        write_from(file, offset, buffer)

    monkeypatch.setattr(fs.PositionedFile, "write_from", full)
    with pytest.raises(DiskFull):
        make_delta(base, target, tmp_path / "delta", options=Options(workers=4))
    assert not (tmp_path / "delta").exists()
    monkeypatch.undo()
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert contents(target).items() <= contents(tmp_path / "out").items()


def test_a_target_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = write_pair(tmp_path)
    restores = SpanMaker.restores

    def touch(maker: SpanMaker, stored: memoryview) -> bool:
        os.utime(next(target.glob("*.safetensors")), (1, 1))
        return restores(maker, stored)

    monkeypatch.setattr(SpanMaker, "restores", touch)
    with pytest.raises(InputChanged):
        make_delta(base, target, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


@pytest.mark.slow
def test_stopped_at_any_durable_step_there_is_nothing_or_all_and_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = write_pair(tmp_path)
    make_delta(base, target, tmp_path / "sound")
    sound = contents(tmp_path / "sound")
    steps = stop_everywhere(
        monkeypatch, tmp_path, sound, lambda delta: make_delta(base, target, delta)
    )
    assert steps > 8


@pytest.mark.slow
def test_stopped_while_it_is_applied_it_is_finished_by_the_next_run(
    pair: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_delta(pair[0], pair[2], target=tmp_path / "sound")
    sound = contents(tmp_path / "sound")
    steps = stop_everywhere(
        monkeypatch, tmp_path, sound, lambda out: apply_delta(pair[0], pair[2], target=out)
    )
    assert steps > 8


def stop_everywhere(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    sound: dict[str, bytes],
    make: Callable[[Path], object],
) -> int:
    """Stop `make` at its first durable step, its second, ..., and run it again each time."""
    steps = 0
    stopped = True
    while stopped:
        made = folder / f"made-{steps}"
        monkeypatch.setattr(fs, "on_durable_step", interrupt_after(steps))
        try:
            make(made)
            stopped = False
        except KeyboardInterrupt:
            assert not made.exists() or contents(made) == sound
        monkeypatch.undo()
        make(made)
        assert contents(made) == sound
        assert not made.with_name(f".{made.name}.weightsmith-partial").exists()
        steps += 1
    return steps


def test_a_finished_delta_is_checked_and_left(pair: tuple[Path, Path, Path]) -> None:
    before = contents(pair[2])
    assert make_delta(*pair).already_done
    assert contents(pair[2]) == before


def test_anything_else_in_the_way_is_left_unless_it_may_be_replaced(
    pair: tuple[Path, Path, Path],
) -> None:
    base, target, delta = pair
    with pytest.raises(OtherDeltaThere, match="another plan"):
        make_delta(base, target, delta, base_id="org/name@1")
    flip(next(delta.glob("delta-*")), 20_000)
    with pytest.raises(TargetExists, match="damaged"):
        make_delta(base, target, delta)
    made = make_delta(base, target, delta, options=Options(overwrite=True))
    assert not made.already_done
    assert make_delta(base, target, delta).already_done


def test_directories_that_overlap_are_refused(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    with pytest.raises(BaseIsTarget):
        make_delta(base, base, tmp_path / "delta")
    with pytest.raises(TargetIsInput):
        make_delta(base, target, target / "delta")


def test_a_dtype_without_a_name_in_safetensors_is_refused(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3, dtype=torch.complex128)}
    base = write_model(tmp_path / "base", base_tensors())
    target = write_model(tmp_path / "target", tensors, suffix="bin")
    with pytest.raises(DtypeNotStorable):
        make_delta(base, target, tmp_path / "delta")
