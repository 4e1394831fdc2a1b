"""Cached files are hashed again by the names that their etags gave them, and nobody notices."""

import json
import os
import random
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.support.hub.cache_maker import Maker
from tests.support.hub.client import Client
from tests.support.hub.server import Hub
from weightsmith.cli.main import run
from weightsmith.engine.options import Options
from weightsmith.ops.verify.cache import Subset, verify_cache

CONFIG = b'{"model_type": "llama"}'


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "hub")


def damage(path: Path) -> None:
    """Change one bit, as a disk does: size and times stay."""
    times = path.stat()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def details(root: Path, name: str = "files", **options: object) -> tuple[str, tuple[str, ...]]:
    report = verify_cache(cache=root, options=Options(workers=2), **options)  # type: ignore[arg-type]
    check = next(check for check in report.checks if check.name == name)
    return check.verdict, check.details


def test_sound_cache_passes_by_both_kinds_of_hash(maker: Maker) -> None:
    files = {"config.json": CONFIG, "model.safetensors": maker.raw(3_000_000), "empty.txt": b""}
    maker.revision("org/one", files, ref="main")
    verdict, (said,) = details(maker.root)
    assert verdict == "pass"
    assert said == "3 sound files, 3.00 MB, 2 by git's id and 1 by sha256"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_file_is_named_with_its_repository_and_place(maker: Maker, name: str) -> None:
    commit = maker.revision("org/one", {"config.json": CONFIG, "model.safetensors": maker.raw(99)})
    maker.revision("org/two", {"config.json": b"{}"}, ref="main")
    link = maker.root / "models--org--one" / "snapshots" / commit / name
    damage(link.resolve())
    verdict, (said,) = details(maker.root)
    assert verdict == "FAIL"
    assert said == f"org/one@{commit}: {name} is damaged ({link.resolve()})"


def test_damaged_shared_file_is_found_by_the_etag_that_leads_to_it(maker: Maker) -> None:
    raw = maker.raw(100_000)
    for repo in ("org/one", "org/two"):
        maker.revision(repo, {"model.safetensors": raw}, ref="main")
        stored = maker.share(repo, "model.safetensors", raw)
    assert details(maker.root)[0] == "pass"
    assert details(maker.root)[1][0].startswith("1 sound file,")  # the same bytes, once
    damage(stored)
    verdict, said = details(maker.root)
    assert verdict == "FAIL"
    assert [line.partition(":")[0] for line in said] == ["org/one@main", "org/two@main"]
    assert all(str(stored) in line for line in said)


@pytest.mark.parametrize("hidden", [True, False])
def test_access_times_stay_what_they_were(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """With O_NOATIME, and where the system has it not or refuses it."""
    if not hidden:
        monkeypatch.delattr(os, "O_NOATIME", raising=False)
    files = {"config.json": CONFIG, "model.safetensors": maker.raw(100_000)}
    maker.revision("org/one", files, used=30, modified=20)  # read before it was written last
    blobs = sorted((maker.root / "models--org--one" / "blobs").iterdir())
    before = [(path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in blobs]
    assert details(maker.root)[0] == "pass"
    assert [(path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in blobs] == before
    blobs[0].read_bytes()  # which does count, where the file system notes it at all
    if os.statvfs(maker.root).f_flag & getattr(os, "ST_NOATIME", 0):
        pytest.skip("this file system notes no access")
    assert blobs[0].stat().st_atime_ns > before[0][0]


def test_shares_take_turns_and_miss_nothing(maker: Maker) -> None:
    rng = random.Random(1)
    names = {f"{number}.json": rng.randbytes(50) for number in range(60)}
    maker.revision("org/one", names, ref="main")
    counts = [
        int(details(maker.root, subset=Subset(number, 7))[1][0].split()[0])
        for number in range(1, 8)
    ]
    assert sum(counts) == 60
    assert max(counts) < 25
    _, (said,) = details(maker.root, subset=Subset(1, 7))
    assert "(share 1 of 7; 60 in all)" in said


def test_command_line_of_the_cache(
    maker: Maker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(*args: object) -> int:
        capsys.readouterr()
        return run(["verify", *map(str, args)])

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(maker.root))
    assert verify("--cache") == 0  # there is none yet
    commit = maker.revision("org/one", {"model.safetensors": maker.raw(5000)}, ref="main")
    assert verify("--cache", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    damage((maker.root / "models--org--one/snapshots" / commit / "model.safetensors").resolve())
    assert verify("--cache") == 1
    said = capsys.readouterr()
    assert "files  FAIL  org/one@main: model.safetensors is damaged" in said.out
    assert "damaged: org/one@main: model.safetensors" in said.err
    assert "hint: weightsmith download org/one@main" in said.err
    codes = [verify("--cache", "--subset", f"{n}/3") for n in (1, 2, 3)]
    assert sorted(codes) == [0, 0, 1]
    for wrong in (
        ("--subset", "0/3"),
        ("--subset", "4/3"),
        ("--subset", "half"),
        (maker.root,),
        ("--smoke",),
        ("--base", maker.root),
    ):
        assert verify("--cache", *wrong) == 2
    assert verify() == 2
    assert verify(maker.root, "--subset", "1/2") == 2


def test_file_that_is_no_link_has_no_hash_to_hold_it_against(maker: Maker) -> None:
    commit = maker.revision("org/one", {"config.json": CONFIG, "a.json": b"[]"}, ref="main")
    link = maker.root / "models--org--one" / "snapshots" / commit / "config.json"
    link.unlink()
    link.write_bytes(CONFIG)  # as where the system makes no links
    assert details(maker.root, "unnamed") == ("not checked", ("org/one@main: config.json",))
    assert details(maker.root)[1][0].startswith("1 sound file,")


def test_what_the_hub_library_fetched_is_sound_and_download_mends_what_is_not(
    hub: Hub, client: Client
) -> None:
    hub.add("org/one", {"config.json": CONFIG, "model.safetensors": bytes(range(256)) * 100})
    client.download("org/one")
    assert details(client.cache)[0] == "pass"
    folder = client.cache / "models--org--one" / "snapshots"
    (model,) = folder.glob("*/model.safetensors")
    damage(model.resolve())
    assert details(client.cache)[0] == "FAIL"
    hub.forget_requests()
    client.download("org/one@main")
    assert details(client.cache)[0] == "pass"
