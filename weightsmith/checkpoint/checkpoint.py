"""An opened source: tensors by name, each read as a range of bytes when it is asked for."""

import copy
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from weightsmith import fs
from weightsmith.checkpoint.content import Content, inside
from weightsmith.checkpoint.digest import SPAN_NBYTES, bytes_digest
from weightsmith.checkpoint.lazy import LazyTensor
from weightsmith.checkpoint.store import LocalStore, Store
from weightsmith.checkpoint.strided import read_strided
from weightsmith.checkpoint.table import SAFETENSORS, read_table
from weightsmith.errors import FileTooLarge, JsonInvalid, WeightsmithError, ZipInvalid
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import StoredTensor, TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import torch

MAX_SIDECAR_NBYTES: Final = 100_000_000
"""Largest sidecar that is read."""
MAX_CONFIG_NBYTES: Final = 10_000_000
"""Largest config that is parsed; the parsed values may take fifty times as much memory."""
INPUT_EMBEDDINGS: Final = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
"""How architectures name the matrix that has one row a token."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file's identity: enough to notice that it changed."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    """When anything of it was changed last, its mode or its number of names for example; unlike
    `mtime_ns` nobody can set it back.
    """
    header_digest: str
    """blake3 of the safetensors header, or of a torch file's table of tensors."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor and the file that holds it."""

    stored: StoredTensor
    file: str

    @property
    def info(self) -> TensorInfo:
        """Name, dtype and shape."""
        return self.stored.info

    @property
    def place(self) -> tuple[object, ...]:
        """Where its bytes lie, and how they are read: tensors of one place are tied."""
        if not self.file:  # it is made as it is read
            return (self.info.name,)
        stored = self.stored
        return self.file, stored.offset, stored.strides, stored.info.dtype, stored.info.shape

    def renamed(self, name: str) -> Self:
        """The same tensor under another name."""
        stored = replace(self.stored, info=replace(self.stored.info, name=name))
        return replace(self, stored=stored)


