"""torch's distributed checkpoint (DCP): ``.metadata``, and ``.distcp`` files of many small ones.

The metadata lists each tensor's chunks, and for each of them a range of a file, which is a whole
torch file with one tensor in it.
"""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.pieces import Gathered, Piece, Pieced
from weightsmith.checkpoint.store import LocalStore
from weightsmith.errors import NoModelInside, PartitionsInvalid, RankMissing
from weightsmith.formats.pickle_names import DTYPES
from weightsmith.formats.tensors import TensorInfo
from weightsmith.formats.torch_pickle import Record, Symbol, View, record_pickle
from weightsmith.formats.torch_zip import TorchFile
from weightsmith.formats.window import Window
from weightsmith.sources.training.placement import are_counts
from weightsmith.units import counted

METADATA: Final = ".metadata"
MAX_METADATA_NBYTES: Final = 64 * 2**20
"""Room for 400 000 chunks."""
_MAX_OPCODES: Final = 24_000_000
_MODEL_WORDS: Final = ("model", "module", "state_dict", "model_state_dict")
"""Under which names training scripts put the model, beside an optimizer."""
_OPTIMIZER: Final = "optim"
"""What every name under which they put an optimizer's state holds."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Where a chunk lies."""

    file: str
    offset: int
    nbytes: int


def open_dcp(directory: Path, label: str) -> Gathered:
    """The model in a directory that ``torch.distributed.checkpoint`` wrote, optimizer left out.

    Raises: RankMissing, NoModelInside; PartitionsInvalid, PartsDoNotFit, ShardTruncated; what
    opening a torch file raises.
    """
    return _Dcp(directory, label).open()


