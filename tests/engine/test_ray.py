"""An output made by a Ray cluster has the bytes of threads, whatever becomes of its nodes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.folders import contents, hidden
from tests.support.ray_cluster import SHARD_NBYTES, run_on
from weightsmith import plan_apply_delta, plan_merge_lora

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray has no wheel for this Python"),
]


def apply_args(vectors: Path, target: Path) -> list[str]:
    vicuna = vectors / "vicuna_v1_1"
    return ["apply-delta", str(vicuna / "base"), str(vicuna / "delta"), str(target)]


def merge_args(vectors: Path, target: Path) -> list[str]:
    vector = vectors / "lora" / "rslora_pattern_fp32"
    return ["merge-lora", str(vector / "base"), str(vector / "adapter"), str(target)]


def alone(args: list[str]) -> dict[str, bytes]:
    """The files that threads make."""
    target = Path(args[-1]).with_name("alone")
    if args[0] == "apply-delta":
        job = plan_apply_delta(args[1], args[2], target=target, max_shard_nbytes=SHARD_NBYTES)
    else:
        job = plan_merge_lora(args[1], args[2], target, max_shard_nbytes=SHARD_NBYTES)
    job.run()
    return contents(target)


@pytest.mark.parametrize("make", [apply_args, merge_args])
def test_a_node_killed_in_the_middle_changes_nothing(
    make: Callable[[Path, Path], list[str]], vectors: Path, tmp_path: Path
) -> None:
    args = make(vectors, tmp_path / "out")
    marker = tmp_path / "blocked"
    done = run_on(tmp_path, [{"NODE_BLOCKS": str(marker)}], *args)
    assert done.returncode == 0, done.stderr
    assert marker.exists()  # it was at work, and had a file that it did not finish
    assert "raylet" not in done.stdout + done.stderr
    assert contents(tmp_path / "out") == alone(args)
    assert not hidden(tmp_path)
    told = re.findall(r"(\S+ \(\w{8}\)) did not finish (\S+); (.+) makes it again", done.stderr)
    assert [name for _, name, _ in told if not (tmp_path / "out" / name).exists()] == []
    assert len({lost for lost, _, _ in told}) == 1
    assert all(lost != other for lost, _, other in told)


def test_ctrl_c_calls_off_all_tasks_and_the_next_run_goes_on(vectors: Path, tmp_path: Path) -> None:
    args = apply_args(vectors, tmp_path / "out")
    blocks = {"NODE_BLOCKS": str(tmp_path / "blocked"), "NODE_INTERRUPTS": "1"}
    done = run_on(tmp_path, [blocks], *args)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert hidden(tmp_path) == [".out.weightsmith-partial"]
    done = run_on(tmp_path, [{}], *args)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == alone(args)
    assert not hidden(tmp_path)


def test_another_ray_than_the_clusters_is_told_in_words(vectors: Path, tmp_path: Path) -> None:
    args = apply_args(vectors, tmp_path / "out")
    done = run_on(tmp_path, [], *args, env={**os.environ, "COMMAND_RAY_IS": "2.99.1"})
    assert done.returncode == 7, done.stderr
    assert "[versions-differ]" in done.stderr
    assert "2.99.1" in done.stderr
    assert not hidden(tmp_path)


@pytest.mark.parametrize(
    "flaw, code, reference, says",
    [
        ({"NODE_VERSION": "9.0"}, 7, "versions-differ", "weightsmith 9.0"),
        ({"NODE_HIDES": "BASE"}, 3, "node-blind", "vicuna_v1_1"),
        ({"NODE_FILE_LIMIT": "20000"}, 8, "disk-full", "on "),
    ],
)
def test_a_node_that_cannot_take_part_is_told_in_words(
    flaw: dict[str, str], code: int, reference: str, says: str, vectors: Path, tmp_path: Path
) -> None:
    args = apply_args(vectors, tmp_path / "out")
    flaw = {key: value.replace("BASE", args[1]) for key, value in flaw.items()}
    done = run_on(tmp_path, [flaw], *args)
    assert done.returncode == code, done.stderr
    assert f"[{reference}]" in done.stderr
    assert says in done.stderr
    assert hidden(tmp_path) == [".out.weightsmith-partial"]


@pytest.mark.parametrize(
    "address, code", [("127.0.0.1:1", 3), ("nowhere", 2), ("ray://127.0.0.1:1", 2)]
)
def test_without_a_cluster_there_is_no_result(
    address: str, code: int, vectors: Path, tmp_path: Path
) -> None:
    args = apply_args(vectors, tmp_path / "out")
    line = [sys.executable, "-m", "weightsmith", *args, "--executor", "ray"]
    done = subprocess.run(
        [*line, "--ray-address", address], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert not os.listdir(tmp_path)  # noqa: PTH208


def test_products_of_two_types_of_processor_are_refused(vectors: Path, tmp_path: Path) -> None:
    done = run_on(tmp_path, [{"NODE_CPU": "other"}], *merge_args(vectors, tmp_path / "out"))
    assert done.returncode == 7, done.stderr
    assert "[machines-differ]" in done.stderr
