"""The tools that did these jobs before, each at versions known to work, in its own environment.

deepspeed     0.19.8
fschat        0.2.36, its last release, on transformers 4.44, a version of its own time that runs
              with today's torch and NumPy
mergekit      0.1.5
peft          0.21, on today's transformers
transformers  4.46.3, about the last that came with a converter of Meta's files
zipnn         0.5.4, which is built from source

torch comes first and by itself, so that a processor-only wheel, where pip is set up to find one,
is not replaced by what a peer's own requirements would choose.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.measure import Command

TORCH: Final = "torch==2.13.0"
ENVIRONMENTS: Final[dict[str, tuple[str, ...]]] = {
    "deepspeed": ("deepspeed==0.19.8", "transformers==5.23.0"),
    "fschat": (
        "fschat==0.2.36",
        "transformers==4.44.2",
        "accelerate==0.34.2",
        "sentencepiece==0.2.3",
        "protobuf==7.36.2",
    ),
    "mergekit": ("mergekit==0.1.5", "transformers==5.23.0"),
    "peft": ("peft==0.21.2", "transformers==5.23.0", "accelerate==1.15.0"),
    "transformers": (
        "transformers==4.46.3",
        "accelerate==0.34.2",
        "sentencepiece==0.2.3",
        "protobuf==7.36.2",
    ),
    "zipnn": ("zipnn==0.5.4", "numpy==2.4.6"),
}
"""What pip is asked for, by environment."""
ENVIRONMENT_NBYTES: Final = 1_700_000_000
"""About what the largest of them takes."""
RIVALS: Final = Path(__file__).parent / "rivals"
"""What calls a peer that has no command line of its own."""


class NotInstalled(Exception):
    """An environment could not be made."""


def command(name: str, work: Path, environment: str, argv: Sequence[str], made: Path) -> Command:
    """A peer's run: `argv` begins with a program of its environment.

    Its temporary files lie on the same disk as everything else.
    """
    return Command(
        name=name,
        argv=[str(_folder(work, environment) / "bin" / argv[0]), *argv[1:]],
        makes=(made,),
        environment={"TMPDIR": str(work / "out" / "tmp"), "HF_HUB_OFFLINE": "1"},
    )


def python(work: Path, environment: str) -> str:
    """The interpreter of an environment."""
    return str(_folder(work, environment) / "bin" / "python")


def is_installed(work: Path, name: str) -> bool:
    """Whether the environment is there, with the versions wanted."""
    mark = _mark(work, name)
    return mark.exists() and mark.read_text() == _wanted(name)


def install(work: Path, name: str, log: Path) -> None:
    """Make the environment with the pinned versions, unless it is there already.

    Raises: NotInstalled.
    """
    if is_installed(work, name):
        return
    folder = _folder(work, name)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    with log.open("ab") as output:
        for argv in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, TORCH],
            [*pip, TORCH, *ENVIRONMENTS[name]],
        ):
            if subprocess.run(argv, check=False, stdout=output, stderr=output).returncode:
                raise NotInstalled(f"{name} did not install: see {log}")
    _mark(work, name).write_text(_wanted(name))


def _folder(work: Path, name: str) -> Path:
    return work / "peers" / name


def _mark(work: Path, name: str) -> Path:
    return _folder(work, name) / "installed.txt"


def _wanted(name: str) -> str:
    return "\n".join((TORCH, *ENVIRONMENTS[name]))