class _Dcp:
    def __init__(self, directory: Path, label: str) -> None:
        self._directory, self._label = directory, label
        self._store = LocalStore(directory)
        self._digests: dict[str, list[str]] = {}

    def open(self) -> Gathered:
        path = self._directory / METADATA
        raw = fs.read_small(path, MAX_METADATA_NBYTES)
        metadata = record_pickle(raw, path, max_opcodes=_MAX_OPCODES)
        if not isinstance(metadata, Record):
            raise self._invalid("it is no record of a checkpoint")
        tensors = metadata.get("state_dict_metadata")
        if not isinstance(tensors, dict):
            raise self._invalid("it lists no tensors")
        chosen, left = self._choose(tensors, metadata.get("planner_data"))
        ranges = self._ranges(metadata.get("storage_data"), set(chosen))
        self._require_files({each.file for each in ranges.values()})
        held = {
            name: self._tensor(full_name, name, tensors[full_name], ranges)
            for full_name, name in chosen.items()
        }
        files = [WeightFile(METADATA, *self._store.identity(METADATA), bytes_digest(raw))]
        for name, digests in sorted(self._digests.items()):
            digest = bytes_digest("\n".join(digests).encode())
            files.append(WeightFile(name, *self._store.identity(name), digest))
        notes = [f"a distributed checkpoint in {counted(len(files) - 1, 'file')}, put together"]
        if left:
            notes.append("no part of the model, not used: " + ", ".join(left))
        return Gathered(
            label=self._label,
            directory=self._directory,
            files=tuple(files),
            tensors=held,
            notes=tuple(notes),
        )

    def _choose(
        self, tensors: dict[object, object], paths: object
    ) -> tuple[dict[str, str], list[str]]:
        """The model's tensors, full name to own name; and what else is there.

        Full names are joined from paths with dots, and a name within the model has dots too: only
        the planner's paths tell where the model's own names begin.
        Raises: NoModelInside.
        """
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        left: set[str] = set()
        for full_name, about in tensors.items():
            if not isinstance(full_name, str):
                raise self._invalid("a tensor has a name that is no text")
            path = paths.get(full_name) if isinstance(paths, dict) else None
            if not isinstance(path, tuple | list) or not path:
                path = (full_name,)
            where, name = tuple(map(str, path[:-1])), str(path[-1])
            if not _is_tensor(about) or any(
                map(_is_optimizer, (*where, name.split(".", maxsplit=1)[0]))
            ):
                left.add(_place_of((*where, name)))
            else:
                groups.setdefault(where, {})[full_name] = name
        if not groups:
            reason = "it holds the state of an optimizer alone" if left else "it has no tensors"
            raise NoModelInside(source=self._label, reason=reason)
        able = [
            where for where, names in groups.items() if any(_is_matrix(tensors[n]) for n in names)
        ]
        able = able or list(groups)  # beside a model lie rates and counters, which are none
        named = [where for where in able if where and where[-1] in _MODEL_WORDS]
        best = named or [where for where in able if not where] or able
        if len(best) > 1:
            places = ", ".join(sorted(".".join(where) for where in best))
            raise NoModelInside(source=self._label, reason=f"several are in it: {places}")
        left |= {".".join(where) or "tensors at the top" for where in groups if where != best[0]}
        found = groups[best[0]]
        if len(set(found.values())) < len(found):
            raise self._invalid("two tensors have one name")
        return found, sorted(left)

    def _ranges(self, storage: object, wanted: set[str]) -> dict[tuple[str, object], _Range]:
        """Where the chunks of tensors lie, by full name and offsets.

        Raises: PartitionsInvalid, also where a file is named that is not in the directory.
        """
        if not isinstance(storage, dict):
            raise self._invalid("it does not say where tensors lie")
        found: dict[tuple[str, object], _Range] = {}
        for index, place in storage.items():
            if not isinstance(index, Record) or not isinstance(place, Record):
                raise self._invalid("it does not say where tensors lie")
            full_name, offsets = index.get("fqn"), index.get("offset")
            if not isinstance(full_name, str) or full_name not in wanted:
                continue
            if place.get("transform_descriptors"):
                raise self._invalid(f"{full_name} is stored in an encoded form")
            file, offset, nbytes = map(place.get, ("relative_path", "offset", "length"))
            if not isinstance(file, str) or not are_counts((offset, nbytes)):
                raise self._invalid(f"{full_name} has no place")
            if "\0" in file or not file or PurePosixPath(file).name != file or file == "..":
                raise self._invalid(f"it names a file outside its directory: {file}")
            found[full_name, offsets] = _Range(file, int(str(offset)), int(str(nbytes)))
        return found

    def _require_files(self, files: set[str]) -> None:
        """Raises: RankMissing."""
        missing = [name for name in sorted(files) if not (self._directory / name).exists()]
        if missing:
            raise RankMissing(
                source=self._label, count=len(missing), total=len(files), context=missing
            )

    def _tensor(
        self, full_name: str, name: str, about: object, ranges: dict[tuple[str, object], _Range]
    ) -> Pieced:
        """One tensor in its chunks."""
        if not isinstance(about, Record):
            raise self._invalid(f"it says nothing of {full_name}")
        properties, size, chunks = map(about.get, ("properties", "size", "chunks"))
        dtype = properties.state if isinstance(properties, Record) else None
        code = dtype[0] if isinstance(dtype, tuple) else None
        if not isinstance(code, Symbol) or code.name not in DTYPES or not are_counts(size):
            raise self._invalid(f"{full_name} has no known dtype or shape")
        whole = TensorInfo(name, DTYPES[code.name], tuple(size))
        if not isinstance(chunks, list):
            raise self._invalid(f"{full_name} has no chunks")
        pieces = []
        for chunk in chunks:
            start = chunk.get("offsets") if isinstance(chunk, Record) else None
            sizes = chunk.get("sizes") if isinstance(chunk, Record) else None
            if not are_counts(start) or not are_counts(sizes) or not len(start) == len(sizes):
                raise self._invalid(f"a chunk of {full_name} has no place")
            if 0 in sizes:
                continue
            place = ranges.get((full_name, tuple(start)))
            if place is None:
                raise self._invalid(f"it does not say where the chunk {list(start)} lies")
            info = replace(whole, shape=tuple(sizes))
            pieces.append(self._piece(info, tuple(start), place))
        return Pieced.of(whole, pieces)

    def _piece(self, info: TensorInfo, start: tuple[int, ...], place: _Range) -> Piece:
        """A chunk, once the torch file in its range holds what the metadata says."""
        opened = TorchFile(Window(self._store.open(place.file), place.offset, place.nbytes))
        if not isinstance(opened.content, View):
            raise self._unlike(place, "there is no tensor")
        stored = opened.locate(info.name, opened.content)
        if stored.info != info:
            raise self._unlike(place, f"{info.name} is {stored.info} there, not {info}")
        self._digests.setdefault(place.file, []).append(bytes_digest(opened.directory))
        return Piece(place.file, replace(stored, offset=place.offset + stored.offset), start)

    def _invalid(self, reason: str) -> PartitionsInvalid:
        return PartitionsInvalid(file=self._directory / METADATA, reason=reason)

    def _unlike(self, place: _Range, reason: str) -> PartitionsInvalid:
        reason = f"at byte {place.offset}, {reason}"
        return PartitionsInvalid(file=self._directory / place.file, reason=reason)


def _is_tensor(about: object) -> bool:
    return isinstance(about, Record) and about.name.endswith(".TensorStorageMetadata")


def _is_matrix(about: object) -> bool:
    size = about.get("size") if isinstance(about, Record) else None
    return are_counts(size) and len(size) > 1


def _is_optimizer(word: str) -> bool:
    return _OPTIMIZER in word.lower()


def _place_of(path: tuple[str, ...]) -> str:
    """A path as far as it tells what lies there: to the optimizer, or its first word."""
    end = next((number for number, word in enumerate(path) if _is_optimizer(word)), 0)
    return ".".join(path[: end + 1])
