"""XOR releases: whole files against whole files, the base's bytes held to be the right ones."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import KILLED, Children
from tests.support.file_releases import write_xor, xor
from tests.support.folders import assert_same_bits, contents, copied, load, staging, state
from weightsmith.catalogue.load import load_bases, load_releases
from weightsmith.catalogue.schema import Base, Checksums, Release
from weightsmith.engine.manifest import read_manifest
from weightsmith.engine.options import Options
from weightsmith.errors import (
    BaseFilesWrong,
    DecodedUnreadable,
    DecodedWrong,
    GzipInvalid,
    NoBase,
    OptionMeaningless,
    PayloadUnpaired,
    ShardMissing,
    TargetExists,
    WeightsmithError,
)
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta, target_name
from weightsmith.ops.convert import convert
from weightsmith.ops.inspect import inspect
from weightsmith.ops.job import carry_out
from weightsmith.ops.verify.verify import verify
from weightsmith.sources import file_release

VECTOR = "oasst_xor"


@pytest.fixture
def vector(vectors: Path, tmp_path: Path) -> Path:
    """A copy of the vector that a test may change."""
    return copied(vectors / VECTOR, tmp_path / "vector")


def decoded(target: Path) -> dict[str, bytes]:
    """All files of a result but our own manifest."""
    found = contents(target)
    del found["weightsmith.json"]
    return found


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("repair", [True, False])
def test_every_byte_is_as_open_assistants_script_made_it(
    workers: int, repair: bool, vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / VECTOR
    before = state(folder)
    apply_delta(
        folder / "base",
        folder / "delta",
        target=tmp_path / "out",
        repair=repair,
        options=Options(workers=workers),
    )
    assert decoded(tmp_path / "out") == contents(folder / "expected")
    assert state(folder) == before


def test_what_was_decoded_is_a_model_that_verifies_and_converts(
    vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / VECTOR
    apply_delta(folder / "base", folder / "delta", target=tmp_path / "out")
    report = verify(tmp_path / "out")
    assert {check.name: check.verdict for check in report.checks}["digests"] == "pass"
    convert(tmp_path / "out", tmp_path / "anew")
    convert(folder / "expected", tmp_path / "expected")
    assert_same_bits(load(tmp_path / "anew"), load(tmp_path / "expected"))
    ours, theirs = (read_manifest(tmp_path / name) for name in ("out", "anew"))
    assert ours is not None
    assert theirs is not None
    tensors = {n: d for n, d in ours.tensors.items() if not n.endswith("inv_freq")}
    assert tensors == theirs.tensors


def test_the_second_run_finds_it_done_and_damage_is_found(vector: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    apply_delta(vector / "base", vector / "delta", target=target)
    assert apply_delta(vector / "base", vector / "delta", target=target).already_done
    config = (target / "config.json").read_bytes()
    (target / "config.json").write_bytes(config.replace(b"32", b"33"))
    with pytest.raises(TargetExists, match=r"config\.json was changed"):
        apply_delta(vector / "base", vector / "delta", target=target)


# --- lengths, copies, containers ------------------------------------------------------------------


@pytest.mark.parametrize("cut", [-100, 0, 100, 5_000_000])
def test_a_base_file_of_another_length_is_padded_or_cut(
    cut: int, vector: Path, tmp_path: Path
) -> None:
    """Spans of 2 MiB: with 5 MB more, the payload goes on for spans where the base has ended."""
    name = "tokenizer.model"
    base, target = vector / "base" / name, vector / "expected" / name
    if cut < 0:
        base.write_bytes(base.read_bytes()[:cut])
    elif cut > 0:
        target.write_bytes(target.read_bytes() + bytes(range(200)) * (cut // 200))
    (vector / "delta" / name).write_bytes(xor(target.read_bytes(), base.read_bytes()))
    apply_delta(vector / "base", vector / "delta", target=tmp_path / "out")
    assert decoded(tmp_path / "out") == contents(vector / "expected")


def test_a_packed_payload_is_unpacked_on_the_way(vector: Path, tmp_path: Path) -> None:
    payload = write_xor(vector / "expected", vector / "base", tmp_path / "packed", packed=True)
    apply_delta(vector / "base", payload, target=tmp_path / "out", options=Options(workers=4))
    assert decoded(tmp_path / "out") == contents(vector / "expected")


def test_a_packed_payload_that_is_cut_short_is_named(vector: Path, tmp_path: Path) -> None:
    payload = write_xor(vector / "expected", vector / "base", tmp_path / "packed", packed=True)
    raw = (payload / "config.json").read_bytes()
    (payload / "config.json").write_bytes(raw[:-20])
    with pytest.raises(GzipInvalid, match=r"config\.json"):
        apply_delta(vector / "base", payload, target=tmp_path / "out")


def test_the_payload_is_found_in_its_folder_beside_card_and_script(
    vector: Path, tmp_path: Path
) -> None:
    """As the repositories are laid out."""
    repository = tmp_path / "some-model-xor"
    shutil.move(vector / "delta", repository / "xor_encoded_files")
    (repository / ".git").mkdir()
    (repository / "README.md").write_text("how to")
    (repository / "xor_codec.py").write_text("raise SystemExit")
    job = plan_apply_delta(vector / "base", repository)
    assert job.bindings.target.name == target_name("some-model-xor").name == "some-model"
    carry_out(
        dataclasses.replace(
            job, bindings=dataclasses.replace(job.bindings, target=tmp_path / "out")
        ),
        Options(),
    )
    assert decoded(tmp_path / "out") == contents(vector / "expected")


def test_cards_and_hidden_files_among_the_payload_are_left_and_told(
    vector: Path, tmp_path: Path
) -> None:
    (vector / "delta" / "README.md").write_text("a card")
    for side in ("base", "delta"):  # both are clones of repositories
        (vector / side / ".gitattributes").write_text("*.bin filter=lfs")
    job = plan_apply_delta(vector / "base", vector / "delta", target=tmp_path / "out")
    assert job.plan.notes == ("not used: .gitattributes, README.md",)


# --- wrong bases ----------------------------------------------------------------------------------


def test_a_payload_without_counterpart_is_refused_by_name(vector: Path, tmp_path: Path) -> None:
    (vector / "base" / "tokenizer.model").unlink()
    (vector / "delta" / "extra.json").write_bytes(b"\0")
    with pytest.raises(PayloadUnpaired) as caught:
        apply_delta(vector / "base", vector / "delta", target=tmp_path / "out")
    assert caught.value.context == ("extra.json", "tokenizer.model")


def test_a_shard_that_the_release_lacks_is_named_before_anything_is_written(
    vector: Path, tmp_path: Path
) -> None:
    (vector / "delta" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ShardMissing) as caught:
        apply_delta(vector / "base", vector / "delta", target=tmp_path / "out")
    assert caught.value.context == ("pytorch_model-00002-of-00002.bin",)
    assert not (tmp_path / "out").exists()


def test_another_conversion_of_the_base_is_found_before_anything_is_written(
    vectors: Path, tmp_path: Path
) -> None:
    with pytest.raises(BaseFilesWrong) as caught:
        apply_delta(
            vectors / "vicuna_v0" / "base", vectors / VECTOR / "delta", target=tmp_path / "out"
        )
    assert caught.value.exit_code == 7
    assert any("pytorch_model-00001-of-00002.bin" in line for line in caught.value.context)
    assert not list(tmp_path.iterdir())


def test_another_version_of_a_json_file_is_found_by_name(vector: Path, tmp_path: Path) -> None:
    name = "generation_config.json"
    base = (vector / "base" / name).read_bytes()
    (vector / "delta" / name).write_bytes(xor(b'{"eos_token_id": 2, "other": "text"}', base))
    (vector / "base" / name).write_bytes(base.replace(b"true", b"false", 1))
    with pytest.raises(BaseFilesWrong) as caught:
        apply_delta(vector / "base", vector / "delta", target=tmp_path / "out")
    assert len(caught.value.context) == 1
    assert caught.value.context[0].startswith("generation_config.json decodes to nonsense")


def test_nonsense_that_shows_only_when_decoded_is_not_published(
    vector: Path, tmp_path: Path
) -> None:
    """A packed payload's tables are not looked at before."""
    payload = write_xor(vector / "expected", vector / "base", tmp_path / "packed", packed=True)
    path = vector / "base" / "pytorch_model-00001-of-00002.bin"
    path.write_bytes(bytes(10) + path.read_bytes())
    with pytest.raises(DecodedUnreadable) as caught:
        apply_delta(vector / "base", payload, target=tmp_path / "out")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "out").exists()


