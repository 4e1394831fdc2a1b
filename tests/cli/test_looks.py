"""What is said fits a terminal of 80 columns, whatever the command, the names and the outcome."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from tests.support.folders import vicuna
from weightsmith.cli.help_topics import TOPICS
from weightsmith.cli.layout import display_width, plain
from weightsmith.cli.main import COMMANDS
from weightsmith.errors import known_errors, reference_of

COLUMNS = 80
UNICODE = "模型-微调-版本"
LONG = "a-model-that-somebody-trained-for-months-and-named-with-care/inside-another-folder"
SAID = (
    f"apply-delta --base base --delta delta --target {UNICODE}-2",
    "apply-delta --base base --delta delta --target out --dry-run -v",
    "make-delta --base base --target tuned --delta out",
    "make-delta --base base --target tuned --delta out --dry-run",
    "make-delta --base base --target tuned --delta out --codec add",
    f"make-delta --base base --target tuned --target {LONG}/base --delta out",
    "merge-lora --base lora-base --lora lora --target out",
    "extract-lora --base base --target tuned out --rank 2",
    "extract-lora --base base --target tuned out",
    f"convert {LONG}/base out",
    "convert base out --dtype float32 --no-repair",
    'combine "0.5*base + 0.5*tuned" out',
    "inspect base",
    "inspect lora",
    f"inspect base tuned lora {UNICODE} {LONG}/base nothing",
    "inspect tuned --bases base lora-base",
    "diff base tuned",
    f"diff base {LONG}/base",
    "verify tuned",
    "verify delta --base base",
    "fix-tokenizer base --check",
    "fix-tokenizer base --dry-run",
    "verify nothing",
    "convert base out --dtype float3",
    "clean-cache --cache-dir cache --list",
    "clean-cache --cache-dir cache --dry-run",
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def too_wide(text: str) -> list[str]:
    """Lines past the edge, but for those that hold a command or a path, which nothing may break."""
    return [
        line
        for part in text.splitlines()
        if display_width(line := plain(part.rpartition("\r")[2])) > COLUMNS
        and "weightsmith " not in line
        and not any(display_width(word) > COLUMNS // 2 for word in line.split())
    ]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_of_every_command_fits(weightsmith: Weightsmith, command: str) -> None:
    said = weightsmith(*command.split(), "--help")
    assert said.code == 0
    assert [line for line in said.out.splitlines() if display_width(line) > COLUMNS] == []


@pytest.mark.sampled(3)
@pytest.mark.parametrize("topic", [*TOPICS, "pages", *map(reference_of, known_errors())])
def test_every_topic_of_help_fits(weightsmith: Weightsmith, topic: str) -> None:
    said = weightsmith("help", topic)
    assert said.code == 0
    assert [line for line in said.out.splitlines() if display_width(line) > COLUMNS] == []


@pytest.fixture
def here(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with models under plain, long and Chinese names."""
    monkeypatch.chdir(tmp_path)
    release, lora = vectors / "vicuna_v1_1", vectors / "lora" / "plain_fp16"
    models = {"base": release / "base", "delta": release / "delta"}
    models |= {"lora-base": lora / "base", "lora": lora / "adapter"}
    for name, folder in models.items():
        Path(name).symlink_to(folder)
    for copy in (f"{LONG}/base", UNICODE):
        shutil.copytree(release / "base", copy)
    vicuna(vectors, Path("tuned"))
    Path("cache").mkdir()


@pytest.mark.usefixtures("here")
@pytest.mark.sampled(6)
@pytest.mark.parametrize("line", SAID)
def test_what_a_command_says_fits(weightsmith: Weightsmith, line: str) -> None:
    said = weightsmith(*shlex.split(line), terminal=True)
    assert said.out + said.err
    assert too_wide(said.out) + too_wide(said.err) == []
    assert "Traceback" not in said.err
