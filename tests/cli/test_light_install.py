"""Without torch, transformers and their kin, all that needs none of them works."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.folders import copied
from tests.support.low_rank_matrices import write_merged
from tests.support.paths import ROOT

LIGHT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
left_out, lines = json.load(sys.stdin)
for package in left_out:
    sys.modules[package] = None
from weightsmith.cli.main import run
for line in lines:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(line)
    print(json.dumps([code, err.getvalue()]))
"""


def left_out() -> list[str]:
    """What weightsmith depends on and the light install of docs/how-to/install.md does without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"\W", each)[0] for each in project["dependencies"]}
    light = re.findall(
        r"^pip install (click .+)$", (ROOT / "docs/how-to/install.md").read_text(), re.MULTILINE
    )
    return sorted(needed.difference(*(line.split() for line in light)) | {"google", "ml_dtypes"})


def test_what_needs_no_heavy_package_works_without(vectors: Path, tmp_path: Path) -> None:
    copied(vectors / "vicuna_v1_1" / "base", tmp_path / "base")
    copied(vectors / "vicuna_v1_1" / "delta", tmp_path / "delta")
    copied(vectors / "lora" / "plain_fp16", tmp_path / "lora")
    write_merged(tmp_path / "low", 1024)
    works = [
        ["apply-delta", "--base", "base", "--delta", "delta", "--target", "vicuna"],
        ["make-delta", "--base", "base", "--target", "vicuna", "--delta", "made"],
        ["apply-delta", "--base", "base", "--delta", "made", "--target", "restored"],
        ["make-delta", "--base", "low/base", "--target", "low/target", "--delta", "factors"],
        ["convert", "vicuna", "converted", "--dtype", "bfloat16"],
        ["inspect", "vicuna"],
        ["verify", "vicuna"],
        ["diff", "vicuna", "restored"],
    ]
    needs = {
        "torch": ["merge-lora", "--base=lora/base", "--lora=lora/adapter", "--target=merged"],
        "huggingface_hub": ["download", "org/model"],
        "xxhash": [
            *(
                "make-delta",
                "--base",
                "low/base",
                "--target",
                "low/target",
                "--format",
                "disk-delta",
            ),
            *("--delta", "weight_v000001"),
        ],
        "transformers": ["verify", "vicuna", "--smoke"],
    }
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        input=json.dumps([left_out(), [*works, *needs.values()]]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    codes = [code for code, _ in answers[: len(works)]]
    assert codes == [0] * len(works), answers
    for package, (code, said) in zip(needs, answers[len(works) :], strict=True):
        assert code == 2, said
        assert "[package-missing]" in said
        assert f"hint: pip install '{package}'" in said or "hint: pip install 'torch'" in said
    assert not (tmp_path / "merged").exists()
    assert "threadpoolctl" not in left_out()
    assert {"regex", "torch", "xxhash"} <= {*left_out()}
