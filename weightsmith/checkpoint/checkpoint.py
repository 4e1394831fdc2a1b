"""Open a model directory into tensors by name, reading headers only."""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.discover import Found, discover, discover_adapter, discover_delta
from weightsmith.checkpoint.store import LocalStore, Store
from weightsmith.checkpoint.strided import read_strided
from weightsmith.errors import (
    FileTooLarge,
    JsonInvalid,
    NoTensors,
    TensorMissing,
    TensorTwice,
    ZipInvalid,
    shown,
)
from weightsmith.formats import safetensors_header, torch_zip
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import StoredTensor, TensorInfo

MAX_SIDECAR_NBYTES: Final = 100_000_000
"""Largest sidecar that is read."""
MAX_CONFIG_NBYTES: Final = 10_000_000
"""Largest config that is parsed: what parsing makes of it may be fifty times as large."""
_SAFE: Final = ".safetensors"
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


class Checkpoint:
    """An opened source: tensors by name, each read lazily as a range of bytes."""

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
        assumed: Iterable[str] = (),
    ) -> None:
        """Use `open_checkpoint`."""
        self.label = label
        """The source as the user wrote it."""
        self.directory = directory
        self.files = files
        self.tensors = tensors
        """By name, in the order of files and of bytes within each."""
        self.sidecars = sidecars
        """Names of the files beside the weights that belong to the model."""
        self.notes = notes
        """What was taken or left and why, sentences for the plan."""
        self.origin = ""
        """``org/name@commit`` of a source on the hub; empty for a directory."""
        self._sidecar_files: Mapping[str, str] = {}
        self._store = store
        self._assumed = set(assumed)
        self._proving = threading.Lock()

    @property
    def known_as(self) -> str:
        """The hub id without the commit, or the directory's own name."""
        repo_id = self.origin.partition("@")[0]
        return repo_id or Path(os.path.realpath(self.directory)).name

    @property
    def rules(self) -> str:
        """Of a derived checkpoint, the digest of its rules; empty where tensors lie in files."""
        return ""

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
        """Rows of the input embedding, or None where it has no name that is known."""
        return embedding_rows(tensor.info for tensor in self.tensors.values())

    def read_sidecar(self, name: str) -> bytes:
        """The content of one of `sidecars`."""
        file = self._sidecar_files.get(name, name)
        return fs.read_small(self.directory / file, MAX_SIDECAR_NBYTES)

    def take_sidecars(self, files: Mapping[str, str]) -> None:
        """Let `sidecars` be these and no others: by name, the file that holds each."""
        self.sidecars = tuple(sorted(files))
        self._sidecar_files = files

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

    def read_small(self, name: str) -> bytes:
        """A small tensor's bytes, without having its whole file brought from afar."""
        tensor = self.tensors[name]
        buffer = bytearray(tensor.info.nbytes)
        if tensor.stored.strides is None and tensor.file:
            file = self._store.peek(tensor.file)
            file.read_into(tensor.stored.offset, memoryview(buffer))
        else:
            self.read_into(name, 0, memoryview(buffer))
        return bytes(buffer)

    def _proved(self, name: str) -> fs.PositionedFile:
        """An open weight file, once what was assumed of it from afar has been seen to be so."""
        file = self._store.open(name)
        if name in self._assumed:
            with self._proving:
                if name in self._assumed:
                    held = {each.place for each in self.tensors.values() if each.file == name}
                    tensors, _ = _read_table(file, [])
                    if not held <= {Tensor(stored, name).place for stored in tensors}:
                        reason = "its tensors lie elsewhere than its directory lets one expect"
                        raise ZipInvalid(file=file.path, reason=reason)
                    self._assumed.discard(name)
        return file

    def files_of(self, name: str) -> frozenset[str]:
        """Names of the files that a tensor's bytes come from."""
        return frozenset({self.tensors[name].file})

    def drop_cache(self, name: str) -> None:
        """Give the page cache of a tensor's bytes back to the system."""
        tensor = self.tensors[name]
        self._store.open(tensor.file).drop_cache(tensor.stored.offset, tensor.info.nbytes)

    def changed_files(self) -> list[str]:
        """Paths of weight files whose size or modification time is no longer what it was when
        opened.
        """
        changed = []
        for file in self.files:
            try:
                now = self._store.identity(file.name)
            except OSError:
                now = None
            if now != (file.size, file.mtime_ns):
                changed.append(str(self.directory / file.name))
        return changed

    def disk_nbytes(self, file: str) -> int:
        """Bytes of disk that reading a file takes until it is released; 0 where it is here."""
        return self._store.nbytes(file)

    def expect(self, file: str) -> None:
        """Say that a file will be read soon."""
        self._store.expect(file)

    def release(self, file: str) -> None:
        """Say that nothing more will be read from a file."""
        self._store.release(file)


