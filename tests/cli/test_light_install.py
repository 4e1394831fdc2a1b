"""Without torch, transformers and their kin, all that needs none of them works."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.folders import copied

LIGHT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
for package in ("accelerate", "huggingface_hub", "safetensors", "sentencepiece", "tokenizers",
                "torch", "transformers", "google", "ml_dtypes"):
    sys.modules[package] = None
from weightsmith.cli.main import run
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(line)
    print(json.dumps([code, err.getvalue()]))
"""


def test_what_needs_no_heavy_package_works_without(vectors: Path, tmp_path: Path) -> None:
    copied(vectors / "vicuna_v1_1" / "base", tmp_path / "base")
    copied(vectors / "vicuna_v1_1" / "delta", tmp_path / "delta")
    copied(vectors / "lora" / "plain_fp16", tmp_path / "lora")
    works = [
        ["apply-delta", "--base", "base", "--delta", "delta", "--target", "vicuna"],
        ["make-delta", "--base", "base", "--target", "vicuna", "--delta", "made"],
        ["apply-delta", "--base", "base", "--delta", "made", "--target", "restored"],
        ["convert", "vicuna", "converted", "--dtype", "bfloat16"],
        ["inspect", "vicuna"],
        ["verify", "vicuna"],
        ["diff", "vicuna", "restored"],
    ]
    needs = {
        "torch": ["merge-lora", "--base=lora/base", "--lora=lora/adapter", "--target=merged"],
        "huggingface_hub": ["download", "org/model"],
        "transformers": ["verify", "vicuna", "--smoke"],
    }
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        input=json.dumps([*works, *needs.values()]),
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
        assert f"hint: pip install {package}" in said or "hint: pip install torch" in said
    assert not (tmp_path / "merged").exists()
