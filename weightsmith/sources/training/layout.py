"""Tell what a training run left in a directory, by the names in it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from weightsmith import fs
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import layout_of
from weightsmith.checkpoint.training_names import (
    ACCELERATE,
    CHECKPOINT,
    DCP_SAFETENSORS,
    VERL,
    ZERO_MODEL,
    ZERO_PARTITIONS,
    is_rank_file,
)
from weightsmith.errors import (
    CheckpointUnnamed,
    PartitionsInvalid,
    SeveralOutputs,
    SourceFault,
    TrainingMixed,
    WeightsmithError,
)
from weightsmith.sources.training.dcp import METADATA

Form = Literal["ranks", "dcp", "dcp-safetensors", "zero", "file"]

FORM_WORDS: Final[Mapping[Form, str]] = {
    "ranks": "one file a process, of FSDP or tensor parallelism",
    "dcp": "a distributed checkpoint of torch (DCP)",
    "dcp-safetensors": "a distributed checkpoint of torch in safetensors files",
    "zero": "DeepSpeed's states",
    "file": "a single file",
}

LATEST: Final = "latest"
"""The file in which DeepSpeed names the step that it saved last."""
SINGLE: Final = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Endings of a weight file that may be a SOURCE by itself."""
_LOOSE: Final = re.compile(
    r"(?!optim|scheduler|rng_|random_|training_args|extra_state|dist_rank|consolidated\.)"
    r".*\.(ckpt|pt|pth)"
)
"""A file that may hold the whole model, where nothing else in a directory does."""
_FSDP_FOLDER: Final = re.compile(r"pytorch_model_fsdp_(\d+)")
_NUMBERED_SHARD: Final = re.compile(r"-\d{5}-of-(\d{5})\.")
_TAG_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies in a directory."""

    form: Form
    directory: Path
    """Of its files, as far as they share one."""
    reason: str
    """What tells it, as a clause."""
    files: tuple[str, ...] = ()
    """Names in the directory, or in its `folder`; of ranks and DCP none."""
    ranks: Mapping[int, str] = field(default_factory=dict)
    """Names of the files that each process wrote, by its number."""
    world: int | None = None
    """How many processes there were, where the names tell."""
    folder: str = ""
    """Of DeepSpeed's states, the directory of the step."""
    beside: tuple[Path, ...] = ()
    """Directories in which config and tokenizer are looked for, the first that has them first."""
    notes: tuple[str, ...] = ()


def is_one_of_several(name: str) -> bool:
    """Whether a weight file says by its name that it is a part of a model."""
    match = _NUMBERED_SHARD.search(name)
    return match is not None and int(match[1]) > 1


def find_training(
    directory: Path, label: str, *, tag: str = "", prefers_states: bool = False
) -> Layout | None:
    """What training left in a directory; None where nothing is known, or a model is that is whole.

    `tag` names one of several checkpoints in it. With `prefers_states`, DeepSpeed's states count
    though a model lies beside them.
    Raises: SourceNotFound, SourceUnreadable; SeveralOutputs, CheckpointUnnamed; TrainingMixed;
    PartitionsInvalid.
    """
    names, folders = list_directory(directory)
    whole = layout_of([name for name in names if not is_rank_file(name)]) is not None
    if whole and not prefers_states:
        return None
    if whole or tag:
        return _zero(directory, names, folders, label, tag)
    return (
        _ranks(directory, names, label)
        or _dcp(directory, names, folders, label)
        or _zero(directory, names, folders, label, tag)
        or _dcp_safetensors(directory, names)
        or _loose(directory, names, label)
    )


def states_below(directory: Path) -> Path | None:
    """A directory right below that holds DeepSpeed's states."""
    for name in sorted(list_directory(directory)[1]):
        try:
            found = find_training(directory / name, name)
        except WeightsmithError:  # it is looked at for a hint alone
            continue
        if found is not None and found.form == "zero":
            return directory / name
    return None