def embedding_rows(infos: Iterable[TensorInfo]) -> int | None:
    """Rows of the input embedding among these tensors, or None where none has a known name."""
    rows = (i.shape[0] for i in infos if i.name.endswith(INPUT_EMBEDDINGS) and len(i.shape) == 2)
    return next(rows, None)


def open_checkpoint(
    source: Path,
    label: str | None = None,
    *,
    store: Store | None = None,
    elsewhere: Iterable[str] = (),
) -> Checkpoint:
    """Open a local directory of safetensors or torch files, reading headers only.

    `store` reads the weight files, those `elsewhere` than in the directory too.
    Memory: the headers. No torch, no NumPy, and nothing from the checkpoint is run.
    Raises: SourceFault for what is missing, DamagedInput for what is broken or holds no tensor.
    """
    checkpoint = _open(source, label, discover(source, elsewhere), store)
    if not checkpoint.tensors:
        raise NoTensors(source=checkpoint.label)
    return checkpoint


def open_adapter(
    source: Path,
    label: str | None = None,
    *,
    store: Store | None = None,
    elsewhere: Iterable[str] = (),
) -> Checkpoint:
    """Open a local directory that holds a LoRA adapter; its config is one of its sidecars.

    `store` and `elsewhere` are those of `open_checkpoint`.
    Raises: NoAdapter, AdapterNotMergeable; DamagedInput for what is broken.
    """
    return _open(source, label, discover_adapter(source, elsewhere), store)


def open_delta(
    source: Path,
    label: str | None = None,
    *,
    store: Store | None = None,
    elsewhere: Iterable[str] = (),
) -> Checkpoint:
    """Open a local directory that holds an exact delta: its payloads, as tensors of bytes.

    `store` and `elsewhere` are those of `open_checkpoint`.
    Raises: SourceFault for what is missing, DamagedInput for what is broken.
    """
    return _open(source, label, discover_delta(source, elsewhere), store)


def _open(source: Path, label: str | None, found: Found, store: Store | None = None) -> Checkpoint:
    store = store or LocalStore(source)
    files: list[WeightFile] = []
    holders: dict[str, Tensor] = {}
    twice: list[str] = []
    unlisted = 0
    notes: list[str] = []
    far = {name for name in found.weights if store.nbytes(name) and not name.endswith(_SAFE)}
    for name in found.weights:
        tensors, identity = _read_table(store.peek(name), notes, far=name in far)
        files.append(WeightFile(name, *store.identity(name), bytes_digest(identity)))
        for stored in tensors:
            tensor_name = stored.info.name
            if found.index is not None and found.index.weight_map.get(tensor_name) != name:
                unlisted += tensor_name not in found.index.weight_map
                continue
            if tensor_name in holders:
                twice.append(f"{tensor_name}: {holders[tensor_name].file} and {name}")
            holders[tensor_name] = Tensor(stored, name)
    if twice:
        raise TensorTwice(count=len(twice), source=source, context=twice)
    if found.index is not None:
        missing = [name for name in found.index.weight_map if name not in holders]
        if missing:
            index_path = source / str(found.index_name)
            raise TensorMissing(index=index_path, count=len(missing), context=missing)
    if unlisted:
        notes.append(f"{unlisted} tensor(s) that the index does not list are left")
    if found.left:
        notes.append("left: " + ", ".join(shown(found.left)))
    return Checkpoint(
        label=label or str(source),
        directory=source,
        store=store,
        files=tuple(files),
        tensors=holders,
        sidecars=found.sidecars,
        notes=tuple(notes),
        assumed=far,
    )


def open_weight_file(directory: Path, name: str) -> Checkpoint:
    """Open one weight file by itself, without an index and without what lies beside it.

    Raises: SourceFault for what is missing, DamagedInput for what is broken.
    """
    found = Found(weights=(name,), index=None, index_name=None, sidecars=(), left=())
    return _open(directory, str(directory / name), found)


def _read_table(
    file: fs.Readable, notes: list[str], *, far: bool = False
) -> tuple[tuple[StoredTensor, ...], bytes]:
    """The tensors of one file and the bytes that identify its table; `far` as torch_zip has it."""
    if file.path.suffix == _SAFE:
        header, raw = safetensors_header.read_header(file)
        return header.tensors, raw
    table = torch_zip.read_table(file, far=far)
    if table.left:
        notes.append(f"{file.path.name}: not tensors, left: " + ", ".join(shown(table.left)))
    return table.tensors, table.directory
