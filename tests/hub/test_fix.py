"""Damaged files of what came from the hub are fetched or made again from there, and only they."""

from pathlib import Path

import pytest

from tests.support.delta_models import write_pair
from tests.support.folders import contents, hidden
from tests.support.hub.client import Client
from tests.support.hub.people import Person
from tests.support.hub.server import Hub
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta

BASE, TARGET, DELTA = "org/base", "org/target", "me/tuned-delta"
FIRST, SECOND, THIRD = (f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``target`` and the ``delta`` between them."""
    folder = tmp_path_factory.mktemp("pair")
    base, target = write_pair(folder, shards=3)
    make_delta(base, target, folder / "delta")
    return folder


@pytest.fixture
def person(hub: Hub, client: Client, pair: Path) -> Person:
    for repo, name in ((BASE, "base"), (TARGET, "target"), (DELTA, "delta")):
        hub.add(repo, pair / name)
    return Person(hub, client)


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def weights_asked_for(person: Person) -> set[str]:
    return {
        each.path.rpartition("/")[2]
        for each in person.hub.requests
        if each.path.startswith("/cdn/") and each.path.endswith(".safetensors")
    }


def test_the_manifest_says_from_what_on_the_hub_it_was_made(person: Person, pair: Path) -> None:
    code, _, err = person.run("apply-delta", "--base", BASE, "--delta", DELTA, "--target", "out")
    assert code == 0, err
    out = person.place / "out"
    whole = contents(out)
    flip(out / SECOND)
    flip(out / THIRD, 20)
    (out / "config.json").unlink()
    code, said, err = person.run("verify", "out", "--fix", "--dry-run")
    assert code == 0, err
    assert said.count("can be fixed") == 4
    code, said, err = person.run("verify", "out", "--fix")
    assert err.count("  fixed  ") == 3, err
    assert contents(out) == whole
    assert not hidden(out)


def test_a_delta_of_what_is_on_the_hub_is_made_again_from_there(person: Person, pair: Path) -> None:
    code, _, err = person.run("make-delta", "--base", BASE, "--target", TARGET, "-o", "delta")
    assert code == 0, err
    delta = person.place / "delta"
    whole = contents(delta)
    flip(delta / "delta-00002-of-00003.safetensors")
    (delta / "config.json").unlink()
    code, _, err = person.run("verify", "delta", "--fix")
    assert err.count("  fixed  ") == 2, err
    assert contents(delta) == whole


def test_a_delta_that_was_downloaded_comes_back_from_the_hub(person: Person, pair: Path) -> None:
    code, _, err = person.run("download", DELTA, "-o", "delta")
    assert code == 0, err
    delta = person.place / "delta"
    whole = contents(delta)
    flip(delta / "delta-00002-of-00003.safetensors")
    (delta / "delta-00003-of-00003.safetensors").unlink()
    (delta / "config.json").unlink()
    person.hub.requests.clear()
    code, _, err = person.run("verify", "delta", "--fix", "--from", DELTA)
    assert err.count("  fixed  ") == 3, err
    assert contents(delta) == whole


def test_only_the_damaged_files_of_a_copy_are_fetched(person: Person, pair: Path) -> None:
    code, _, err = person.run("download", TARGET, "-o", "copy")
    assert code == 0, err
    copy = person.place / "copy"
    whole = contents(copy)
    flip(copy / SECOND)
    (copy / THIRD).unlink()
    (copy / "config.json").write_bytes(b'{"changed": "on purpose"}')
    person.hub.requests.clear()
    code, _, err = person.run("verify", "copy", "--fix", "--from", TARGET, "--dry-run")
    assert (code, weights_asked_for(person)) == (0, set()), err
    person.run("verify", "copy", "--fix", "--from", TARGET)
    assert weights_asked_for(person) == {SECOND, THIRD}
    for name in (FIRST, SECOND, THIRD):
        assert (copy / name).read_bytes() == whole[name]
    assert (copy / "config.json").read_bytes() == b'{"changed": "on purpose"}'
    assert not list(person.cache.rglob("*.safetensors"))


def test_a_lost_index_and_manifest_of_a_copy_are_fetched(person: Person, pair: Path) -> None:
    code, _, err = person.run("download", DELTA, "-o", "delta")
    assert code == 0, err
    delta = person.place / "delta"
    whole = contents(delta)
    (delta / "weightsmith.json").unlink()
    (delta / "delta.safetensors.index.json").write_bytes(b"{}")
    flip(delta / "delta-00002-of-00003.safetensors")
    _, _, err = person.run("verify", "delta", "--fix", "--from", DELTA)
    assert err.count("  fixed  ") == 3, err
    assert contents(delta) == whole


def test_a_changed_manifest_comes_back_from_what_it_names_on_the_hub(
    person: Person, pair: Path
) -> None:
    code, _, err = person.run("apply-delta", "--base", BASE, "--delta", DELTA, "--target", "out")
    assert code == 0, err
    out = person.place / "out"
    whole = contents(out)
    manifest = out / "weightsmith.json"
    changed = manifest.read_bytes().replace(b'"verb": "apply-delta"', b'"verb": "apply-delt!"')
    manifest.write_bytes(changed)
    code, _, err = person.run("verify", "out", "--fix")
    assert "  left  " in err, err
    changed = whole["weightsmith.json"].replace(b'"fingerprint": "', b'"fingerprint": "0')
    manifest.write_bytes(changed)
    code, _, err = person.run("verify", "out", "--fix")
    assert err.count("  fixed  ") == 1, err
    assert contents(out) == whole


def test_a_torch_file_comes_back_from_a_copy_on_the_hub(person: Person, vectors: Path) -> None:
    release = vectors / "oasst_xor"
    out = apply_delta(release / "base", release / "delta", target=person.place / "out").target
    whole = contents(out)
    person.hub.add("org/copy", out)
    flip(out / "pytorch_model-00001-of-00002.bin", 100)
    (out / "pytorch_model-00002-of-00002.bin").unlink()
    flip(out / "tokenizer.model")
    _, _, err = person.run("verify", "out", "--fix", "--from", "org/copy")
    assert err.count("  fixed  ") == 3, err
    assert contents(out) == whole


def test_a_fine_tune_is_no_damaged_copy_of_its_base(person: Person, pair: Path) -> None:
    code, _, err = person.run("download", TARGET, "-o", "copy")
    assert code == 0, err
    before = contents(person.place / "copy")
    code, _, err = person.run("verify", "copy", "--fix", "--from", BASE)
    assert code == 1
    assert " ".join(err.split()).count("nothing here shows that it was that of org/base") == 3, err
    assert contents(person.place / "copy") == before


def test_a_file_that_no_longer_has_its_hash_on_the_way_replaces_nothing(person: Person) -> None:
    code, _, err = person.run("download", TARGET, "-o", "copy")
    assert code == 0, err
    flip(person.place / "copy" / SECOND)
    before = contents(person.place / "copy")
    person.hub.fail(f"GET */{SECOND}", flip=2000)
    code, _, err = person.run("verify", "copy", "--fix", "--from", TARGET)
    assert code == 1, err
    assert contents(person.place / "copy") == before
