"""The tools that did this job before, each at versions known to work, in its own environment.

fschat    0.2.36, its last release: apply_delta, standard and ``--low-cpu-mem``, on transformers
          4.44, a version of its own time that runs with today's torch and NumPy
mergekit  0.1.5: a linear merge of base and delta, each with weight 1, which is the same sum

torch comes first and by itself, so that a processor-only wheel, where pip is set up to find one,
is not replaced by what a peer's own requirements would choose.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.measure import Command

TORCH: Final = "torch==2.13.0"
ENVIRONMENTS: Final[dict[str, tuple[str, ...]]] = {
    "fschat": (
        "fschat==0.2.36",
        "transformers==4.44.2",
        "accelerate==0.34.2",
        "sentencepiece==0.2.3",
        "protobuf==7.36.2",
    ),
    "mergekit": ("mergekit==0.1.5", "transformers==5.23.0"),
}
"""What pip is asked for, by environment."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of getting base + delta from another tool."""

    name: str
    environment: str
    file_format: str
    """Of the inputs that it is given: the one that suits it."""
    argv: Callable[[Path, Path, Path, Path], list[str]]
    """From its environment's ``bin``, base, delta and target, the command line."""


def command(peer: Peer, work: Path, base: Path, delta: Path) -> Command:
    """The peer's run, with its temporary files on the same disk as everything else."""
    target, scratch = work / "out" / peer.name.replace(" ", ""), work / "out" / "tmp"
    return Command(
        name=peer.name,
        argv=peer.argv(environment_folder(work, peer.environment) / "bin", base, delta, target),
        makes=(target,),
        environment={"TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1"},
    )


def environment_folder(work: Path, name: str) -> Path:
    """Where this environment is installed."""
    return work / "peers" / name


def install(work: Path, name: str, log: Path) -> None:
    """Make the environment with the pinned versions, unless it is there already."""
    folder = environment_folder(work, name)
    wanted = "\n".join((TORCH, *ENVIRONMENTS[name]))
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    with log.open("ab") as output:
        for argv in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, TORCH],
            [*pip, TORCH, *ENVIRONMENTS[name]],
        ):
            subprocess.run(argv, check=True, stdout=output, stderr=output)
    mark.write_text(wanted)


def _fastchat(programs: Path, base: Path, delta: Path, target: Path) -> list[str]:
    module = [str(programs / "python"), "-m", "fastchat.model.apply_delta"]
    paths = ["--base-model-path", base, "--delta-path", delta, "--target-model-path", target]
    return module + [str(part) for part in paths]


def _fastchat_low_memory(programs: Path, base: Path, delta: Path, target: Path) -> list[str]:
    return [*_fastchat(programs, base, delta, target), "--low-cpu-mem"]


def _mergekit(programs: Path, base: Path, delta: Path, target: Path) -> list[str]:
    recipe = target.with_suffix(".yml")
    models = "".join(
        f"  - model: {folder}\n    parameters: {{weight: 1.0}}\n" for folder in (base, delta)
    )
    recipe.write_text(
        f"merge_method: linear\nmodels:\n{models}parameters: {{normalize: false}}\ndtype: float16\n"
    )
    return [str(programs / "mergekit-yaml"), str(recipe), str(target)]


PEERS: Final = (
    Peer("fschat", "fschat", "bin", _fastchat),
    Peer("fschat --low-cpu-mem", "fschat", "bin", _fastchat_low_memory),
    Peer("mergekit linear", "mergekit", "safetensors", _mergekit),
)
