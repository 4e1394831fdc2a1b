"""torch's distributed checkpoint in Hugging Face's form: a safetensors file or more a process.

Each file says where in the whole its tensors begin; nothing says how large the whole is, nor how
many processes there were.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.pieces import Gathered, Piece, Pieced
from weightsmith.checkpoint.store import LocalStore
from weightsmith.checkpoint.training_names import DCP_SAFETENSORS
from weightsmith.errors import PartitionsInvalid, TrainingMixed
from weightsmith.formats.safetensors_header import read_header
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TensorInfo
from weightsmith.sources.training.complete import require_all
from weightsmith.sources.training.placement import are_counts
from weightsmith.units import counted

_SHARDING: Final = "DCP_SHARDING_INFO"
_LAST: Final = "only a config tells whether files are missing at the end: compare the shapes"


def open_dcp_safetensors(directory: Path, names: Sequence[str], label: str) -> Gathered:
    """The model in files of these names, all of them named like `DCP_SAFETENSORS`.

    Raises: RankMissing, TrainingMixed; PartitionsInvalid, PartsDoNotFit; what opening a safetensors
    file raises.
    """
    _require_numbers(names, label)
    store = LocalStore(directory)
    files: list[WeightFile] = []
    pieces: dict[str, list[Piece]] = {}
    ends: dict[str, list[tuple[int, ...]]] = {}
    for name in sorted(names, key=_file_first):
        header, raw = read_header(store.open(name))
        files.append(WeightFile(name, *store.identity(name), bytes_digest(raw)))
        offsets = _offsets(header.metadata, directory / name)
        for stored in header.tensors:
            start, shape = offsets.get(stored.info.name), stored.info.shape
            if start is None or len(start) != len(shape):
                reason = f"it does not say where its part of {stored.info.name} belongs"
                raise PartitionsInvalid(file=directory / name, reason=reason)
            pieces.setdefault(stored.info.name, []).append(Piece(name, stored, start))
            end = tuple(first + size for first, size in zip(start, shape, strict=True))
            ends.setdefault(stored.info.name, []).append(end)
    tensors = {}
    for name, held in pieces.items():
        if len({len(end) for end in ends[name]}) > 1:
            raise TrainingMixed(source=label, reason=f"{name} has not the same dimensions in all")
        shape = tuple(map(max, zip(*ends[name], strict=True)))
        whole = TensorInfo(name, held[0].stored.info.dtype, shape)
        tensors[name] = Pieced.of(whole, held)
    many = counted(len(files), "safetensors file")
    notes = (f"a distributed checkpoint in {many}, put together", _LAST)
    return Gathered(
        label=label, directory=directory, files=tuple(files), tensors=tensors, notes=notes
    )


def _require_numbers(names: Sequence[str], label: str) -> None:
    """Refuse gaps; what lacks at the end shows in the shapes alone.

    Raises: RankMissing, TrainingMixed.
    """
    found = [
        tuple(map(int, match.groups()))
        for name in names
        if (match := DCP_SAFETENSORS.fullmatch(name))
    ]
    totals = {total for _, _, total in found}
    if len(totals) > 1:
        reason = "files are numbered of " + " and of ".join(map(str, sorted(totals)))
        raise TrainingMixed(source=label, reason=reason)
    for kind, numbers, last in (
        ("process", {rank for rank, _, _ in found}, max(rank for rank, _, _ in found)),
        ("model file", {number for _, number, _ in found}, max(totals)),
    ):
        require_all(range(1, last + 1), numbers, f"{kind} {{}} is missing", label)


def _file_first(name: str) -> tuple[str, str]:
    """The order of the model's files, and of the processes within each."""
    _, rank, _, number, *_ = name.split("-")
    return number, rank


def _offsets(metadata: Mapping[str, str], path: Path) -> dict[str, tuple[int, ...]]:
    """Where each tensor's part begins.

    Raises: PartitionsInvalid, JsonInvalid.
    """
    info = parse_json(metadata.get(_SHARDING, "null").encode(), path)
    if not isinstance(info, dict):
        raise PartitionsInvalid(file=path, reason=f"it has no {_SHARDING}")
    offsets = {}
    for name, about in info.items():
        start = about.get("saved_offsets") if isinstance(about, dict) else None
        if not are_counts(start):
            reason = f"it does not say where its part of {name} belongs"
            raise PartitionsInvalid(file=path, reason=reason)
        offsets[name] = tuple(start)
    return offsets