def numbered(directory: Path, label: str, *, tag: str = "") -> tuple[Path, str] | None:
    """Of Trainer's directory above ``checkpoint-N``, the one with the highest number or the one
    named `tag`, and a sentence on the choice; None where there is none.

    Raises: CheckpointUnnamed, SourceNotFound, SourceUnreadable.
    """
    names = list_directory(directory)[1]
    numbers = {int(match[1]): name for name in names if (match := CHECKPOINT.fullmatch(name))}
    if tag:
        if tag not in names:
            raise _unnamed(directory, label, tag, numbers.values() or names)
        return directory / tag, f"{tag}, as asked for"
    if not numbers:
        return None
    newest, others = numbers[max(numbers)], [numbers[n] for n in sorted(numbers)[:-1]]
    said = f"{newest}, the newest; there are also {', '.join(others)}" if others else newest
    return directory / newest, said


def single_file(path: Path, label: str) -> Layout:
    """A weight file by itself; one of several that processes wrote stands for all of them.

    Raises: SourceNotFound, SourceUnreadable.
    """
    directory, name = path.parent, path.name
    if is_rank_file(name):
        found = _ranks(directory, list_directory(directory)[0], label)
        if found is not None:
            return found
    reason = f"its name ends in {path.suffix}"
    return Layout("file", directory, reason, (name,), beside=(directory,))


def _ranks(directory: Path, names: Collection[str], label: str) -> Layout | None:
    """Files of verl and of accelerate."""
    worlds: dict[int, dict[int, str]] = {}
    models: dict[str, dict[int, str]] = {}
    for name in names:
        if match := VERL.fullmatch(name):
            worlds.setdefault(int(match[1]), {})[int(match[2])] = name
        elif match := ACCELERATE.fullmatch(name):
            models.setdefault(match[1] or "0", {})[int(match[2])] = name
    if len(worlds) > 1:
        counts = " and ".join(map(str, sorted(worlds)))
        raise TrainingMixed(source=label, reason=f"they are of {counts} processes")
    if not worlds and not models:
        return None
    beside = (directory, directory / "huggingface")
    if worlds:
        ((world, ranks),) = worlds.items()
        _require_world(directory, names, world, label)
    else:
        if len(models) > 1:
            context = [f"pytorch_model_fsdp_{number}" for number in sorted(models)]
            example = f"a directory with the files of {context[0]} alone"
            raise SeveralOutputs(source=label, count=len(models), example=example, context=context)
        world, ranks = None, next(iter(models.values()))
    reason = f"it holds {ranks[min(ranks)]}"
    return Layout("ranks", directory, reason, ranks=ranks, world=world, beside=beside)


def _require_world(directory: Path, names: Collection[str], world: int, label: str) -> None:
    """What verl writes beside the files agrees with their names.

    Raises: TrainingMixed.
    """
    if "fsdp_config.json" in names:
        raw = fs.read_small(directory / "fsdp_config.json", 1_000_000)
        if (said := re.search(rb'"world_size"\s*:\s*(\d{1,255})', raw)) and int(said[1]) != world:
            reason = f"fsdp_config.json tells of {int(said[1])} processes, the names of {world}"
            raise TrainingMixed(source=label, reason=reason)


def _dcp(
    directory: Path, names: Collection[str], folders: Collection[str], label: str
) -> Layout | None:
    """A directory with metadata, or accelerate's above it."""
    if METADATA in names:
        beside: tuple[Path, ...] = (directory, directory / "huggingface")
        if _FSDP_FOLDER.fullmatch(directory.resolve().name):
            beside = (*beside, directory.resolve().parent)
        return Layout("dcp", directory, f"it holds {METADATA}", beside=beside)
    inside = [
        name
        for name in folders
        if _FSDP_FOLDER.fullmatch(name) and (directory / name / METADATA).exists()
    ]
    if len(inside) > 1:
        raise SeveralOutputs(
            source=label, count=len(inside), example=f"{label}/{inside[0]}", context=inside
        )
    for name in inside:
        beside = (directory, directory / "huggingface")
        return Layout("dcp", directory / name, f"it holds {name}/", beside=beside)
    return None


