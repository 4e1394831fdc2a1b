"""Whole folders, harmed in a few places, through every command.

An input is only a number: which command, on which folders, and what happened to them.
"""

import contextlib
import hashlib
import io
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.fuzz import mutate
from tests.support.damage import HARMS
from tests.support.paths import VECTORS

_KNOWN: Final = {*range(11)}
"""Exit codes that a command may have; 70 is a defect."""
_APPLY: Final = ("apply-delta", "--base", "base", "--delta", "delta", "-o", "out")

COMMANDS: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "vicuna": (
        _APPLY,
        (*_APPLY, "--dtype", "float32", "--max-shard-size", "30KB"),
        ("verify", "delta", "--base", "base"),
        ("verify", "out", "--fix", "--from", "base+delta"),
        ("diff", "base", "target"),
        ("make-delta", "--base", "base", "--target", "target", "--delta", "out"),
        ("make-delta", "--base", "base", "--target", "target", "--delta", "out", "--codec", "add"),
        ("combine", "0.5*base + 0.5*target", "out"),
        ("inspect", "delta", "--bases", "base"),
        ("extract-lora", "--base", "base", "--target", "target", "-o", "out", "--rank", "2"),
    ),
    "exact": (
        _APPLY,
        ("verify", "delta", "--base", "base"),
        ("verify", "delta"),
        ("verify", "delta", "--fix", "--from", "delta"),
        ("convert", "base+delta", "out"),
        ("inspect", "delta"),
    ),
    "lora": (
        ("merge-lora", "--base", "base", "--lora", "adapter", "-o", "out"),
        ("inspect", "adapter"),
    ),
    "meta": (("convert", "meta", "out"), ("inspect", "meta")),
    "training": (("convert", "ckpt", "out"), ("inspect", "ckpt"), ("verify", "ckpt")),
    "zero": (("convert", "ckpt", "out"), ("inspect", "ckpt")),
    "files": (_APPLY, ("inspect", "delta")),
    "tokenizer": (
        ("fix-tokenizer", "model", "--check"),
        ("fix-tokenizer", "model", "--dry-run"),
        ("inspect", "model"),
    ),
}
"""By scene, the commands; they run in its folder."""
_REPAIR: Final = ("fix-tokenizer", "model")
REPAIRS: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "tokenizer": (_REPAIR, (*_REPAIR, "-o", "out")),
    "llama": (_REPAIR, (*_REPAIR, "-o", "out"), (*_REPAIR, "--exact-class")),
}
"""Commands that prove what they write by transformers, and take a second or more."""


class Broken(Exception):
    """A command ended as none may."""


@cache
def scenes(where: Path) -> Mapping[str, Path]:
    """The sound folders, by scene."""
    from weightsmith.ops.apply_delta import apply_delta
    from weightsmith.ops.make_delta import make_delta

    made = {name: where / "sound" / name for name in (*COMMANDS, *REPAIRS)}
    vicuna = made["vicuna"]
    for side in ("base", "delta", "target"):
        shutil.copytree(VECTORS / "vicuna_v1_1" / side, vicuna / side)
    (vicuna / "target" / "expected.safetensors").rename(vicuna / "target" / "model.safetensors")
    apply_delta(vicuna / "base", vicuna / "delta", target=vicuna / "out")
    shutil.copytree(vicuna / "base", made["exact"] / "base")
    make_delta(vicuna / "base", vicuna / "target", made["exact"] / "delta")
    for scene, vector, sides in (
        ("lora", "lora/plain_fp16", ("base", "adapter")),
        ("files", "oasst_xor", ("base", "delta")),
    ):
        for side in sides:
            shutil.copytree(VECTORS / vector / side, made[scene] / side)
    shutil.copytree(VECTORS / "meta_llama1_2shards" / "meta" / "13B", made["meta"] / "meta")
    for scene, vector in (("training", "dcp_plain_w4"), ("zero", "ds_zero2_fp16")):
        shutil.copytree(VECTORS / "training" / vector / "ckpt", made[scene] / "ckpt")
    broken = next(iter(sorted((VECTORS / "skew").glob("*/broken"))))
    shutil.copytree(broken, made["tokenizer"] / "model")
    shutil.copytree(VECTORS / "vicuna_v1_1" / "base", made["llama"] / "model")
    return made


