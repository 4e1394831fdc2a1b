"""Reading the command line: names, values, help."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.exact_payloads import by_path
from tests.support.folders import copied, write_model
from weightsmith.cli.main import COMMANDS
from weightsmith.codecs.exact import kernel
from weightsmith.errors import KernelUnfit
from weightsmith.version import __version__

BASE = ("sample", "--base", "./llama")


@pytest.mark.parametrize(
    "args,error,hint",
    [
        (["frobnicate"], "no such command: frobnicate", "weightsmith -h"),
        (["sample", "--xyzzy"], "no such option: --xyzzy", "weightsmith sample -h"),
        (["sample"], "missing --base", "weightsmith sample -h"),
        (["sample", "--base", ""], "--base: it is empty", "weightsmith sample -h"),
        (["sample", "--base"], "option '--base' requires an argument", "weightsmith sample -h"),
        (
            [*BASE, "more"],
            "got unexpected extra argument (more)",
            "weightsmith sample -h",
        ),
        (
            [*BASE, "--workers", "0"],
            "--workers: 0 is not in the range x>=1",
            "weightsmith sample -h",
        ),
        (
            [*BASE, "--max-shard-size", "5zb"],
            "--max-shard-size: '5zb' is not a size; write it as 5GB, 5GiB or 400MB",
            "weightsmith sample -h",
        ),
        (
            [*BASE, "--max-shard-size", "0GB"],
            "--max-shard-size: '0GB' is not a size; write it as 5GB, 5GiB or 400MB",
            "weightsmith sample -h",
        ),
    ],
)
def test_mistakes_are_told_with_the_way_out(
    weightsmith: Weightsmith, args: list[str], error: str, hint: str
) -> None:
    said = weightsmith(*args)
    assert said.code == 2
    assert said.out == ""
    assert said.err == f"error: {error} [command-line-invalid]\nhint: {hint}\n"


@pytest.mark.parametrize(
    "line, error, corrected",
    [
        ("aply-delta --base x", "no such command: aply-delta", "apply-delta --base x"),
        ("apply --base x", "no such command: apply", "apply-delta --base x"),
        ("merge x", "no such command: merge", "merge-lora x"),
        ("ls", "no such command: ls", "clean-cache --list"),
        ("prune", "no such command: prune", "clean-cache"),
        ("rm org/name", "no such command: rm", "clean-cache org/name"),
        ("sample --bsae x", "no such option: --bsae", "sample --base x"),
        ("sample --bsae=x", "no such option: --bsae", "sample --base=x"),
        ("sample --work 2", "no such option: --work", "sample --workers 2"),
        ("make-delta --model 'a b'", "no such option: --model", "make-delta --target 'a b'"),
        ("--bsae x sample", "no such option: --bsae", "sample --base x"),
    ],
)
def test_a_slip_is_answered_with_the_corrected_line(
    weightsmith: Weightsmith, line: str, error: str, corrected: str
) -> None:
    said = weightsmith(*shlex.split(line))
    assert said.code == 2
    assert said.err.startswith(f"error: {error} [command-line-invalid]\n  did you mean ")
    assert said.err.endswith(f"\nhint: weightsmith {corrected}\n")


@pytest.mark.parametrize(
    "line",
    [
        "-q sample --base x",
        "--quiet sample --base x",
        "--color never -q sample --base x",
        "--base x -q sample",
        "sample --base x -q",
    ],
)
def test_options_may_stand_before_the_command(weightsmith: Weightsmith, line: str) -> None:
    assert weightsmith(*shlex.split(line)).out == weightsmith(*BASE, "-q").out


@pytest.mark.parametrize(
    "line",
    [
        "apply-delta ./no-base ./no-delta ./out",
        "apply-delta --delta ./no-delta ./no-base ./out",
        "merge-lora ./no-base ./no-adapter ./out",
        "make-delta ./no-base ./no-target ./out",
        "convert ./no-base -o ./out",
        "convert ./no-base ./out",
        "convert ./no-base --target ./out",
    ],
)
def test_what_has_no_option_is_taken_in_the_natural_order(
    weightsmith: Weightsmith, line: str
) -> None:
    said = weightsmith(*shlex.split(line))
    assert said.code == 3
    assert said.err.startswith("error: no such file or directory: no-base "), said.err


@pytest.mark.parametrize(
    "line",
    [
        "apply-delta --base model/x --delta model -o out",
        "apply-delta --base model --delta model/x -o out",
        "make-delta --base model --target model/x --delta out",
        "merge-lora --base model --lora model/x -o out",
        "extract-lora --base model/x --target model out",
        "convert model/x out",
        "convert model out --sidecars-from model/x",
        "combine '0.5*model + 0.5*model/x' out",
        "inspect model/x",
        "inspect model --bases model/x",
        "diff model model/x",
        "verify model/x",
        "verify model --base model/x",
        "verify model --against model/x",
        "fix-tokenizer model/x",
    ],
)
def test_what_would_lie_beside_a_models_files_is_not_looked_for_on_the_hub(
    line: str, weightsmith: Weightsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model", {"model.norm.weight": torch.ones(4)})
    said = weightsmith(*shlex.split(line))
    assert "error: no such file or directory: model/x [source-not-found]" in said.err
    assert said.code == 3


@pytest.mark.parametrize("line", ["convert x -o -", "convert x -", "combine x --target -"])
def test_an_output_is_no_stream(
    line: str, weightsmith: Weightsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = weightsmith(*shlex.split(line))
    assert said.code == 2
    assert "a directory is made, no stream; one of that name is ./-" in said.err
    assert not list(tmp_path.iterdir())


def test_one_word_too_many_is_an_error(weightsmith: Weightsmith) -> None:
    said = weightsmith("convert", "./x", "./y", "./z")
    assert said.code == 2
    assert "unexpected extra argument (./z)" in said.err


@pytest.mark.parametrize("short, dtype", [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_dtypes_have_their_short_names_too(
    short: str, dtype: str, weightsmith: Weightsmith, vectors: Path, tmp_path: Path
) -> None:
    model = str(vectors / "vicuna_v1_1" / "base")
    said = weightsmith("convert", model, str(tmp_path / "x"), "--dtype", short, "--dry-run")
    assert said.code == 0
    assert f"  {dtype}  " in said.out


def test_the_home_is_known_behind_an_equals_sign_too(
    weightsmith: Weightsmith, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(vectors / "vicuna_v1_1" / "base", tmp_path / "base")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weightsmith("convert", "~/base", "--output=~/out").code == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("line", ["-V", "--version", "version", "-q version"])
def test_every_way_to_ask_for_the_version(weightsmith: Weightsmith, line: str) -> None:
    said = weightsmith(*line.split())
    assert said.code == 0
    assert said.out.split()[-1] == __version__


def test_a_bad_value_from_the_environment_names_its_variable(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSMITH_SAMPLE_WORKERS", "many")
    said = weightsmith(*BASE)
    assert said.code == 2
    assert "  set by WEIGHTSMITH_SAMPLE_WORKERS\n" in said.err


def test_the_command_line_wins_over_the_environment(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSMITH_SAMPLE_WORKERS", "3")
    assert "workers: 3" in weightsmith(*BASE, "-v").err
    assert "workers: 2" in weightsmith(*BASE, "-v", "--workers", "2").err


@pytest.mark.parametrize(
    "args",
    [
        ("sample", "--path_raw", "x", "--low_cpu_mem"),
        ("sample", "--path-raw=x", "--low-cpu-memory-conversion"),
        ("sample", "--base", "x", "--low-cpu-memory_conversion"),
    ],
)
def test_old_names_and_underscores_are_understood(
    weightsmith: Weightsmith, args: tuple[str, ...]
) -> None:
    said = weightsmith(*args, "-v")
    assert said.code == 0
    assert "  base   x\n" in said.err
    assert "low memory: True" in said.err


def test_commands_take_underscores(weightsmith: Weightsmith) -> None:
    assert weightsmith("apply_delta", "-h").out == weightsmith("apply-delta", "-h").out


@pytest.mark.parametrize("size,nbytes", [("400MB", 400_000_000), ("5GiB", 5 * 2**30)])
def test_sizes_are_decimal_or_binary_as_written(
    weightsmith: Weightsmith, size: str, nbytes: int
) -> None:
    assert f"  shard  {nbytes}\n" in weightsmith(*BASE, "--max-shard-size", size).err


def test_no_arguments_show_the_short_help_on_stderr(weightsmith: Weightsmith) -> None:
    said = weightsmith()
    assert said.code == 2
    assert said.out == ""
    assert said.err == weightsmith("-h").out
    assert said.err.count("\n  weightsmith ") == 2


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_everywhere(weightsmith: Weightsmith, command: str, flag: str) -> None:
    said = weightsmith(*[command] * bool(command), flag)
    assert said.code == 0
    assert said.err == ""
    assert said.out.startswith("Usage: weightsmith")
    assert said.out.index("Examples:\n") < said.out.index("-h, --help")


def test_help_shows_examples_then_options_under_headings(weightsmith: Weightsmith) -> None:
    assert weightsmith("sample", "-h").out == SAMPLE_HELP


SAMPLE_HELP = """\
Usage: weightsmith sample [OPTIONS]

  Say one thing of each kind.

