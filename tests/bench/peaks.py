"""The peak memory of every command that reads weights, as a table.

    python -m tests.bench.peaks [--megabytes 1000] [--command NAME]

A peak is the largest resident set of the command's process, Python and all that it imports
included; the page cache, which the system takes back when others want it, is not in it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.support.hub.client import usual_env
from tests.support.hub.server import Hub
from tests.support.memory import MIB
from weightsmith.formats.safetensors_header import layout
from weightsmith.formats.tensors import TensorInfo

LAYERS: Final = 8
ROWS: Final = 4096
_RANK: Final = 8
_NAME: Final = "model.layers.{}.mlp.up_proj.weight"
_PROGRAM: Final = """
import sys
from pathlib import Path
from weightsmith.cli.main import run
code = run(sys.argv[2:])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
Path(sys.argv[1]).write_text(status["VmHWM"].split()[0])
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line in the folder of the models; its output is ``out``."""

    name: str
    line: Sequence[str]
    limit: int
    """MiB that it stays below, whatever the size of the model."""
    exits: int = 0


_SIDES: Final = ("--base", "base", "--target", "target")
COMMANDS: Final = (
    Command(
        "apply-delta", ["apply-delta", "--base", "base", "--delta", "delta-add", "-o", "out"], 90
    ),
    Command(
        "apply-delta --low-cpu-mem",
        ["apply-delta", "--base", "base", "--delta", "delta-add", "-o", "out", "--low-cpu-mem"],
        80,
    ),
    Command("make-delta", ("make-delta", *_SIDES, "--delta", "out"), 130),
    Command(
        "make-delta --codec add",
        ("make-delta", *_SIDES, *["--delta", "out", "--codec", "add"]),
        110,
    ),
    Command(
        "make-delta --format disk-delta",
        ("make-delta", *_SIDES, *["--delta", "weight_v000001", "--format", "disk-delta"]),
        600,
    ),
    Command(
        "apply-delta, exact",
        ["apply-delta", "--base", "base", "--delta", "delta", "-o", "out"],
        90,
    ),
    Command("merge-lora", ["merge-lora", "--base", "base", "--lora", "adapter", "-o", "out"], 400),
    Command("extract-lora", ("extract-lora", *_SIDES, *["-o", "out", "--rank", "8"]), 600),
    Command("convert", ["convert", "torch", "out"], 90),
    Command("convert --dtype float32", ["convert", "base", "out", "--dtype", "float32"], 90),
    Command("combine", ("combine", "0.5*base + 0.5*target", "out"), 90),
    Command("run-plan", ["run-plan", "plan.json", "--partition", "1/2"], 60),
    Command("diff", ["diff", "base", "target"], 90, exits=1),
    # What lacks a tokenizer does not pass.
    Command("verify", ["verify", "base"], 90, exits=1),
    Command("verify --base", ["verify", "delta", "--base", "base"], 130, exits=1),
    Command("inspect", ["inspect", "base"], 70),
    Command("download", ["download", "org/model", "-o", "out"], 160),
)


def measure(home: Path, command: Command, hub: Hub) -> int:
    """The peak of a command, in bytes; of what it makes only the delta stays, which others read.

    Raises: RuntimeError, if it does not end as it should.
    """
    told = home / "peak"
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, told, *command.line],
        cwd=home,
        env=_environment(hub),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != command.exits:
        raise RuntimeError(f"{command.name}: exit {done.returncode}: {done.stderr}")
    if command.name == "make-delta":
        (home / "out").rename(home / "delta")
    for each in (*home.glob("out"), *home.glob(".out.*"), *home.glob("weight_v*")):
        shutil.rmtree(each)
    return int(told.read_text()) * 1024


def make_models(home: Path, nbytes: int, hub: Hub) -> None:
    """A base and a fine-tune of it, of so many bytes each, and what the commands want besides."""
    columns = nbytes // LAYERS // ROWS // 2
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((ROWS, columns), dtype=np.float32) * np.float32(0.02)
    steps = rng.standard_normal((ROWS, columns), dtype=np.float32) * np.float32(0.0002)
    config = {"model_type": "llama", "torch_dtype": "float16", "hidden_size": columns}
    old, new = weights.astype(np.float16), (weights + steps).astype(np.float16)
    for name, matrix in (("base", old), ("target", new), ("delta-add", new - old)):
        _write(home / name, matrix, config)
    _write_torch(home / "torch", old, config)
    _write_adapter(home / "adapter", columns)
    plan = [*COMMANDS[0].line, "--save-plan", "plan.json"]
    program = [sys.executable, "-m", "weightsmith", *plan]
    subprocess.run(program, cwd=home, env=_environment(hub), check=True, capture_output=True)
    hub.add("org/model", home / "base")


def _environment(hub: Hub) -> Mapping[str, str]:
    return {**usual_env(hub), "PYTHONPATH": str(Path(__file__).parents[2])}


def _write(folder: Path, matrix: NDArray[np.float16], config: Mapping[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    infos = [TensorInfo(_NAME.format(n), "F16", matrix.shape) for n in range(LAYERS)]
    header, _ = layout(infos, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        for n in range(LAYERS):
            file.write(np.roll(matrix, n, axis=0).data)


def _write_torch(folder: Path, matrix: NDArray[np.float16], config: Mapping[str, object]) -> None:
    import torch

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    files = {n: f"pytorch_model-{n + 1:05d}-of-{LAYERS:05d}.bin" for n in range(LAYERS)}
    for n, name in files.items():
        torch.save({_NAME.format(n): torch.from_numpy(matrix)}, folder / name)
    index = {"metadata": {}, "weight_map": {_NAME.format(n): name for n, name in files.items()}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _write_adapter(folder: Path, columns: int) -> None:
    from safetensors.numpy import save_file

    folder.mkdir()
    module = "base_model.model.model.layers.{}.mlp.up_proj.lora_{}.weight"
    shapes = {"A": (_RANK, columns), "B": (ROWS, _RANK)}
    tensors = {
        module.format(n, side): np.full(shape, 0.01, np.float32)
        for n in range(LAYERS)
        for side, shape in shapes.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 16, "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def table(peaks: Mapping[str, int]) -> str:
    """The rows of the page."""
    limits = {each.name: each.limit for each in COMMANDS}
    rows = [f"| `{name}` | {nbytes / MIB:.0f} | {limits[name]} |" for name, nbytes in peaks.items()]
    return "\n".join(["| command | peak, MiB | bound, MiB |", "| --- | --- | --- |", *rows])


def main() -> None:
    """Make the models, run the commands, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peaks", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--command", action="append", choices=[each.name for each in COMMANDS])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, Hub() as hub:
        home, peaks = Path(folder), {}
        make_models(home, args.megabytes * 1_000_000, hub)
        for command in COMMANDS:
            if not args.command or command.name in args.command:
                peaks[command.name] = measure(home, command, hub)
                print(f"{command.name}: {peaks[command.name] / MIB:.0f} MiB", file=sys.stderr)
    print(table(peaks))


if __name__ == "__main__":
    main()