# --- what the catalogue knows ---------------------------------------------------------------------


def hashes(folder: Path, of: str) -> Checksums:
    """The hashes of a folder's files, as a release publishes them."""
    files = {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.iterdir()
    }
    return Checksums(of, "md5", "its card", "stated", files, "one exact conversion")  # type: ignore[arg-type]


@pytest.fixture
def release(vector: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The vector as a release that the catalogue knows, named like its repository."""
    known = next(r for r in load_releases() if r.id == "oasst-sft-6-llama-30b")
    base = next(b for b in load_bases() if b.alias == known.base)
    right = hashes(vector / "base", "huggingface")
    ours: Release = dataclasses.replace(known, checksums=(hashes(vector / "expected", "result"),))
    theirs: Base = dataclasses.replace(
        base, checksums=(dataclasses.replace(right, needed_by=(known.id,)),)
    )
    monkeypatch.setattr(
        file_release, "releases_named", lambda name: [(ours, name)] if "oasst" in name else []
    )
    monkeypatch.setattr(file_release, "alias", lambda _: theirs)
    return vector.rename(vector.with_name("oasst-sft-6-llama-30b-xor"))


def test_published_hashes_of_base_and_result_are_checked(release: Path, tmp_path: Path) -> None:
    job = plan_apply_delta(release / "base", release / "delta", target=tmp_path / "out")
    assert job.plan.release == "oasst-sft-6-llama-30b"
    assert len(job.known) == 8
    carry_out(job, Options())
    assert decoded(tmp_path / "out") == contents(release / "expected")


def test_a_base_file_with_another_hash_stops_the_run_before_it_writes(
    release: Path, tmp_path: Path
) -> None:
    """A few weights that differ: nothing but the hash could tell."""
    path = release / "base" / "pytorch_model-00002-of-00002.bin"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(BaseFilesWrong) as caught:
        apply_delta(release / "base", release / "delta", target=tmp_path / "out")
    assert caught.value.context == (
        f"{path.name} has another md5 than the file that the release needs",
    )
    assert not staging(tmp_path / "out").exists()


def test_a_result_with_another_hash_is_not_published(release: Path, tmp_path: Path) -> None:
    path = release / "delta" / "pytorch_model-00002-of-00002.bin"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    for verify_how in ("cache", "no"):
        with pytest.raises(DecodedWrong, match=path.name):
            apply_delta(
                release / "base",
                release / "delta",
                target=tmp_path / "out",
                options=Options(verify=verify_how),
            )
        assert not (tmp_path / "out").exists()


def test_the_advice_names_the_conversion_that_is_needed(release: Path, tmp_path: Path) -> None:
    (release / "base" / "config.json").write_bytes(b"{}")
    with pytest.raises(BaseFilesWrong) as caught:
        apply_delta(release / "base", release / "delta", target=tmp_path / "out")
    assert any("one exact conversion" in line for line in caught.value.context)


def test_the_real_releases_name_files_of_their_base_that_they_need() -> None:
    needed = {
        name: len(group.files)
        for base in load_bases()
        for group in base.checksums
        for name in group.needed_by
    }
    assert needed["oasst-sft-6-llama-30b"] == 14
    assert needed.keys() <= {release.id for release in load_releases()}


# --- being stopped --------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_instant_the_same_command_finishes_it(
    every: int, children: Children, vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / VECTOR
    base, delta = folder / "base", folder / "delta"
    whole = children.apply(base, delta, tmp_path / "whole")
    assert whole.error == whole.unknown == ""
    expected = contents(tmp_path / "whole")
    kept = set()
    for step in range(1, whole.steps + 1, every):
        target = tmp_path / str(step)
        killed = children.apply(base, delta, target, die_at_step=step)
        assert killed.exit == KILLED
        assert not target.exists() or contents(target) == expected
        again = children.apply(base, delta, target)
        assert again.error == again.unknown == ""
        kept.add(again.kept)
        assert contents(target) == expected
        assert not staging(target).exists()
    assert len(kept) > (1 if every > 1 else 5)


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"dtype": "float16"}, {"new_rows": "mean"}, {"whole": ["lm_head.*"]}]
)
def test_arithmetic_means_nothing_here(
    options: dict[str, Any], vector: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionMeaningless, match="no use for `"):
        plan_apply_delta(vector / "base", vector / "delta", target=tmp_path / "out", **options)


def test_a_base_is_needed(vector: Path, tmp_path: Path) -> None:
    with pytest.raises(NoBase):
        plan_apply_delta(None, vector / "delta", target=tmp_path / "out")


def test_a_plan_of_files_survives_json(vector: Path, tmp_path: Path) -> None:
    from weightsmith.plan.model import Plan

    plan = plan_apply_delta(vector / "base", vector / "delta", target=tmp_path / "out").plan
    again = Plan.from_document(json.loads(plan.to_bytes()))
    assert again == plan
    assert again.makes_files


def test_a_folder_whose_files_are_no_longer_there_is_an_error_not_a_crash(
    vector: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsmithError):
        apply_delta(tmp_path / "nowhere", vector / "delta", target=tmp_path / "out")


def test_inspect_knows_a_release_by_its_folder_and_name(vector: Path, tmp_path: Path) -> None:
    repository = tmp_path / "oasst-sft-6-llama-30b-xor"
    shutil.move(vector / "delta", repository / "oasst-sft-6-llama-30b-xor")
    found = inspect(repository)
    assert found.kind == "xor-release"
    assert found.release == "OpenAssistant SFT 6, LLaMA 30B"
    assert "begins with zeros" in found.reason