def run_one(
    raw: bytes, where: Path, commands: Mapping[str, Sequence[Sequence[str]]] = COMMANDS
) -> None:
    """The command that belongs to these bytes, on folders harmed as they say.

    Raises: Broken, for exit code 70 or an unknown one, an input that was changed, an output that is
    there after a failure, a content that a repair in place did not keep.
    """
    from weightsmith.cli.main import run

    chance = random.Random(hashlib.sha256(raw).digest())
    scene = chance.choice([*commands])
    line = chance.choice(commands[scene])
    here = where / "harmed"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(scenes(where)[scene], here, symlinks=True)
    fixes, writes = "--fix" in line, "out" in line[1:]
    if writes and not fixes:
        shutil.rmtree(here / "out", ignore_errors=True)
    done = [_harm(here, chance) for _ in range(chance.choice((1, 1, 2, 3)))]
    before = _state(here)
    said = io.StringIO()
    home = Path.cwd()
    os.chdir(here)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run([*line, "--offline"] if line[0] != "fix-tokenizer" else [*line])
    finally:
        os.chdir(home)
    what = f"{' '.join(line)} after {done}: exit code {code}\n{said.getvalue()[-1500:]}"
    if code not in _KNOWN:
        raise Broken(what)
    if line[:2] == _REPAIR and "out" not in line:
        _hold_repair(before, _state(here), code, what)
        return
    if not fixes and _state(here, but="out") != [e for e in before if not e[0].startswith("out")]:
        raise Broken(f"inputs changed: {what}")
    if writes and not fixes and code not in {0, 1} and (here / "out").exists():
        raise Broken(f"published in spite of it: {what}")


def _hold_repair(
    before: list[tuple[str, str]], after: list[tuple[str, str]], code: int, what: str
) -> None:
    """Whatever was there is there still, under its own name or as a copy of what it was."""
    if code and after != before:
        raise Broken(f"changed in spite of it: {what}")
    kept = {(name.partition(".bak")[0], digest) for name, digest in after}
    if lost := [name for name, digest in before if (name, digest) not in kept]:
        raise Broken(f"lost {lost}: {what}")


def _state(folder: Path, but: str = "-") -> list[tuple[str, str]]:
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = name.startswith(f".{but}.")
        if name != but and not name.startswith(f"{but}/") and not hidden:
            content = path.read_bytes() if path.is_file() else b""
            found.append((name, hashlib.sha256(content).hexdigest()))
    return found


def _harm(folder: Path, chance: random.Random) -> str:
    """Something happens to a file; says what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    path = chance.choice(files)
    name = path.relative_to(folder).as_posix()
    match chance.randrange(12):
        case 0:
            path.unlink()
            return f"{name} gone"
        case 1:
            other = chance.choice(files)
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            return f"{name} swapped with {other.name}"
        case 2:
            path.unlink()
            chance.choice((path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(name)))()
            return f"{name} is no file"
        case 3:
            path.write_bytes(chance.choice((b"", b"{}", b"[]", b"null", b"PK\5\6" + bytes(18))))
            return f"{name} is nothing"
        case 4 | 5:
            how = chance.choice([*HARMS])
            if path.stat().st_size:
                path.write_bytes(bytes(HARMS[how](bytearray(path.read_bytes()), chance)))
            return f"{how} in {name}"
        case _:
            path.write_bytes(_mutator(path)(path.read_bytes(), chance))
            return f"{name} changed"


def _mutator(path: Path) -> Callable[[bytes, random.Random], bytes]:
    """What keeps the file's form."""
    if path.suffix == ".json":
        return mutate.json_text
    if path.suffix == ".safetensors":
        return mutate.safetensors
    if path.name == ".metadata":
        return mutate.opcodes
    return mutate.torch_zip if path.suffix in {".bin", ".pt", ".pth"} else mutate.flip
