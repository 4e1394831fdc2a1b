"""The compiled part under sanitizers, by what its fuzzer begins with and what it once found."""

import shutil
import subprocess
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.slow
def test_no_payload_and_no_elements_make_the_kernel_leave_its_memory(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    program = tmp_path / "kernel_fuzz"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    subprocess.run(
        [
            compiler,
            *flags,
            "-fno-sanitize-recover=undefined",
            FUZZ / "kernel_fuzz.c",
            "-o",
            program,
        ],
        check=True,
    )
    subprocess.run([program, *sorted((FUZZ / "found").iterdir())], check=True)
    for seed in range(4):
        subprocess.run([program, "--runs", "5000", str(seed)], check=True)
