"""``--check-source``: the published hashes, held against the source's files; ignorance is said."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from tests.support.meta_layout import random_llama, write_meta
from weightsmith.catalogue.load import load_bases
from weightsmith.catalogue.schema import Checksums
from weightsmith.engine.options import Options
from weightsmith.errors import FilesNotAsPublished
from weightsmith.ops import known_files
from weightsmith.ops.convert import check_source, plan_convert

WEIGHTS = ["consolidated.00.pth", "consolidated.01.pth"]


@pytest.fixture
def meta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in two files with a tokenizer above, whose hashes the catalogue has."""
    folder = write_meta(tmp_path / "LLaMA" / "13B", random_llama(), heads=8, shards=2)
    (tmp_path / "LLaMA" / "tokenizer.model").write_bytes(b"shared by all")
    files = {name: folder / name for name in [*WEIGHTS, "params.json"]}
    files["tokenizer.model"] = tmp_path / "LLaMA" / "tokenizer.model"
    md5 = {n: hashlib.md5(p.read_bytes()).hexdigest() for n, p in files.items()}  # noqa: S324
    sha = {n: hashlib.sha256(files[n].read_bytes()).hexdigest() for n in WEIGHTS}
    groups = (
        Checksums("meta", "md5", "the release", "stated", md5),
        Checksums("meta", "sha256", "a reader", "stated", sha),
    )
    other = Checksums(
        "meta",
        "md5",
        "elsewhere",
        "stated",
        {**dict.fromkeys(WEIGHTS, "0" * 32)} | {"tokenizer.model": md5["tokenizer.model"]},
    )
    bases = load_bases()
    first = dataclasses.replace(bases[0], name="Tiny 13B", checksums=groups)
    second = dataclasses.replace(bases[1], name="Another", checksums=(other,))
    monkeypatch.setattr(known_files, "load_bases", lambda: (first, second))
    return folder


def findings(meta: Path) -> dict[str, str]:
    """What is said of each file."""
    job = plan_convert(meta, meta.parents[1] / "out")
    checked = check_source(job, Options(workers=2)).checked
    return dict(line.split(": ", 1) for line in checked)


def test_every_file_of_a_known_model_is_called_known(meta: Path) -> None:
    found = findings(meta)
    assert set(found) == {*WEIGHTS, "params.json", "tokenizer.model"}
    assert all(said.startswith("known, Tiny 13B's") for said in found.values())


def test_a_weight_file_that_differs_from_its_neighbours_model_stops_the_run(meta: Path) -> None:
    part = torch.load(meta / WEIGHTS[1], weights_only=True)
    part["layers.0.attention.wv.weight"][0, 0] += 1
    torch.save(part, meta / WEIGHTS[1])
    with pytest.raises(FilesNotAsPublished) as caught:
        findings(meta)
    assert caught.value.context == (f"{WEIGHTS[1]}: differs, not Tiny 13B's by sha256 (a reader)",)


def test_an_edited_tokenizer_is_told_and_stops_nothing(meta: Path) -> None:
    (meta.parent / "tokenizer.model").write_bytes(b"edited")
    found = findings(meta)
    assert found["tokenizer.model"].startswith("differs")
    assert found[WEIGHTS[0]].startswith("known")


def test_a_file_that_several_models_share_proves_nothing(meta: Path) -> None:
    write_meta(meta, random_llama(seed=5), heads=8, shards=2, params={"norm_eps": 1e-6})
    found = findings(meta)
    assert {said.split(",")[0] for said in found.values()} == {"not known"}


def test_a_model_that_nobody_published_hashes_of_is_not_known(tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta", random_llama(), heads=8)
    found = findings(meta)
    assert {said.split(",")[0] for said in found.values()} == {"not known"}
