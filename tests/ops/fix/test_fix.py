"""Damaged files are rebuilt from what the output was made from, and nothing else is touched."""

import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.damage import HARMS
from tests.support.delta_models import SIDECARS, trained, weights, write_pair
from tests.support.folders import contents, copied, hidden, load, state, write_model
from tests.support.world import killed_at_each_step
from weightsmith.errors import FixSourceMissing, InputChanged, JsonInvalid
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.fix.carry_out import Workbench
from weightsmith.ops.fix.fix import fix_files
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.verify import verify

INDEX = "model.safetensors.index.json"
FIRST, SECOND = (f"model-{number:05d}-of-00002.safetensors" for number in (1, 2))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a target, the exact delta between them, and what applying it gives, in two files."""
    folder = tmp_path_factory.mktemp("world")
    base, target = write_pair(folder)
    make_delta(base, target, folder / "delta")
    apply_delta(base, folder / "delta", target=folder / "out")
    return folder


@pytest.fixture
def out(world: Path, tmp_path: Path) -> Path:
    """A copy of the output, which a test damages."""
    return copied(world / "out", tmp_path / "out")


def chain(world: Path) -> str:
    return f"{world / 'base'}+{world / 'delta'}"


def damage(path: Path, how: str = "flip") -> None:
    """Harm the end of a file, where a weight file has its tensors."""
    if how == "missing":
        path.unlink()
        return
    content, half = path.read_bytes(), path.stat().st_size // 2
    chance = random.Random(1)
    path.write_bytes(content[:half] + HARMS[how](bytearray(content[half:]), chance))


def damage_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", *HARMS])
@pytest.mark.parametrize("name", [FIRST, INDEX, "README.md"])
@pytest.mark.sampled(4)
def test_any_file_comes_back_byte_for_byte(world: Path, out: Path, name: str, how: str) -> None:
    damage(out / name, how)
    before = [each for each in state(out)[1:] if not each[0].endswith(name)]
    found = fix_files(out, source=chain(world))
    assert [(each.file, each.outcome) for each in found.files] == [(name, "fixed")]
    assert contents(out) == contents(world / "out")
    assert [each for each in state(out)[1:] if not each[0].endswith(name)] == before


def test_all_files_at_once_come_back(world: Path, out: Path) -> None:
    for path in sorted(out.iterdir()):
        if path.name != "weightsmith.json":
            damage(path, "cut")
    found = fix_files(out, source=chain(world))
    assert found.complete
    assert len(found.files) == len(contents(out)) - 1
    assert contents(out) == contents(world / "out")


def test_sound_tensors_are_taken_from_the_damaged_file(
    world: Path, out: Path, tmp_path: Path
) -> None:
    damage(out / FIRST)
    (wrong,) = verify(out).checks[-1].details
    name = wrong.split()[1]
    only = write_model(tmp_path / "only", {name: load(world / "out")[name]})
    (fix,) = fix_files(out, source=only).files
    assert (fix.outcome, fix.how.partition(" from ")[0]) == ("fixed", "1 of 6 tensors")
    assert contents(out) == contents(world / "out")


def test_an_index_needs_no_source(world: Path, out: Path) -> None:
    plain = world / "plain"
    if not plain.exists():
        convert(world / "target", plain, max_shard_nbytes=1_000_000)
    copy = copied(plain, out.parent / "plain")
    damage(copy / INDEX, "missing")
    (fix,) = fix_files(copy).files
    assert (fix.outcome, fix.how) == ("fixed", "made of the weight files' headers")
    assert contents(copy) == contents(plain)


@pytest.mark.parametrize("dtype", ["keep", "float16"])
def test_what_was_converted_is_converted_again(tmp_path: Path, dtype: str) -> None:
    tensors = {f"model.layers.{n}.up.weight": weights(30, 20, seed=n) for n in range(4)}
    source = write_model(tmp_path / "source", tensors, suffix="bin", shards=2)
    outcome = convert(source, tmp_path / "out", dtype=dtype, max_shard_nbytes=2500)  # type: ignore[arg-type]
    whole = contents(outcome.target)
    for name in (FIRST, INDEX, "config.json"):
        (outcome.target / name).unlink()
    first, *_ = fix_files(outcome.target, source=source).files
    assert first.outcome == "fixed"
    assert contents(outcome.target).items() >= {k: whole[k] for k in (FIRST, INDEX)}.items()


@pytest.mark.parametrize("from_chain", [True, False])
def test_what_was_made_of_a_chain_is_made_again(
    world: Path, tmp_path: Path, from_chain: bool
) -> None:
    target = convert(chain(world), tmp_path / "out", max_shard_nbytes=1_000_000).target
    whole = contents(target)
    damage_header(target / FIRST)
    damage(target / INDEX, "missing")
    source = chain(world) if from_chain else world / "target"
    assert fix_files(target, source=source).complete
    assert contents(target) == whole


def test_an_additive_delta_is_added_again(vectors: Path, tmp_path: Path) -> None:
    vicuna = vectors / "vicuna_v1_1"
    target = apply_delta(vicuna / "base", vicuna / "delta", target=tmp_path / "vicuna-7b").target
    whole = contents(target)
    for name in ("model.safetensors", "config.json", "tokenizer.model"):
        damage(target / name, "cut")
    assert fix_files(target, source=f"{vicuna / 'base'}+{vicuna / 'delta'}").complete
    assert contents(target) == whole


def test_a_delta_comes_back_from_a_copy(world: Path, tmp_path: Path) -> None:
    delta = copied(world / "delta", tmp_path / "delta")
    for path in sorted(delta.iterdir()):
        if path.name != "weightsmith.json":
            damage(path)
    assert fix_files(delta, source=world / "delta").complete
    assert contents(delta) == contents(world / "delta")


def test_what_no_digest_proves_replaces_nothing(world: Path, out: Path, tmp_path: Path) -> None:
    damage(out / FIRST)
    damage_header(out / SECOND)
    damage(out / "README.md")
    before = state(out)[1:]
    other = {
        name: trained(each, seed=3) if each.dtype == torch.bfloat16 else each
        for name, each in load(world / "out").items()
    }
    wrong = write_model(tmp_path / "wrong", other, shards=2)
    (wrong / "README.md").write_bytes(b"another")
    found = fix_files(out, source=wrong)
    assert {each.outcome for each in found.files} == {"left"}
    assert not found.complete
    assert state(out)[1:] == before
    assert not hidden(out)
    assert any("than weightsmith.json states" in each.how for each in found.files)


def test_without_a_source_it_is_said_what_could_be_one(world: Path, out: Path) -> None:
    damage(out / FIRST)
    before = state(out)[1:]
    (fix,) = fix_files(out).files
    assert fix.outcome == "left"
    assert fix.how.endswith("name BASE+DELTA or a copy")
    assert fix.hint == f"weightsmith verify {out} --fix --from BASE+DELTA"
    assert state(out)[1:] == before
    with pytest.raises(FixSourceMissing):
        fix_files(world / "base")


def test_a_dry_run_touches_nothing(world: Path, out: Path) -> None:
    damage(out / FIRST)
    before = state(out, world)
    (fix,) = fix_files(out, source=chain(world), dry_run=True).files
    assert fix.outcome == "can be fixed"
    assert state(out, world) == before


def test_a_sound_folder_is_left_as_it_is(world: Path, out: Path) -> None:
    before = state(out)[1:]
    assert fix_files(out, source="no/such").files == ()
    assert state(out)[1:] == before


def test_mode_and_owner_stay(world: Path, out: Path) -> None:
    damage(out / FIRST)
    (out / FIRST).chmod(0o640)
    assert fix_files(out, source=chain(world)).complete
    assert stat.S_IMODE((out / FIRST).stat().st_mode) == 0o640


def test_a_link_is_not_followed(world: Path, out: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (out / FIRST).rename(elsewhere)
    damage(elsewhere)
    (out / FIRST).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    (fix,) = fix_files(out, source=chain(world)).files
    assert (fix.outcome, "a link to" in fix.how) == ("left", True)
    assert elsewhere.read_bytes() == before
    assert (out / FIRST).is_symlink()


@pytest.mark.parametrize("name", ["../victim.json", "a/../../victim.json", "/victim.json"])
def test_a_manifest_that_leads_out_of_the_folder_is_not_followed(
    world: Path, out: Path, name: str
) -> None:
    path = out / "weightsmith.json"
    manifest = json.loads(path.read_bytes())
    manifest["sidecars"][name] = manifest["sidecars"]["README.md"]
    manifest["files"][name] = manifest["files"][FIRST]
    del manifest["own_digest"]  # or it would be found again as it was
    path.write_text(json.dumps(manifest))
    before = state(out.parent)[1:]
    found = fix_files(out, source=chain(world))
    assert {each.outcome for each in found.files} == {"left"}
    assert [each[:2] for each in state(out.parent)[1:]] == [each[:2] for each in before]


@pytest.mark.parametrize(
    "make, what",
    [(os.mkfifo, "a pipe, a socket or a device"), (Path.mkdir, "a directory")],
)
def test_what_is_no_file_is_left(
    world: Path, out: Path, make: Callable[[Path], None], what: str
) -> None:
    (out / FIRST).unlink()
    make(out / FIRST)
    (fix,) = fix_files(out, source=chain(world)).files
    assert (fix.outcome, fix.how) == ("left", f"{what} has the file's name")
    assert fix.hint == f"move it away, then fix it again: mv {out / FIRST} {out / FIRST}.aside"


def test_a_file_that_somebody_mends_meanwhile_stays_theirs(
    world: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(out / FIRST)
    make = Workbench._make

    def mended_meanwhile(bench: Workbench, *args: Any) -> None:
        make(bench, *args)
        (out / FIRST).write_bytes(b"theirs")

    monkeypatch.setattr(Workbench, "_make", mended_meanwhile)
    with pytest.raises(InputChanged):
        fix_files(out, source=chain(world))
    assert (out / FIRST).read_bytes() == b"theirs"
    assert not hidden(out)


def test_killed_at_any_step_it_leaves_old_or_right_files_and_can_be_run_again(
    world: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(out / FIRST)
    damage(out / "README.md")
    harmed, whole = contents(out), contents(world / "out")
    for step in killed_at_each_step(monkeypatch, lambda: fix_files(out, source=chain(world))):
        there = contents(out)
        assert all(there[name] in {harmed[name], whole[name]} for name in whole)
        assert fix_files(out, source=chain(world)).complete
        assert contents(out) == whole, step
        for name in (FIRST, "README.md"):
            (out / name).write_bytes(harmed[name])
    assert step >= 4
    assert set(SIDECARS) < contents(out).keys()


def test_a_manifest_that_cannot_be_read_ends_it_with_a_way_on(out: Path) -> None:
    manifest = out / "weightsmith.json"
    manifest.write_text(manifest.read_text()[:-20])
    before = state(out)
    with pytest.raises(JsonInvalid, match=r"weightsmith\.json") as caught:
        fix_files(out)
    assert caught.value.hint_text.endswith(f"weightsmith verify {out} --fix --from COPY")
    assert state(out) == before


def test_no_hint_leads_in_a_circle(
    world: Path, out: Path, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    """From `verify` to `--fix`, to a source, and from a wrong one to making it again."""
    damage(out / FIRST)
    assert f"verify {out} --fix --from BASE+DELTA" in weightsmith("verify", out).err
    assert f"verify {out} --fix --from BASE+DELTA" in weightsmith("verify", out, "--fix").err
    wrong = write_model(
        tmp_path / "wrong", {n: trained(t) for n, t in load(world / "base").items()}
    )
    said = weightsmith("verify", out, "--fix", "--from", wrong)
    assert said.code == 1
    assert "weightsmith apply-delta --base BASE --delta DELTA -o NEW" in said.err
    assert "--fix" not in said.err
