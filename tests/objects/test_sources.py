"""Models in an object store, on a real S3 server: the same as on a disk, and nothing of it kept."""

import gc
import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.support.adapters import write_adapter
from tests.support.folders import contents, hidden, load, write_model
from tests.support.s3_server import KEY, S3, SECRET
from weightsmith.cli.main import run
from weightsmith.errors import InputChanged
from weightsmith.objects.bucket import Object, quoted
from weightsmith.sources.locate import Located, locate
from weightsmith.sources.recognise import open_model

NORM = "model.norm.weight"


def tensors(seed: int, *, near: float = 1.0) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    made = {
        f"model.layers.{n}.mlp.up_proj.weight": torch.randn(96, 64, generator=numbers).half() / 50
        for n in range(4)
    }
    return {**made, NORM: torch.full((64,), near).half()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", tensors(1), shards=2)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tuned", tensors(2), shards=2)


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


# --- what it is good for --------------------------------------------------------------------------


def test_apply_delta_from_a_store_gives_the_bytes_that_it_gives_from_a_disk(
    s3: S3, base: Path, target: Path, tmp_path: Path
) -> None:
    assert run(["-q", "make-delta", "--base", str(base), "--target", str(target), "--delta",
                str(tmp_path / "delta")]) == 0  # fmt: skip
    far, delta = s3.upload(base, "base"), s3.upload(tmp_path / "delta", "runs/delta")
    line = ["-q", "apply-delta", "--base", far, "--delta", delta, "--target"]
    assert run([*line, str(tmp_path / "made")]) == 0
    assert contents(tmp_path / "made").keys() - {"weightsmith.json"} == contents(target).keys()
    for name, content in contents(target).items():
        if name.endswith(".safetensors"):
            assert (tmp_path / "made" / name).read_bytes() == content
    document = json.loads((tmp_path / "made" / "weightsmith.json").read_text())
    assert document["origins"] == {"base": far, "delta": delta}


def test_an_additive_delta_and_a_chain_are_read_from_a_store(
    s3: S3, base: Path, tmp_path: Path
) -> None:
    delta = write_model(tmp_path / "delta", tensors(3, near=0.0), suffix="bin", shards=2)
    far, far_delta = s3.upload(base, "base"), s3.upload(delta, "delta")
    assert run(["-q", "convert", f"{base}+{delta}", str(tmp_path / "here")]) == 0
    assert run(["-q", "convert", f"{far}+{far_delta}", str(tmp_path / "there")]) == 0
    here, there = load(tmp_path / "here"), load(tmp_path / "there")
    assert all(torch.equal(here[name], there[name]) for name in here | there)


