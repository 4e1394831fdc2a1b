"""``weightsmith run-plan`` as a user meets it: what it says, and what it refuses."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Said, Weightsmith
from tests.support.folders import contents, hidden, staging
from tests.support.paths import ROOT
from tests.support.saved_plans import Shared, reseal
from tests.support.world import flip

PAGE = ROOT / "docs" / "how-to" / "cluster.md"


@pytest.fixture
def shared(vectors: Path, tmp_path: Path) -> Shared:
    return Shared(vectors, tmp_path)


@pytest.fixture
def saved(shared: Shared) -> Shared:
    shared.save()
    return shared


@pytest.fixture
def expected(shared: Shared, tmp_path: Path) -> dict[str, bytes]:
    shared.job(tmp_path / "alone").run()
    return contents(tmp_path / "alone")


def refused(said: Said, code: int, reference: str) -> None:
    assert (said.code, said.out) == (code, "")
    assert f"[{reference}]" in said.err.splitlines()[0]
    assert "Traceback" not in said.err


# --- what it does ---------------------------------------------------------------------------------


def test_a_plan_is_saved_and_nothing_else_is_done(
    shared: Shared, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared.target.parent)
    line = ("apply-delta", "base", "delta", "out", "--max-shard-size", "30kB")
    said = weightsmith(*line, "--save-plan", "plan.json")
    assert said.code == 0
    assert "plan.json: 4 files to make" in said.out
    assert "weightsmith run-plan plan.json --partition 1/4" in said.err
    assert sorted(os.listdir()) == ["base", "delta", "plan.json"]  # noqa: PTH208
    told = json.loads(weightsmith(*line, "--save-plan", "plan.json", "--json").out)
    assert told["paths"] == {
        "base": str(shared.base), "delta": str(shared.delta), "target": str(shared.target)
    }  # fmt: skip


def test_a_plan_replaces_nothing_but_a_saved_plan(
    shared: Shared, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared.target.parent)
    os.mkfifo("pipe")
    before = contents(shared.base)
    line = ("apply-delta", "base", "delta", "out", "--save-plan")
    for name in ("base/config.json", "base/pytorch_model-00001-of-00002.bin", "pipe"):
        said = weightsmith(*line, name)
        assert (said.code, said.out) == (9, "")
        assert f"{name} exists: it is not a saved plan [target-exists]" in said.err
    assert contents(shared.base) == before


def test_shares_and_the_end_say_what_they_did(saved: Shared, weightsmith: Weightsmith) -> None:
    plan = str(saved.plan)
    said = weightsmith("run-plan", plan, "--partition", "1/2")
    assert said.out.startswith("done  share 1/2: 2 files in ")
    assert "2 of 4 files are finished" in said.err
    said = weightsmith("run-plan", plan, "--partition", "1/2")
    assert said.out == "done  share 1/2: 2 files finished before: nothing to do\n"
    told = json.loads(weightsmith("run-plan", plan, "--partition", "2/2", "--json").out)
    assert told["made"] == [f"model-0000{n}-of-00004.safetensors" for n in (3, 4)]
    assert (told["files_finished"], told["files"]) == (4, 4)
    said = weightsmith("run-plan", plan, "--finish")
    assert said.code == 0
    assert str(saved.target) in said.out
    said = weightsmith("run-plan", plan, "--partition", "2/2")
    assert said.out == f"done  share 2/2: {saved.target} is finished: nothing to do\n"


def test_an_empty_share_is_no_fault(saved: Shared, weightsmith: Weightsmith) -> None:
    said = weightsmith("run-plan", str(saved.plan), "--partition", "1/9")
    assert said.code == 0
    assert "no file falls to this share" in said.out


def test_another_machine_may_have_other_paths(
    saved: Shared, expected: dict[str, bytes], weightsmith: Weightsmith, tmp_path: Path
) -> None:
    plan, there = str(saved.plan), tmp_path / "mnt"
    there.mkdir()
    places = []
    for name in ("base", "delta"):
        shutil.copytree(tmp_path / name, there / name)  # times are kept
        places += ["--path", f"{name}={there / name}"]
    places += ["--path", f"target={there / 'out'}"]
    saved.base.rename(tmp_path / "moved")
    assert weightsmith("run-plan", plan, "--partition", "1/1", *places).code == 0
    assert weightsmith("run-plan", plan, "--finish", *places).code == 0
    assert contents(there / "out") == expected
    assert not saved.target.exists()


def test_overwriting_is_remembered(
    shared: Shared, expected: dict[str, bytes], weightsmith: Weightsmith
) -> None:
    shared.target.mkdir()
    (shared.target / "old").touch()
    plan = str(shared.save(overwrite=True))
    assert weightsmith("run-plan", plan, "--partition", "1/1").code == 0
    assert weightsmith("run-plan", plan, "--finish").code == 0
    assert contents(shared.target) == expected


# --- what it refuses ------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, Edit] = {
    "a part more": lambda d: d.update(more=1),
    "a part less": lambda d: d.pop("times"),
    "an unknown verb": lambda d: d["call"].update(verb="rm"),
    "an unknown setting": lambda d: d["call"]["settings"].update(execute="sh"),
    "a setting less": lambda d: d["call"]["settings"].pop("dtype"),
    "a strange value": lambda d: d["call"]["settings"].update(dtype="float8"),
    "a flag that is a number": lambda d: d["call"]["settings"].update(repair=1),
    "a path that is none": lambda d: d["call"].update(target=["/x"]),
    "a source less": lambda d: d["call"]["sources"].pop("delta"),
    "a source more": lambda d: d["call"]["sources"].update(other="/x"),
    "options of other types": lambda d: d["options"].update(workers="4"),
    "an option more": lambda d: d["options"].update(executor_count=4),
    "a tensor without a rule": lambda d: d["plan"]["shards"][0]["tensors"][0].pop("codec"),
    "another header": lambda d: d["plan"]["shards"][0].update(header_digest="0" * 64),
    "another schema": lambda d: d["plan"].update(schema="weightsmith/plan@9"),
    "a plan that is a list": lambda d: d.update(plan=[]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_plan_edited_by_hand_is_damaged(
    edit: Edit, saved: Shared, weightsmith: Weightsmith
) -> None:
    document = json.loads(saved.plan.read_bytes())
    edit(document)
    saved.plan.write_text(json.dumps(document))
    refused(weightsmith("run-plan", str(saved.plan), "--partition", "1/4"), 6, "plan-damaged")
    reseal(saved.plan, lambda _: None)  # by somebody who knows how: it is read as strictly
    refused(weightsmith("run-plan", str(saved.plan), "--partition", "1/4"), 6, "plan-damaged")
    assert not hidden(saved.target.parent)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b"\xff", b'{"schema": NaN}', b'{"a": 1, "a": 1}', b"[" * 100_000]
)
def test_what_is_no_plan_is_damaged(raw: bytes, saved: Shared, weightsmith: Weightsmith) -> None:
    saved.plan.write_bytes(raw)
    refused(weightsmith("run-plan", str(saved.plan), "--finish"), 6, "plan-damaged")


def test_a_plan_cut_short_is_damaged(saved: Shared, weightsmith: Weightsmith) -> None:
    os.truncate(saved.plan, saved.plan.stat().st_size // 2)
    refused(weightsmith("run-plan", str(saved.plan), "--finish"), 6, "plan-damaged")


def add_a_file(document: dict[str, Any]) -> None:
    document["plan"]["inputs"][0]["files"][0][1] += 1


def other_rule(document: dict[str, Any]) -> None:
    tensor = document["plan"]["shards"][0]["tensors"][0]
    tensor["params"]["compute"] = "F32"


def other_dtype(document: dict[str, Any]) -> None:
    document["call"]["settings"]["dtype"] = "float32"


@pytest.mark.parametrize("edit", [add_a_file, other_rule, other_dtype])
def test_an_edit_that_is_sealed_anew_is_not_believed(
    edit: Edit, saved: Shared, weightsmith: Weightsmith
) -> None:
    reseal(saved.plan, edit)
    refused(weightsmith("run-plan", str(saved.plan), "--partition", "1/4"), 7, "inputs-not-planned")
    assert not hidden(saved.target.parent)


def test_a_plan_of_another_version_is_refused(saved: Shared, weightsmith: Weightsmith) -> None:
    reseal(saved.plan, lambda d: d.update(made_by="weightsmith 9.0"))
    said = weightsmith("run-plan", str(saved.plan), "--partition", "1/4")
    refused(said, 7, "versions-differ")
    assert "weightsmith 9.0" in said.err


def test_an_input_that_changed_since_is_refused(saved: Shared, weightsmith: Weightsmith) -> None:
    plan = str(saved.plan)
    assert weightsmith("run-plan", plan, "--partition", "1/2").code == 0
    file = saved.base / "pytorch_model-00001-of-00002.bin"
    flip(file)
    os.utime(file)
    for args in (("--partition", "2/2"), ("--finish",)):
        said = weightsmith("run-plan", plan, *args)
        refused(said, 7, "inputs-not-planned")
        assert file.name in said.err
    assert len(list((staging(saved.target) / "receipts").iterdir())) == 2  # staging is kept


def test_a_path_that_is_not_here_is_named(
    saved: Shared, weightsmith: Weightsmith, tmp_path: Path
) -> None:
    saved.delta.rename(tmp_path / "moved")
    said = weightsmith("run-plan", str(saved.plan), "--partition", "1/4")
    refused(said, 3, "path-not-here")
    assert "--path delta=PATH" in said.err


@pytest.mark.parametrize("partition", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/4", "01/4"])
def test_a_share_that_cannot_be_is_refused(
    partition: str, saved: Shared, weightsmith: Weightsmith
) -> None:
    said = weightsmith("run-plan", str(saved.plan), f"--partition={partition}")
    refused(said, 2, "partition-invalid")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--finish", "--partition", "1/2"],
        ["--finish", "--path", "base"],
        ["--finish", "--path", "other=/x"],
    ],
)
def test_what_makes_no_sense_is_refused(
    args: list[str], saved: Shared, weightsmith: Weightsmith
) -> None:
    assert weightsmith("run-plan", str(saved.plan), *args).code == 2


@pytest.mark.parametrize("more", [["--restart"], ["--smoke"]])
def test_what_no_share_does_is_not_saved(
    more: list[str], shared: Shared, weightsmith: Weightsmith
) -> None:
    line = ("apply-delta", str(shared.base), str(shared.delta), str(shared.target))
    said = weightsmith(*line, "--save-plan", str(shared.plan), *more)
    assert said.code == 2
    assert not shared.plan.exists()


def test_a_target_in_the_way_is_told_when_the_plan_is_saved(
    shared: Shared, weightsmith: Weightsmith
) -> None:
    shared.target.mkdir()
    (shared.target / "theirs").touch()
    line = ("apply-delta", str(shared.base), str(shared.delta), str(shared.target))
    assert weightsmith(*line, "--save-plan", str(shared.plan)).code == 9
    assert not shared.plan.exists()


def test_without_ray_its_package_is_named_and_nothing_is_made(
    shared: Shared, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = ("apply-delta", str(shared.base), str(shared.delta), str(shared.target))
    said = weightsmith(*line, "--executor", "ray")
    assert (said.code, said.out) == (2, "")
    assert "[package-missing]" in said.err
    assert "pip install 'weightsmith[ray]'" in said.err
    assert not shared.target.exists()


# --- the page's scripts ---------------------------------------------------------------------------


def block(language: str, mark: str) -> str:
    """The page's block of code that holds `mark`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [each for each in blocks if mark in each]
    return str(found)


