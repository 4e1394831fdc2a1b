"""Deltas whose spans are coded by class: what they need, and what reads them without."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support.delta_models import edit_record, write_pair
from tests.support.exact_payloads import by_path
from tests.support.folders import contents, copied
from weightsmith.engine.options import Options
from weightsmith.errors import DeltaUnknown
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.ops.convert import plan_convert
from weightsmith.ops.diff import diff
from weightsmith.ops.job import needs
from weightsmith.ops.load_into import load_into
from weightsmith.ops.make_delta import make_delta, plan_make_delta
from weightsmith.ops.verify.verify import verify
from weightsmith.progress import Silence

NAMES = ("base", "target")


@pytest.fixture(scope="module", name="folder")
def pair_and_delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a target, and between them the delta that this machine's compiled part makes."""
    folder = tmp_path_factory.mktemp("coded")
    write_pair(folder)
    made = make_delta(folder / "base", folder / "target", folder / "delta")
    if form_of(folder / "delta")["form"] != "exact-delta@2":
        pytest.skip("no compiled part here")
    assert made.nbytes < made.target_nbytes
    return folder


def form_of(delta: Path) -> dict[str, object]:
    record = json.loads((delta / "weightsmith.json").read_bytes())["delta"]
    return {key: record[key] for key in ("form", "needs") if key in record}


@pytest.mark.parametrize("path", ["plain", "avx2"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_deltas_bytes_depend_on_no_path_and_no_workers(
    folder: Path, tmp_path: Path, path: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path(path, monkeypatch)
    options = Options(workers=workers)
    make_delta(folder / "base", folder / "target", tmp_path / "delta", options=options)
    assert contents(tmp_path / "delta") == contents(folder / "delta")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("path", ["plain", "avx2", "avx512", "none"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_path_restores_it(
    folder: Path, tmp_path: Path, path: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path(path, monkeypatch)
    options = Options(workers=workers)
    apply_delta(folder / "base", folder / "delta", target=tmp_path / "out", options=options)
    assert contents(folder / "target").items() <= contents(tmp_path / "out").items()


def test_a_portable_delta_has_the_first_form(folder: Path, tmp_path: Path) -> None:
    made = make_delta(folder / "base", folder / "target", tmp_path / "delta", portable=True)
    assert form_of(tmp_path / "delta") == {"form": "exact-delta@1"}
    assert form_of(folder / "delta") == {"form": "exact-delta@2", "needs": "0.1.0"}
    assert not made.already_done


def test_without_a_compiled_part_a_delta_is_portable_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delta(folder / "base", folder / "target", tmp_path / "portable", portable=True)
    by_path("none", monkeypatch)
    job = plan_make_delta(folder / "base", folder / "target", tmp_path / "delta")
    assert any("without the compiled part" in note for note in job.plan.notes)
    job.run(Options())
    made, expected = contents(tmp_path / "delta"), contents(tmp_path / "portable")
    assert made.pop("weightsmith.json") != expected.pop("weightsmith.json")  # it has the note
    assert made == expected


def test_how_long_and_how_much_it_takes_without_a_compiled_part_is_told_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan_apply_delta(folder / "base", folder / "delta", target=tmp_path / "out")
    assert not job.bindings.inputs["delta"].notes
    memory_nbytes = needs(job, Options(workers=1)).memory_nbytes
    by_path("none", monkeypatch)
    job = plan_apply_delta(folder / "base", folder / "delta", target=tmp_path / "out")
    assert "decoding takes about 1 minute" in job.bindings.inputs["delta"].notes[0]
    assert needs(job, Options(workers=1)).memory_nbytes == memory_nbytes + 60 * 2**20


class ToldError(Exception):
    """A note that a run gave."""


class Told(Silence):
    """Stops a run at the first thing that it tells."""

    def note(self, text: str) -> None:
        raise ToldError(text)


def test_who_reads_a_chain_without_a_plan_is_told_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = f"{folder / 'base'}+{folder / 'delta'}"
    by_path("none", monkeypatch)
    said = "decoding takes about 1 minute"
    assert said in plan_convert(chain, tmp_path / "out").bindings.inputs["source"].notes[0]
    for read in (verify, partial(diff, folder / "base"), partial(load_into, torch.nn.Module())):
        with pytest.raises(ToldError, match=said):
            read(chain, progress=Told())


def test_a_plan_says_whether_spans_are_coded(folder: Path, tmp_path: Path) -> None:
    """Or a run that goes on elsewhere would mix files that no single run makes."""
    plans = [
        plan_make_delta(
            folder / "base", folder / "target", tmp_path / "delta", portable=portable
        ).plan
        for portable in (False, True)
    ]
    assert plans[0].delta.coded
    assert plans[1].delta == replace(plans[0].delta, coded=False)
    assert plans[0].digest != plans[1].digest


@pytest.mark.parametrize(
    "needs, hint",
    [
        ("0.7.1", "pip install 'weightsmith>=0.7.1'"),
        ("0.7; rm -r /", "pip install --upgrade weightsmith"),
        (7, "pip install --upgrade weightsmith"),
    ],
)
def test_a_refusal_names_the_version_to_install(
    folder: Path, tmp_path: Path, needs: object, hint: str
) -> None:
    delta = copied(folder / "delta", tmp_path / "delta")
    edit_record(delta, lambda d: d.update(form="exact-delta@9", needs=needs))
    with pytest.raises(DeltaUnknown, match="exact-delta@9") as caught:
        apply_delta(folder / "base", delta, target=tmp_path / "out")
    assert hint in caught.value.hint_text
