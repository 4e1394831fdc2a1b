"""Plan a version as training runs publish them: which it is, and which tensors it may change."""

import re
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.codecs.checksums import Algorithm
from weightsmith.codecs.disk_delta import MAX_OVERWRITTEN_NBYTES, Encoding
from weightsmith.errors import TensorsDoNotFit, VersionsBroken
from weightsmith.plan.model import InputTensor, ShardPlan, TensorPlan

FORM: Final = "disk-delta"
VERSION_NAME: Final = re.compile(r"weight_v(\d{6,})")
_FILE: Final = "model-00000-of-00001.safetensors"
"""Trainers count them from 0."""


def version_of(
    base: Checkpoint, path: Path, encoding: Encoding, checksum: Algorithm
) -> dict[str, str]:
    """What the index of a version in the directory `path` says; a base that is no version is 0.

    Raises: VersionsBroken.
    """
    name = VERSION_NAME.fullmatch(path.name)
    if name is None:
        hint = "call it weight_v000001, say, by the number of the version"
        raise VersionsBroken(where=path, reason="its name says no version", hint=hint)
    before = VERSION_NAME.fullmatch(base.known_as)
    number, of = int(name[1]), int(before[1]) if before is not None else 0
    if number != of + 1:
        reason = f"version {number} is made of version {number - 1}, and {base.label} is {of}"
        hint = "the directories' names say the versions; a base of another name is version 0"
        raise VersionsBroken(where=path, reason=reason, hint=hint)
    return {
        "version": f"{number:06d}",
        "base_version": f"{of:06d}",
        "delta_encoding": encoding,
        "compression_format": "zstd",
        "checksum_format": checksum,
    }


def plan_version(base: Checkpoint, target: Checkpoint, encoding: Encoding) -> tuple[ShardPlan, ...]:
    """The one file that holds what changed, of tensors that both have in one shape and dtype.

    Raises: TensorsDoNotFit, for what the layout cannot say.
    """
    ours = {name: tensor.info for name, tensor in base.tensors.items()}
    theirs = {name: tensor.info for name, tensor in target.tensors.items()}
    problems = [f"{name} is gone" for name in ours if name not in theirs]
    for name, info in theirs.items():
        if name not in ours:
            problems.append(f"{name} is new")
        elif ours[name] != info:
            problems.append(f"{name} is {ours[name]} in the base, {info} in the target")
        elif encoding == "overwrite" and info.nbytes > MAX_OVERWRITTEN_NBYTES:
            problems.append(f"{name} has more than 4 GiB, which only xor can change")
    if problems:
        raise TensorsDoNotFit(
            base=base.label,
            other=f"target {target.label}",
            count=len(problems),
            context=problems,
            hint="an exact delta holds tensors that were added, removed or resized",
        )
    rules = [
        TensorPlan(info, "copy@1", {}, (InputTensor("target", info), InputTensor("base", info)))
        for info in theirs.values()
    ]
    return (ShardPlan(_FILE, tuple(rules)),)