def _zero(
    directory: Path, names: Collection[str], folders: Collection[str], label: str, tag: str
) -> Layout | None:
    """The directory of a run, or of one of its steps."""
    here = _states(names)
    if here and not tag:
        beside = (directory, directory.resolve().parent)
        return Layout("zero", directory, f"it holds {here[0]}", here, beside=beside)
    steps = {name: found for name in folders if (found := _states(_names(directory / name)))}
    if not steps:
        return None
    notes: tuple[str, ...] = ()
    if tag and tag not in steps:
        return None
    if tag:
        step = tag
    elif LATEST in names:
        step = fs.read_small(directory / LATEST, _TAG_LIMIT).decode("utf-8", "replace").strip()
        if not step or "/" in step or "\\" in step or step in {".", ".."}:
            reason = f"it names no checkpoint beside it: {step!r}"
            raise PartitionsInvalid(file=directory / LATEST, reason=reason)
        if step not in steps:
            raise _unnamed(directory, label, step, steps, f"{LATEST} names it")
        notes = (f"{LATEST} names {step}",)
    elif len(steps) > 1:
        listed = sorted(steps, key=_by_number)
        example = f"{label}@{listed[-1]}"
        raise SeveralOutputs(source=label, count=len(steps), example=example, context=listed)
    else:
        step = next(iter(steps))
    others = sorted({*steps} - {step}, key=_by_number)
    if others:
        notes = (*notes, "other steps, not used: " + ", ".join(others))
    reason = f"it holds {step}/{steps[step][0]}"
    return Layout(
        "zero", directory, reason, steps[step], folder=step, beside=(directory,), notes=notes
    )


def _states(names: Collection[str]) -> tuple[str, ...]:
    """DeepSpeed's files among these names; its states of pipelines too, to be refused by name."""
    found = [name for name in names if name.endswith(("_model_states.pt", "_optim_states.pt"))]
    known = any(ZERO_MODEL.fullmatch(name) or ZERO_PARTITIONS.fullmatch(name) for name in found)
    return tuple(sorted(found)) if known else ()


def _names(directory: Path) -> list[str]:
    try:
        return list_directory(directory)[0]
    except SourceFault:
        return []


def _dcp_safetensors(directory: Path, names: Collection[str]) -> Layout | None:
    files = tuple(sorted(filter(DCP_SAFETENSORS.fullmatch, names)))
    if not files:
        return None
    beside = (directory, directory.resolve().parent)
    return Layout("dcp-safetensors", directory, f"it holds {files[0]}", files, beside=beside)


def _loose(directory: Path, names: Collection[str], label: str) -> Layout | None:
    """A single file that may hold the model."""
    files = sorted(filter(_LOOSE.fullmatch, names))
    if not files:
        return None
    if len(files) > 1:
        example = f"{label}/{files[0]}"
        raise SeveralOutputs(source=label, count=len(files), example=example, context=files)
    return Layout("file", directory, f"it holds {files[0]}", (files[0],), beside=(directory,))


def _unnamed(
    directory: Path, label: str, tag: str, there: Collection[str], why: str = ""
) -> CheckpointUnnamed:
    """The error for a checkpoint that is not there, with those that are."""
    listed = sorted(there, key=_by_number)
    context = [*([why] if why else []), *(f"there is {name}" for name in listed)]
    hint = f"give one that is there: {directory}@{listed[-1]}" if listed else None
    return CheckpointUnnamed(source=label, name=tag, context=context, hint=hint)


def _by_number(name: str) -> tuple[int, str]:
    """Steps in the order of their numbers."""
    digits = re.findall(r"\d+", name)
    return (int(digits[-1]) if digits else -1, name)