@pytest.fixture
def cluster(saved: Shared, tmp_path: Path) -> dict[str, str]:
    """An environment in which `weightsmith` is this one and `srun` starts processes."""
    commands = tmp_path / "bin"
    commands.mkdir()
    scripts = {
        "weightsmith": f'exec {sys.executable} -m weightsmith "$@"',
        "srun": 'echo "$SLURM_ARRAY_TASK_ID" >> "$HOME/started"; exec "$@"',
    }
    for name, script in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(stat.S_IRWXU)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_slurm_script_makes_every_share(
    saved: Shared, expected: dict[str, bytes], cluster: dict[str, str], tmp_path: Path
) -> None:
    script = block("sh", "#SBATCH").replace("/shared/models", str(tmp_path))
    count = int(re.findall(r"--array=1-(\d+)", script)[0])
    tasks = []
    for number in range(1, count + 1):
        slurm = {
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_COUNT": str(count),
            "SLURM_CPUS_PER_TASK": "1",
        }
        tasks.append(subprocess.Popen(["bash", "-c", script], env={**cluster, **slurm}))
    assert [task.wait() for task in tasks] == [0] * count
    started = (tmp_path / "started").read_text().split()
    assert sorted(started) == [str(number) for number in range(1, count + 1)]
    ending = re.findall(r'--wrap "(.*?)"', block("sh", "sbatch --parsable"))[0]
    line = ending.replace("/shared/models", str(tmp_path))
    subprocess.run(["bash", "-c", line], env=cluster, check=True)
    assert contents(saved.target) == expected


