"""``weightsmith merge-lora`` as a user meets it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from weightsmith.cli.main import COMMANDS


@pytest.fixture
def args(vectors: Path, tmp_path: Path) -> list[str]:
    """A command line that merges a vector's adapter into its base."""
    vector = vectors / "lora" / "rslora_pattern_fp32"
    sources = [f"--base={vector / 'base'}", f"--lora={vector / 'adapter'}"]
    return ["merge-lora", *sources, f"--target={tmp_path / 'out'}"]


def test_a_merge_is_planned_shown_made_and_found_done_again(
    args: list[str], tmp_path: Path, weightsmith: Weightsmith
) -> None:
    said = weightsmith(*args)
    assert said.code == 0
    assert "  how     15 copied bit for bit\n          3 merged with LoRA x 4, in F32" in said.err
    assert (tmp_path / "out" / "model.safetensors").is_file()
    again = weightsmith(*args, "--json")
    assert json.loads(again.out)["already_done"] is True
    assert json.loads(again.out)["schema"] == "weightsmith.merge-lora/1"


def test_a_dry_run_writes_nothing_and_tells_every_setting(
    args: list[str], tmp_path: Path, weightsmith: Weightsmith
) -> None:
    said = weightsmith(*args, "--dry-run", "--json", "--rounding", "peft", "--dtype", "float16")
    assert said.code == 0
    assert not list(tmp_path.iterdir())
    tensors = json.loads(said.out)["plan"]["shards"][0]["tensors"]
    params = [tensor["params"] for tensor in tensors if tensor["codec"] == "lora@1"]
    assert len(params) == 6
    assert {(each["rounding"], each["dtype"]) for each in params} == {("peft", "F16")}
    assert {each["steps"] for each in params} == {
        "linear*8.0",  # 16 / sqrt(4), by the pattern
        "linear*4.0",
        "linear*3.2659863237109046",  # 8 / sqrt(6)
    }


def test_planning_imports_no_heavy_package(args: list[str]) -> None:
    code = (
        "import sys; from weightsmith.cli.main import run; run(sys.argv[1:]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args, "--dry-run", "-qq"],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    assert "weightsmith.plan.adapters" in modules
    assert not modules & {"torch", "numpy", "transformers", "huggingface_hub", "safetensors"}


def test_fastchats_names_are_understood(
    vectors: Path, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    vector = vectors / "lora" / "plain_fp16"
    said = weightsmith(
        "merge-lora",
        *("--base-model-path", str(vector / "base")),
        *("--lora-path", str(vector / "adapter")),
        *("--target-model-path", str(tmp_path / "out")),
        "--quiet",
    )
    assert (said.code, said.out) == (0, f"{tmp_path / 'out'}\n")


def test_several_adapters_have_a_role_each(
    args: list[str], tmp_path: Path, weightsmith: Weightsmith
) -> None:
    second = tmp_path / "second"
    shutil.copytree(args[2].removeprefix("--lora="), second)
    said = weightsmith(*args, f"--lora={second}", "--dry-run")
    assert said.code == 0
    assert "lora-1" in said.out
    assert "lora-2" in said.out
    assert "merged with LoRA x 4, then LoRA x 4, in F32" in said.out


def test_an_adapter_of_another_model_ends_in_7_and_is_explained(
    args: list[str], vectors: Path, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "lora" / "plain_fp16" / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"r": 5}))
    said = weightsmith(*args[:2], f"--lora={adapter}", args[3])
    assert said.code == 7
    assert "[adapter-does-not-fit]" in said.err
    assert "has rank 4, where the config says 5" in said.err
    assert "hint: " in said.err


@pytest.mark.parametrize(
    "left_out, missing", [("--base", "--base"), ("--lora", "--lora"), ("--target", "--output")]
)
def test_what_is_left_out_is_named(
    left_out: str, missing: str, args: list[str], weightsmith: Weightsmith
) -> None:
    said = weightsmith(*(arg for arg in args if not arg.startswith(f"{left_out}=")))
    assert said.code == 2
    assert f"missing {missing}" in said.err


def test_the_command_is_announced() -> None:
    assert "merge-lora" in COMMANDS