class Checkpoint(Mapping[str, LazyTensor]):
    """An opened source: a mapping of tensor names to tensors that are read when they are asked for.

    It can be used in a ``with`` statement, which closes its files. One checkpoint is equal to
    itself alone.
    """

    def __init__(
        self,
        *,
        label: str,
        directory: Path,
        store: Store,
        files: tuple[WeightFile, ...],
        tensors: Mapping[str, Tensor],
        sidecars: tuple[str, ...],
        notes: tuple[str, ...],
        large: Mapping[str, int] | None = None,
        unlisted: Mapping[str, str] | None = None,
        stale: Mapping[str, Tensor] | None = None,
        assumed: Iterable[str] = (),
    ) -> None:
        """Use `opening.open_checkpoint`."""
        self.label = label
        """The source as the user wrote it."""
        self.directory = directory
        self.files = files
        self.tensors = tensors
        """By name, in the order of files and of bytes within each."""
        self.sidecars = sidecars
        """Names of the files beside the weights that belong to the model."""
        self.large = large or {}
        """Files that would be sidecars but are too large to be taken unasked, with their sizes."""
        self.unlisted = unlisted or {}
        """By name, the files of tensors that the index does not list."""
        self.stale = stale or {}
        """Copies of its tensors in other files than the index names."""
        self.notes = notes
        """Sentences for the plan on what was taken or left out, and why."""
        self.origin = ""
        """``org/name@commit`` of a source on the hub; empty for a directory."""
        self.renames: Mapping[str, str] = {}
        """New names of tensors whose files give them others, by those."""
        self.wanted = ""
        """Of a base, ``org/name@commit`` of what the delta was made from, where that says so."""
        self._sidecar_files: Mapping[str, str] = {}
        self._sidecar_homes: Mapping[str, Path] = {}
        self._store = store
        self._assumed = set(assumed)
        self._proving = threading.Lock()
        self._cached: dict[str, set[str]] = {}
        self._asking = threading.Lock()

    def __getitem__(self, name: str) -> LazyTensor:
        """A tensor by its name; nothing of its values is read.

        Raises: KeyError.
        """
        return LazyTensor(self, self.tensors[name].info)

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of files and of bytes within each."""
        return iter(self.tensors)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        """``Checkpoint(./llama-7b: 291 tensors in 2 files)``."""
        return f"Checkpoint({self.label}: {len(self)} tensors in {len(self.files)} files)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; whatever is read afterwards opens its file anew."""
        for file in self.files:
            self.release(file.name)

    @overload
    def iter_tensors(
        self, framework: Literal["pt"] = "pt"
    ) -> "Iterator[tuple[str, torch.Tensor]]": ...

    @overload
    def iter_tensors(
        self, framework: Literal["np"]
    ) -> "Iterator[tuple[str, np.ndarray[Any, np.dtype[Any]]]]": ...

    def iter_tensors(self, framework: Literal["pt", "np"] = "pt") -> Iterator[tuple[str, Any]]:
        """Name and values of one tensor after the other, of torch (``pt``) or NumPy (``np``), as
        the `load_weights` of inference engines takes them.

        What deltas make of a base is held against its digest before it is yielded, where the last
        of them says it; what lies in files is yielded as it is.
        Memory: one tensor at a time, and the one before it for as long as the caller has it.
        Raises: as `LazyTensor.torch` and `LazyTensor.numpy`.
        """
        for name, tensor in self.items():
            yield name, tensor.torch() if framework == "pt" else tensor.numpy()

    def safetensors_file(self, name: str) -> Path | None:
        """The local safetensors file that holds a tensor as it is, if one does."""
        file = self.tensors[name].file
        if not file.endswith(SAFETENSORS):
            return None
        path = self.directory / file
        return path if isinstance(self._store, LocalStore) and path.is_file() else None

    @property
    def known_as(self) -> str:
        """The hub id without the commit, or the directory's own name."""
        repo_id = self.origin.partition("@")[0]
        return repo_id or Path(os.path.realpath(self.directory)).name

    @property
    def is_pinned(self) -> bool:
        """Whether plans know what its values are: by a commit of the hub, or by its place in an
        object store.
        """
        return bool(self.origin)

    @property
    def rules(self) -> str:
        """Of a derived checkpoint, the digest of its rules; empty where tensors lie in files, under
        these names.
        """
        return bytes_digest(json.dumps(dict(self.renames)).encode()) if self.renames else ""

    @property
    def held_nbytes(self) -> int:
        """Bytes of memory that it holds while it is read, besides the readers' own buffers."""
        return 0

    @property
    def sequential(self) -> bool:
        """Whether reading out of order would be slow: one worker does it then."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.info.nbytes for tensor in self.tensors.values())

    @property
    def common_dtype(self) -> str:
        """The dtype that holds most of the bytes."""
        held = Counter[str]()
        for tensor in self.tensors.values():
            held[tensor.info.dtype] += tensor.info.nbytes
        return held.most_common(1)[0][0]

    @cached_property
    def config(self) -> dict[str, object]:
        """``config.json``, or an empty dict where there is none.

        Raises: JsonInvalid, FileTooLarge.
        """
        if "config.json" not in self.sidecars:
            return {}
        path = self.directory / "config.json"
        raw = self.read_sidecar("config.json")
        if len(raw) > MAX_CONFIG_NBYTES:
            raise FileTooLarge(file=path, nbytes=len(raw), limit=MAX_CONFIG_NBYTES)
        config = parse_json(raw, path, bom_allowed=True)
        if not isinstance(config, dict):
            raise JsonInvalid(file=path, reason="it is not an object")
        return config

    @property
    def vocab_size(self) -> int | None:
        """The vocabulary size by config; a multimodal config keeps it under ``text_config``."""
        text_config = self.config.get("text_config")
        nested = text_config.get("vocab_size") if isinstance(text_config, dict) else None
        size = self.config.get("vocab_size", nested)
        return size if isinstance(size, int) else None

    @property
    def embedding_rows(self) -> int | None:
        """Rows of the input embedding; None if no tensor has a known name for it."""
        return embedding_rows(tensor.info for tensor in self.tensors.values())

    def renamed(self, names: Mapping[str, str], *notes: str) -> Self:
        """The same tensors under other names, old to new; those not in `names` keep theirs, and
        those whose new name is empty are left out.
        """
        alike = copy.copy(self)
        alike.notes = (*self.notes, *notes)
        alike.renames = {**self.renames, **names}
        alike.tensors = {
            names.get(name, name): tensor.renamed(names.get(name, name))
            for name, tensor in self.tensors.items()
            if names.get(name, name)
        }
        return alike

    def read_sidecar(self, name: str) -> bytes:
        """The content of one of `sidecars`."""
        file = self._sidecar_files.get(name, name)
        return fs.read_small(self._home(name) / file, MAX_SIDECAR_NBYTES)

    def sidecar(self, name: str) -> Content:
        """One of `sidecars`, or of `large`, to be copied.

        Raises: SidecarEscapes, if it is a link to elsewhere; SourceNotFound, SourceUnreadable.
        """
        return Content.of_file(inside(self._home(name), self._sidecar_files.get(name, name)))

    def take_sidecars(
        self, files: Mapping[str, str], homes: Mapping[str, Path] | None = None
    ) -> None:
        """Let `sidecars` be these and no others: by name, the file that holds each; those that are
        not in the checkpoint's directory have `homes`.
        """
        self.sidecars = tuple(sorted(files))
        self._sidecar_files = files
        self._sidecar_homes = homes or {}

    def _home(self, name: str) -> Path:
        """The directory that holds a file beside the weights."""
        return self._sidecar_homes.get(name, self.directory)

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes of a tensor, counted from its first byte; for any thread.

        Raises: ShardTruncated, SourceUnreadable; ZipInvalid, if a torch file from the hub is not
        what its directory made of it.
        """
        tensor = self.tensors[name]
        file = self._proved(tensor.file)
        if tensor.stored.strides is None:
            file.read_into(tensor.stored.offset + start, buffer)
        else:
            read_strided(file, tensor.stored, start, buffer)

    def read_whole(self, name: str) -> bytearray:
        """All bytes of a tensor.

        Raises: as `read_into`.
        """
        buffer = bytearray(self.tensors[name].info.nbytes)
        self.read_into(name, 0, memoryview(buffer))
        return buffer

    def peek(self, file: str) -> fs.Readable:
        """A weight file for reading its header, without having all of it brought from afar."""
        return self._store.peek(file)

    def as_bytes(self, file: str) -> "Checkpoint":
        """One of its weight files as a tensor of bytes under the file's name."""
        info = TensorInfo(file, "U8", (self.peek(file).size,))
        return Checkpoint(
            label=self.label,
            directory=self.directory,
            store=self._store,
            files=tuple(each for each in self.files if each.name == file),
            tensors={file: Tensor(StoredTensor(info, 0), file)},
            sidecars=(),
            notes=(),
        )

    def is_copy(self, other: Tensor) -> bool:
        """Whether a stale tensor equals that of its name, bit for bit; both are read."""
        ours = self.tensors[other.info.name]
        if ours.info != other.info:
            return False
        for start in range(0, ours.info.nbytes, SPAN_NBYTES):
            blocks = []
            for tensor in (ours, other):
                blocks.append(bytearray(min(SPAN_NBYTES, ours.info.nbytes - start)))
                if tensor.stored.strides is None:
                    offset = tensor.stored.offset + start
                    self.peek(tensor.file).read_into(offset, memoryview(blocks[-1]))
                else:
                    file = self._store.open(tensor.file)
                    read_strided(file, tensor.stored, start, memoryview(blocks[-1]))
            if blocks[0] != blocks[1]:
                return False
        return True

    def read_small(self, name: str) -> bytes:
        """A small tensor's bytes, without having its whole file brought from afar."""
        buffer = bytearray(self.tensors[name].info.nbytes)
        self.peek_into(name, 0, memoryview(buffer))
        return bytes(buffer)

    def peek_into(self, name: str, start: int, buffer: memoryview) -> None:
        """As `read_into`, for a little of a tensor: its whole file is not brought from afar."""
        tensor = self.tensors[name]
        if tensor.stored.strides is None and tensor.file:
            self.peek(tensor.file).read_into(tensor.stored.offset + start, buffer)
        else:
            self.read_into(name, start, buffer)

    def _proved(self, name: str) -> fs.Readable:
        """An open weight file, once what was assumed of it from afar has been seen to be so."""
        file = self._store.open(name)
        if name in self._assumed:
            with self._proving:
                if name in self._assumed:
                    held = {each.place for each in self.tensors.values() if each.file == name}
                    tensors, _ = read_table(file, [])
                    if not held <= {Tensor(stored, name).place for stored in tensors}:
                        reason = "its tensors lie elsewhere than its directory lets one expect"
                        raise ZipInvalid(file=file.path, reason=reason)
                    self._assumed.discard(name)
        return file

    def files_of(self, name: str) -> frozenset[str]:
        """Names of the files that a tensor's bytes come from."""
        return frozenset({self.tensors[name].file})

    def is_cached(self, name: str) -> bool:
        """Whether the page cache held a tensor's bytes when its file was first asked about.

        Later some are there that the system read ahead.
        """
        file = self.tensors[name].file
        opened = self._store.open(file)
        with self._asking:
            if file not in self._cached:
                self._cached[file] = {
                    other
                    for other, each in self.tensors.items()
                    if each.file == file and opened.is_cached(each.stored.offset, each.info.nbytes)
                }
            return name in self._cached[file]

    def drop_cache(self, name: str) -> None:
        """Give the page cache of a tensor's bytes back to the system."""
        tensor = self.tensors[name]
        self._store.open(tensor.file).drop_cache(tensor.stored.offset, tensor.info.nbytes)

    def changed_files(self) -> list[str]:
        """Paths of weight files whose size or modification time, or header where they were touched,
        is no longer what it was when opened.

        The header was read then, and the plan rests on it; what is read later must not be the
        content of another one.
        """
        found = []
        for file in self.files:
            *same, ctime_ns = self._identity(file.name)
            changed = same != [file.size, file.mtime_ns]
            if changed or (ctime_ns != file.ctime_ns and not self._has_header(file)):
                found.append(str(self.directory / file.name))
        return found

    def _has_header(self, file: WeightFile) -> bool:
        """Whether a weight file has the header that it had when it was opened."""
        self._store.release(file.name)  # another file may lie there now, which later reads meet
        try:
            return bytes_digest(self.header(file.name)) == file.header_digest
        except WeightsmithError:
            return False

    def header(self, file: str) -> bytes:
        """What `WeightFile.header_digest` is the digest of, as it is now.

        Raises: as opening the file does.
        """
        return read_table(self._store.open(file), [])[1]

    def touched_files(self) -> list[WeightFile]:
        """The weight files of which only the time of change is another than when they were opened,
        as they are now.

        Their content may be what it was: `accept` those of which that was found.
        """
        found = []
        for file in self.files:
            *same, ctime_ns = self._identity(file.name)
            if same == [file.size, file.mtime_ns] and ctime_ns != file.ctime_ns:
                found.append(replace(file, ctime_ns=ctime_ns))
        return found

    def accept(self, file: WeightFile) -> None:
        """Accept a weight file as it is now as unchanged since it was opened."""
        self.files = tuple(file if each.name == file.name else each for each in self.files)

    def _identity(self, name: str) -> tuple[int, int, int]:
        """As the store tells it; nothing that a file can have where it is gone."""
        try:
            return self._store.identity(name)
        except OSError:
            return -1, 0, 0

    def disk_nbytes(self, file: str) -> int:
        """Bytes of disk that reading a file takes until it is released; 0 where it is here."""
        return self._store.nbytes(file)

    def is_far(self, file: str) -> bool:
        """Whether reading a little of a file is a request to another machine."""
        return self._store.is_far(file)

    def expect(self, file: str) -> None:
        """Say that a file will be read soon."""
        self._store.expect(file)

    def release(self, file: str) -> None:
        """Say that nothing more will be read from a file."""
        self._store.release(file)


def embedding_rows(infos: Iterable[TensorInfo]) -> int | None:
    """Rows of the input embedding among these tensors; None if none has a known name for it."""
    rows = (i.shape[0] for i in infos if i.name.endswith(INPUT_EMBEDDINGS) and len(i.shape) == 2)
    return next(rows, None)