@pytest.mark.slow
def test_the_kubernetes_job_makes_every_share(
    saved: Shared, expected: dict[str, bytes], cluster: dict[str, str]
) -> None:
    import yaml  # type: ignore[import-untyped]  # it ships no types

    job = yaml.safe_load(block("yaml", "kind: Job"))["spec"]
    assert job["completionMode"] == "Indexed"
    (container,) = job["template"]["spec"]["containers"]
    (script,) = container["args"]
    script = script.replace("/models/plan.json", str(saved.plan))
    for index in range(job["completions"]):
        line = [*container["command"], script]
        subprocess.run(line, env={**cluster, "JOB_COMPLETION_INDEX": str(index)}, check=True)
    subprocess.run(["weightsmith", "run-plan", saved.plan, "--finish"], env=cluster, check=True)
    assert contents(saved.target) == expected


@pytest.mark.slow
def test_the_line_for_torchrun_makes_every_share(
    saved: Shared, expected: dict[str, bytes], cluster: dict[str, str]
) -> None:
    line = block("sh", "torchrun").strip().replace("/shared/models/plan.json", str(saved.plan))
    line = re.sub(r"--nnodes.*?29400", "--standalone --nproc-per-node 2", line)
    line = line.replace("torchrun ", f"{sys.executable} -m torch.distributed.run ", 1)
    subprocess.run(["bash", "-c", line], env=cluster, check=True)
    subprocess.run(["weightsmith", "run-plan", saved.plan, "--finish"], env=cluster, check=True)
    assert contents(saved.target) == expected
