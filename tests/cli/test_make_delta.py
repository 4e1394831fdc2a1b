"""``weightsmith make-delta`` as people and programs see it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from tests.support.delta_models import trained, weights, write_pair
from tests.support.folders import contents, copied, write_model


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders ``base`` and ``target`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)


MAKE = ("make-delta", "--base", "base", "--target", "target", "--delta", "delta")


def test_there_and_back(weightsmith: Weightsmith, pair: None) -> None:
    made = weightsmith(*MAKE)
    assert made.code == 0
    assert "done  " in made.out
    assert "of the target, in" in made.out
    assert "read back, decoded and compared" in made.out
    # Nine of twelve changed; that the others did not is only known when they have been read.
    assert "  9 by the exact difference" not in made.err
    assert "12 by the exact difference to their base" in made.err
    applied = weightsmith("apply-delta", "--base", "base", "--delta", "delta", "--target", "out")
    assert applied.code == 0
    assert contents(Path("target")).items() <= contents(Path("out")).items()
    assert "already done: every digest holds" in weightsmith(*MAKE).out


def test_a_wrong_base_is_exit_7_and_a_damaged_delta_exit_6(
    weightsmith: Weightsmith, pair: None
) -> None:
    assert weightsmith(*MAKE, "--base-id", "org/base@12ab").code == 0
    wrong = weightsmith("apply-delta", "--base", "target", "--delta", "delta", "--target", "out")
    assert wrong.code == 7
    assert "hint: it was made from this one: --base org/base@12ab" in wrong.err
    path = Path("delta/config.json")
    path.write_bytes(path.read_bytes() + b" ")
    damaged = weightsmith("apply-delta", "--base", "base", "--delta", "delta", "--target", "out")
    assert damaged.code == 6
    assert "config.json in the delta is damaged" in damaged.err
    assert not Path("out").exists()


@pytest.mark.parametrize("as_variable", [False, True])
def test_a_shard_size_that_is_given_counts_though_it_is_the_usual_one(
    weightsmith: Weightsmith, pair: None, monkeypatch: pytest.MonkeyPatch, as_variable: bool
) -> None:
    assert weightsmith(*MAKE).code == 0
    apply = ("apply-delta", "--base", "base", "--delta", "delta", "--target", "out")
    if as_variable:
        monkeypatch.setenv("WEIGHTSMITH_APPLY_DELTA_MAX_SHARD_SIZE", "5GB")
        assert weightsmith(*apply).code == 0
    else:
        assert weightsmith(*apply, "--max-shard-size", "5GB").code == 0
    assert [path.name for path in Path("out").glob("*.safetensors")] == ["model.safetensors"]


def test_the_dtype_of_what_is_restored_can_be_chosen(weightsmith: Weightsmith, pair: None) -> None:
    assert weightsmith(*MAKE).code == 0
    apply = ("apply-delta", "--base", "base", "--delta", "delta", "--target", "out")
    applied = weightsmith(*apply, "--dtype", "float32")
    assert applied.code == 0
    assert "delta on base" in applied.err
    assert " cast to F32" in applied.err


def test_the_document_holds_what_the_human_sees(weightsmith: Weightsmith, pair: None) -> None:
    made = weightsmith(*MAKE, "--json")
    document = json.loads(made.out)
    assert document["schema"] == "weightsmith.make-delta/1"
    assert document["loss"] is None
    assert document["nbytes"] < document["target_nbytes"]
    assert set(document["files"]) == {
        "delta-00001-of-00002.safetensors",
        "delta-00002-of-00002.safetensors",
    }


def test_an_additive_delta_tells_its_loss(
    weightsmith: Weightsmith, tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = vectors / "vicuna_v1_1"
    shutil.copytree(source / "target", "target")
    Path("target/expected.safetensors").rename("target/model.safetensors")
    sides = ("--base-model-path", str(source / "base"), "--target-model-path", "target")
    made = weightsmith("make-delta", *sides, "--delta-path", "delta", "--codec", "add")
    assert made.code == 0
    assert "what this delta will not restore" in made.err
    assert "of the weights  off by up to\n  all " in made.err
    assert "  3.17 %  " in made.err
    assert "an exact delta restores every bit" in made.err


def test_a_dry_run_writes_nothing(weightsmith: Weightsmith, pair: None) -> None:
    said = weightsmith(*MAKE, "--dry-run")
    assert (said.code, said.err) == (0, "")
    first, *_, last = said.out.splitlines()
    assert (first, last) == ("make-delta", "dry run: nothing was written")
    assert "\n  delta " in said.out  # the plan is a dry run's result
    assert weightsmith(*MAKE, "--dry-run", "-q").out == f"{Path('delta').absolute()}\n"
    assert not Path("delta").exists()


def test_many_fine_tunes_of_one_base_are_made_in_one_line(
    tmp_path: Path, weightsmith: Weightsmith
) -> None:
    base, target = write_pair(tmp_path)
    copied(target, tmp_path / "other")
    line = ["make-delta", "--base", str(base), "--target", str(target)]
    line += ["--target", str(tmp_path / "other"), "--delta", str(tmp_path / "deltas")]
    said = weightsmith(*line)
    assert said.code == 0, said.err
    assert "2 fine-tunes: " in said.out
    assert contents(tmp_path / "deltas" / "target").keys()
    again = json.loads(weightsmith(*line, "--json").out)
    assert [each["already_done"] for each in again["deltas"]] == [True, True]
    restored = str(tmp_path / "restored")
    assert weightsmith("apply-delta", str(base), str(tmp_path / "deltas/other"), restored).code == 0


def test_thirty_fine_tunes_as_a_person_sees_them(
    tmp_path: Path, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, made again, looked at, one restored, on a terminal of 80 columns; here they are six."""
    monkeypatch.chdir(tmp_path)
    tensors = {"w.weight": weights(300, 64), "model.norm.weight": weights(64, seed=1).abs() + 1}
    write_model(Path("base"), tensors)
    names = [f"fine-tunes/customer-support-{number:02}" for number in range(6)]
    for number, name in enumerate(names):
        tuned = {key: trained(each, seed=number) for key, each in tensors.items()}
        write_model(Path(name), tuned)
    targets = [part for name in names for part in ("--target", name)]
    line = ["make-delta", "--base", "base", *targets, "--delta", "deltas"]

    made = weightsmith(*line, terminal=True)
    assert made.code == 0, made.err
    heading, *rows, _, total = lines_of(made.out)
    assert heading.split() == ["delta", "target", "size", "share", "in"]
    assert [row.split()[0] for row in rows] == [f"deltas/{Path(name).name}" for name in names]
    assert total.startswith("done  6 fine-tunes: 2")
    assert [line for line in lines_of(made.err) if "of 6: " in line] == [
        f"{number} of 6: {name}" for number, name in enumerate(names, 1)
    ]
    again = weightsmith(*line, terminal=True)
    assert again.out.count("was there") == len(names)

    seen = weightsmith("inspect", "deltas", terminal=True)
    heading, *rows = lines_of(seen.out)
    assert heading.split()[:4] == ["source", "is", "size", "dtypes"]
    assert [row.split()[:2] for row in rows] == [
        [f"deltas/{Path(name).name}", "delta"] for name in names
    ]
    restored = weightsmith(
        *("apply-delta", "--base", "base", "--delta", f"deltas/{Path(names[3]).name}"),
        *("--target", "back"),
        terminal=True,
    )
    assert restored.code == 0, restored.err
    assert contents(Path(names[3])).items() <= contents(Path("back")).items()
    for said in (made, again, seen, restored):
        shown = [line for line in lines_of(said.out) if str(tmp_path) not in line]
        assert all(len(line) <= 80 for line in shown), said.out


def lines_of(screen: str) -> list[str]:
    """What stands there in the end, without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    return [line.rpartition("\r")[2] for line in plain.splitlines()]


def test_two_targets_of_one_name_are_refused(tmp_path: Path, weightsmith: Weightsmith) -> None:
    base, target = write_pair(tmp_path)
    twin = copied(target, tmp_path / "elsewhere" / target.name)
    line = ["make-delta", "--base", str(base), "--target", str(target), "--target", str(twin)]
    said = weightsmith(*line, "--delta", str(tmp_path / "deltas"))
    assert said.code == 2
    assert f"have one name, {target.name}" in said.err
    assert not (tmp_path / "deltas").exists()