Examples:
  weightsmith sample --base ./llama-7b
  weightsmith sample --base ./llama-7b -n

Inputs:
  --base SOURCE          The model to start from.  [required]

Output:
  --max-shard-size SIZE  Largest weight file.

Speed and memory:
  --workers N            Threads.
  --low-cpu-mem          One worker.

Safety:
  --end TEXT             How to end.
  -n, --dry-run          Print the plan and change nothing.
  -y, --yes              Go ahead without asking.

Messages:
  --json                 Print one JSON document.
  -q, --quiet            Print only the result; -qq: nothing at all.
  -v, --verbose          Print more; -vv: still more.
  --color WHEN           Colours: auto (default), always or never.
  -h, --help             Show this message and exit.

More: weightsmith help reference/commands
"""


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "weightsmith", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"weightsmith {__version__}\n"


def test_an_exit_code_is_explained_with_its_errors(weightsmith: Weightsmith) -> None:
    said = weightsmith("help", "7").out
    assert said.startswith("Exit code 7\nInputs do not belong together.")
    assert "wrong-base" in said
    assert weightsmith("help", "source").out == weightsmith("help", "sources").out


def test_version(weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSMITH_VERSION", "1")
    assert weightsmith("--version").out == f"weightsmith {__version__}\n"
    assert weightsmith(*BASE).out == "done  ./out\n"


@pytest.mark.parametrize("line", ["--version -v", "-v --version", "-V --verbose"])
def test_the_version_says_which_kernel_is_in_use(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    by_path("none", monkeypatch)
    version, said, python = weightsmith(*line.split()).out.splitlines()
    assert version == f"weightsmith {__version__}"
    assert said.startswith("compiled part  none, so deltas are read slowly")
    assert python.startswith("python         3.")
    by_path("plain", monkeypatch)
    assert weightsmith(*line.split()).out.splitlines()[1] == "compiled part  plain C"


def test_the_version_says_that_the_kernel_is_unfit(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit() -> None:
        raise KernelUnfit(found=1, wanted=2)

    monkeypatch.setattr(kernel, "find", unfit)
    _, said, python = weightsmith("--version", "-v").out.splitlines()
    assert said.startswith("compiled part  unfit: the compiled part is of another weightsmith")
    assert python.startswith("python         3.")