def test_inspect_diff_and_verify_read_a_store(
    s3: S3, base: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = s3.upload(base, "base")
    assert run(["inspect", far, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["kind"], seen["tensors"], seen["source"]) == ("model", 5, far)
    assert run(["-q", "diff", far, str(base)]) == 0
    assert run(["-q", "diff", str(target), far]) == 1
    assert run(["-q", "verify", far]) == run(["-q", "verify", str(base)])


@pytest.mark.slow
def test_make_delta_and_merge_lora_take_inputs_from_a_store(
    s3: S3, base: Path, target: Path, tmp_path: Path
) -> None:
    far, tuned = s3.upload(base, "base"), s3.upload(target, "tuned")
    delta = tmp_path / "delta"
    line = ["-q", "make-delta", "--base", far, "--target", tuned, "--delta", str(delta)]
    assert run(line) == 0
    again = ["-q", "apply-delta", "--delta", str(delta), "--base", far, "--target"]
    assert run([*again, str(tmp_path / "again")]) == 0
    assert load(tmp_path / "again").keys() == load(target).keys()
    factors = {
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 64),
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.ones(96, 2),
    }
    lora = tmp_path / "lora"
    lora.mkdir()
    write_adapter(lora, factors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["up_proj"]}
    (lora / "adapter_config.json").write_text(json.dumps(config))
    far_lora = s3.upload(lora, "lora")
    line = ["-q", "merge-lora", "--base", far, "--lora", far_lora, "--target"]
    assert run([*line, str(tmp_path / "merged")]) == 0
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(load(tmp_path / "merged")[name], load(base)[name])


def test_weights_are_read_in_ranges_and_never_lie_on_this_disk(s3: S3, base: Path) -> None:
    found = locate(s3.upload(base, "base"))
    assert isinstance(found, Located)
    names = {path.name for path in found.folder.iterdir()}
    assert names == {"config.json", "model.safetensors.index.json"}
    checkpoint = open_model(found)
    assert bytes(checkpoint.read_whole(NORM)) == b"\0\x3c" * 64
    assert {path.name for path in found.folder.iterdir()} == names


def test_what_was_copied_is_gone_with_the_source(s3: S3, base: Path) -> None:
    found = locate(s3.upload(base, "base"))
    assert isinstance(found, Located)
    folder = found.folder
    assert folder.is_dir()
    del found
    gc.collect()
    assert not folder.parent.exists()
    assert not list(Path(tempfile.gettempdir()).glob("weightsmith-*/model"))


def test_what_is_no_part_of_the_model_is_left_in_the_store_by_name(s3: S3, base: Path) -> None:
    far = s3.upload(base, "base")
    s3.put("base/optimizer.pt", bytes(1000))
    s3.put("base/1_Pooling/config.json", b"{}")
    checkpoint = open_model(far)
    assert "1_Pooling/config.json" in checkpoint.sidecars
    assert any("optimizer.pt" in note for note in checkpoint.notes)
    assert not (checkpoint.directory / "optimizer.pt").exists()


def test_an_address_of_a_file_on_this_machine_is_its_path(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["-q", "diff", base.as_uri(), str(base)]) == 0


# --- what may go wrong ----------------------------------------------------------------------------


def test_an_object_that_is_replaced_in_mid_run_is_noticed(s3: S3, base: Path, target: Path) -> None:
    checkpoint = open_model(s3.upload(base, "base"))
    for path in target.glob("*.safetensors"):
        s3.put(f"base/{path.name}", path.read_bytes())
    with pytest.raises(InputChanged, match="s3://models/base/model-0000"):
        checkpoint.read_whole(NORM)


def test_an_object_that_is_deleted_in_mid_run_is_noticed(s3: S3, base: Path) -> None:
    checkpoint = open_model(s3.upload(base, "base"))
    for path in base.glob("*.safetensors"):
        s3.client.delete_object(Bucket="models", Key=f"base/{path.name}")
    with pytest.raises(InputChanged, match="changed while it was read"):
        checkpoint.read_whole(NORM)


def test_another_content_is_another_identity() -> None:
    objects = [
        Object("a", 10, '"one"', 1000),
        Object("a", 10, '"two"', 1000),
        Object("a", 10, '"one"', 1001),
        Object("a", 11, '"one"', 1000),
    ]
    assert len({each.identity for each in objects}) == 4
    assert all(each.identity[1] // 1_000_000_000 in {1000, 1001} for each in objects)


@pytest.mark.parametrize(
    "said, etag",
    [("0x1F25", '"0x1F25"'), ('"ab-2"', '"ab-2"'), ('W/"ab"', 'W/"ab"'), ("", ""), (None, "")],
)
def test_an_etag_is_the_same_with_quotes_and_without(said: str | None, etag: str) -> None:
    assert quoted(said) == etag


FAULTS = {
    "nothing there": ("s3://models/nothing", 3, "source-not-found"),
    "no such bucket": ("s3://no-such-bucket/x", 3, "source-not-found"),
    "a file": ("s3://models/base/config.json", 3, "source-is-file"),
    "a password": ("s3://me:hunter2@models/base", 3, "object-address-invalid"),
    "cut": ("s3://models/cut", 6, "shard-truncated"),
    "a shard is missing": ("s3://models/part", 3, "shard-missing"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("source, code, reference", FAULTS.values(), ids=FAULTS.keys())
def test_a_source_that_is_not_sound_is_told_by_its_address(
    s3: S3,
    base: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: str,
    code: int,
    reference: str,
) -> None:
    s3.upload(base, "base")
    s3.upload(base, "cut")
    s3.put(f"cut/{first_shard(base).name}", first_shard(base).read_bytes()[:-7])
    s3.upload(base, "part")
    s3.client.delete_object(Bucket="models", Key=f"part/{first_shard(base).name}")
    assert run(["convert", source, str(tmp_path / "out"), "--json"]) == code
    said = json.loads(capsys.readouterr().err)
    assert said["reference"] == reference
    assert "hunter2" not in json.dumps(said)
    assert not (tmp_path / "out").exists()
    assert not hidden(tmp_path)


def said_by(source: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(["inspect", source, "--json"])
    found = capsys.readouterr()
    assert SECRET not in found.out + found.err
    assert KEY not in found.out + found.err
    error = json.loads(found.err)
    return code, error["reference"], error["message"]


def test_a_refused_login_is_told_without_it(
    s3: S3, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = s3.upload(base, "base")
    s3.ask_for_login(after=0)
    code, reference, message = said_by(far, capsys)
    assert (code, reference) == (4, "store-denied")
    assert "HTTP status 403" in message


def test_an_endpoint_that_is_away_is_a_fault_of_the_moment(
    s3: S3, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, reference, _ = said_by("s3://models/base", capsys)
    assert (code, reference) == (5, "store-unreachable")


def test_without_the_extra_the_package_is_named(
    s3: S3, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    code, reference, message = said_by("s3://models/base", capsys)
    assert (code, reference) == (2, "package-missing")
    assert "obstore" in message


def test_without_a_network_nothing_is_asked(
    s3: S3, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said_by("s3://models/base", capsys)[:2] == (3, "not-cached")


def test_no_secret_gets_into_plans_and_manifests(
    s3: S3, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = s3.upload(base, "base")
    assert run(["convert", far, str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    assert run(["convert", far, str(tmp_path / "out"), "-v"]) == 0
    said = capsys.readouterr()
    kept = [said.out, said.err, (tmp_path / "out" / "weightsmith.json").read_text()]
    assert not [text for text in kept if SECRET in text or KEY in text]


def test_a_profile_is_found_as_the_stores_own_tools_find_it(
    s3: S3, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = s3.upload(base, "base")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    lines = f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(lines)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert run(["-q", "inspect", far]) == 0
