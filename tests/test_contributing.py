"""The examples of docs/CONTRIBUTING.md work as they stand there."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT
from weightsmith.catalogue.consistency import inconsistencies
from weightsmith.catalogue.load import load_bases, load_prompts, load_releases
from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.catalogue.schema import Release, parse_entries
from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.formats.tensors import TensorInfo
from weightsmith.repair import detect
from weightsmith.repair.contents import CONFIG
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder, read_folder

PAGE = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(text: str, **names: object) -> dict[str, Any]:
    """The names that a block of Python defines, given these."""
    names["__name__"] = "weightsmith.example"
    exec(compile(text, "CONTRIBUTING.md", "exec"), names)
    return names


@pytest.fixture
def known() -> KnownRepair:
    faults: list[str] = []
    (entry,) = parse_entries(KnownRepair, "repair", blocks("toml")[1], "example.toml", faults)
    assert not faults
    return entry


def found(folder: Mapping[str, bytes], detector: Any, known: KnownRepair) -> list[Fault]:
    return [*detector(read_folder(folder), known)]


def test_the_release_fits_into_the_catalogue() -> None:
    faults: list[str] = []
    releases = parse_entries(Release, "release", blocks("toml")[0], "sheep.toml", faults)
    assert not faults
    assert not inconsistencies(load_bases(), [*load_releases(), *releases], load_prompts())
    (row,) = run(f"row = {blocks('text')[0]}")["row"]
    (release,) = releases
    told = (release.base, release.dtype, release.new_rows, release.whole, release.tokenizer)
    assert (release.hub[0].id, *told) == row


def test_the_misspelling_is_found_and_mended(known: KnownRepair) -> None:
    (fault,) = found(
        {"config.json": b'{"model_type": "LLaMA"}'}, detect.DETECTORS["misspelt"], known
    )
    assert fault.edits == (Edit(CONFIG, {"model_type": "llama"}),)
    assert not found(
        {"config.json": b'{"model_type": "llama"}'}, detect.DETECTORS["misspelt"], known
    )


def test_the_detector_finds_its_fault_and_nothing_else(known: KnownRepair) -> None:
    given = {"Folder": Folder, "KnownRepair": KnownRepair, "Fault": Fault, "Edit": Edit}
    cache_off = run(blocks("python")[0], **given, Iterator=Iterator, CONFIG=CONFIG)["cache_off"]
    (fault,) = found({"config.json": b'{"use_cache": false}'}, cache_off, known)
    assert fault.edits == (Edit(CONFIG, {"use_cache": True}),)
    assert not found({"config.json": b"{}"}, cache_off, known)


def test_the_codec_scales() -> None:
    scale: Codec = run(blocks("python")[1])["Scale"](factor="0.5")
    weights = np.arange(8, dtype="<f4")
    info = TensorInfo("w", "F32", (8,))
    work, out = Work((info,), scale.signature([info])), bytearray(16)
    (read,) = scale.reads(work, Range(8, 24))
    scale.apply(
        work, Range(8, 24), [memoryview(weights.tobytes())[read.start : read.stop]], memoryview(out)
    )
    assert np.frombuffer(out, "<f4").tolist() == [1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize("path", sorted({*re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE)}))
def test_every_file_that_is_named_is_there(path: str) -> None:
    made = {"codecs/scale.py"}
    roots = [ROOT, ROOT / "weightsmith", ROOT / "tests"]
    assert path in made or any((root / path).is_file() for root in roots)
