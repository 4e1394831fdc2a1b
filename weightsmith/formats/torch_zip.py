"""The table of tensors in a torch file (``.bin``, ``.pth``): ranges of bytes, none of them read.

A torch file is a zip archive of stored members: ``<root>/data.pkl``, a pickle of the names with a
reference to a storage for each tensor, and ``<root>/data/<key>``, the bytes of each storage.
Several tensors may be views of one storage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from weightsmith.errors import (
    ExpandedTensor,
    LegacyTorchFile,
    PickleInvalid,
    TorchScriptArchive,
    ZipInvalid,
)
from weightsmith.formats.sniff import read_start
from weightsmith.formats.stored_zip import Member, StoredZip
from weightsmith.formats.tensors import StoredTensor, TensorInfo, dtype_bits
from weightsmith.formats.torch_pickle import (
    DTYPES,
    Storage,
    Symbol,
    View,
    Wrapped,
    record_pickle,
)
from weightsmith.fs import Readable

WRAPPERS: Final = ("state_dict", "model", "module", "model_state_dict")
"""Names under which training scripts put the map of tensors, in order of preference."""
_DEEPEST: Final = 16
"""How far maps of tensors may be nested; Megatron's are four deep."""

_LEGACY_MAGIC: Final = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that opens the first pickle of a file from before torch 1.6."""

_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_OFFSET: Final = 257
_MAX_COUNT: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TorchTable:
    """What a torch file holds."""

    tensors: tuple[StoredTensor, ...]
    """In the order of their bytes."""
    left: tuple[str, ...]
    """Names of entries that are no tensors, such as an epoch or an optimizer's state."""
    directory: bytes
    """The file's header, for digests: the pickle, and each member's place, size and checksum."""


class TorchFile:
    """An open torch file: the object that it holds, and where the bytes of its tensors lie."""

    def __init__(self, file: Readable, *, far: bool = False) -> None:
        """Read directory and pickle of `file`; nothing in it is run and no tensor is read.

        Of a file that is `far` only beginning, directory and pickle are read: where tensors lie is
        what torch's way of writing makes of the directory, and to be proved once the file is here.
        Raises: PickleForbidden, PickleInvalid, ZipInvalid, LegacyTorchFile, TorchScriptArchive,
        ShardTruncated, ShardEmpty, LfsPointer, WebPage.
        """
        _require_zip(file)
        self.path = file.path
        self._archive = archive = StoredZip(file)
        self._far = far
        root = archive.names[0].partition("/")[0] if archive.names else ""  # as torch finds it
        if f"{root}/constants.pkl" in archive.names:
            raise TorchScriptArchive(file=file.path)
        pickled = archive.read(f"{root}/data.pkl")
        if f"{root}/byteorder" in archive.names and archive.read(f"{root}/byteorder") != b"little":
            raise archive.invalid("its numbers are not little-endian")
        self._folder = f"{root}/data"
        self.content = record_pickle(pickled, file.path)
        """What `torch_pickle.record_pickle` makes of it."""
        self.directory = pickled + archive.listing
        """The file's header, for digests: the pickle, and each member's place, size, checksum."""

    def locate(self, name: str, view: View) -> StoredTensor:
        """Where the bytes of a tensor lie, once all are known to lie inside its storage.

        Raises: PickleInvalid, ZipInvalid, ExpandedTensor.
        """
        return _stored(name, view, self._find, self._folder, self.path)

    def _find(self, member: str) -> Member:
        return (self._archive.expect(member) if self._far else None) or self._archive.find(member)


def read_torch_table(file: Readable, *, far: bool = False) -> TorchTable:
    """The table of tensors of a torch file, `far` as `TorchFile` has it.

    Raises: as `TorchFile` and its `locate`.
    """
    opened = TorchFile(file, far=far)
    entries, left = find_entries(opened.content, file.path)
    views = {name: value for name, value in entries.items() if isinstance(value, View)}
    if len(views) < len(entries):
        name = next(name for name in entries if name not in views)
        raise PickleInvalid(file=file.path, reason=f"it holds a part of the tensor {name}")
    tensors = [opened.locate(name, view) for name, view in views.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.info.name))
    return TorchTable(tuple(tensors), left, opened.directory)


def _require_zip(file: Readable) -> None:
    """Tell the layouts of older torch, and what is no torch file at all, from a zip archive."""
    start = read_start(file)
    tar_magic = start[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + len(_TAR_MAGIC)]
    if _LEGACY_MAGIC in start[:64] or tar_magic == _TAR_MAGIC:
        raise LegacyTorchFile(file=file.path)
    if not start.startswith(b"PK"):
        hint = None
        if start[8:9] == b"{":
            hint = "it looks like a safetensors file: let its name end in .safetensors"
        raise ZipInvalid(file=file.path, reason="it is no zip archive", hint=hint)


def find_entries(content: object, path: Path) -> tuple[dict[str, View | Wrapped], tuple[str, ...]]:
    """The map of tensors by name, at the top or, where that holds more, under one of `WRAPPERS`;
    where neither has any, the one map of tensors there is; and what else is there.

    Maps of tensors within it are named as paths with dots, as torch names modules.
    Raises: PickleInvalid.
    """
    if not isinstance(content, dict):
        raise PickleInvalid(file=path, reason="it holds something else than a map of names")
    entries, left = content, []
    inside = {name: _count_tensors(content.get(name), 1, set()) for name in WRAPPERS}
    at_top = sum(isinstance(value, View | Wrapped) for value in content.values())
    wrapper = next((name for name, count in inside.items() if count > at_top), None)
    if wrapper is None and not at_top:
        wrapper = _only_map(content, path)
    if wrapper is not None:
        entries, left = content[wrapper], [str(key) for key in content if key != wrapper]
    found: dict[str, View | Wrapped] = {}
    seen: set[int] = set()

    def gather(held: dict[object, object], before: str, depth: int) -> None:
        if id(held) in seen or depth > _DEEPEST:  # maps of maps of maps could go on for ever
            raise PickleInvalid(file=path, reason="a map of tensors stands in two places")
        seen.add(id(held))
        for key, value in held.items():
            if isinstance(value, View | Wrapped):
                name = f"{before}{key}"
                if not _is_name(key) or not _is_name(name):
                    raise PickleInvalid(file=path, reason=f"a tensor has the name {key!r}")
                if name in found:
                    raise PickleInvalid(file=path, reason=f"two tensors have the name {name}")
                found[name] = value
            elif wrapper is not None and isinstance(value, dict) and value:
                gather(value, f"{before}{key}.", depth + 1)
            else:
                left.append(f"{before}{key}")

    gather(entries, "", 1)
    return found, tuple(left)


def _only_map(content: dict[object, object], path: Path) -> str | None:
    """The name of the only map that holds tensors; an optimizer's state holds them further in.

    Raises: PickleInvalid, if there are several.
    """
    found = [
        key
        for key, value in content.items()
        if isinstance(key, str)
        and isinstance(value, dict)
        and any(isinstance(each, View | Wrapped) for each in value.values())
    ]
    if len(found) > 1:
        raise PickleInvalid(
            file=path,
            reason=f"{len(found)} are in it: {', '.join(found)}",
            hint=f"save one alone: torch.save(torch.load(FILE, weights_only=True)[{found[0]!r}], "
            "OTHER)",
        )
    return found[0] if found else None


def _count_tensors(content: object, depth: int, seen: set[int]) -> int:
    """How many tensors are in a map and the maps within it; each map counts once."""
    if not isinstance(content, dict) or id(content) in seen or depth > _DEEPEST:
        return 0
    seen.add(id(content))
    return sum(
        isinstance(value, View | Wrapped) or _count_tensors(value, depth + 1, seen)
        for value in content.values()
    )


def _is_name(key: object) -> TypeGuard[str]:
    """Text that a safetensors header can hold."""
    if not isinstance(key, str) or key == "__metadata__":
        return False
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _stored(
    name: str, view: View, find: Callable[[str], Member], folder: str, path: Path
) -> StoredTensor:
    """Where the bytes of one tensor lie, once all of them are known to lie inside its storage."""

    def invalid(reason: str) -> PickleInvalid:
        return PickleInvalid(file=path, reason=f"tensor {name} {reason}")

    storage, shape, strides, offset = view.storage, view.shape, view.strides, view.offset
    if not isinstance(storage, Storage):
        raise invalid("has no storage")
    dtype = storage.dtype if view.dtype is None else _dtype_code(view.dtype)
    if dtype is None:
        raise invalid("has no known dtype")
    if _is_lazy(view.metadata):
        raise invalid("is stored before its conjugation or negation")
    if not _are_counts(shape) or not _are_counts(strides) or not _is_count(offset):
        raise invalid("has sizes, strides or an offset that are no counts")
    if len(shape) != len(strides):
        raise invalid(f"has {len(shape)} sizes and {len(strides)} strides")
    place = find(f"{folder}/{storage.key}")
    nbytes = storage.numel * dtype_bits(storage.dtype) // 8
    if not 0 <= nbytes <= place.nbytes:
        fault = f"has {place.nbytes} bytes where the pickle says {nbytes}"
        raise ZipInvalid(file=path, reason=f"{folder}/{storage.key} {fault}")
    info = TensorInfo(name, dtype, shape)
    if 0 in shape:  # torch lets the offset of an empty tensor lie anywhere
        return StoredTensor(info, place.offset)
    if any(size > 1 and step == 0 for size, step in zip(shape, strides, strict=True)):
        raise ExpandedTensor(file=path, name=name)
    itemsize = dtype_bits(dtype) // 8
    reach = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if offset + reach >= nbytes // itemsize:
        raise invalid("reaches beyond its storage")
    if _exceeds(shape, nbytes // itemsize):
        raise invalid("shows elements of its storage more than once")
    start = place.offset + offset * itemsize
    return StoredTensor(info, start, None if _is_contiguous(shape, strides) else strides)


def _dtype_code(dtype: object) -> str | None:
    return DTYPES.get(dtype.name) if isinstance(dtype, Symbol) else None


def _is_lazy(metadata: object) -> bool:
    """Whether torch would conjugate or negate the stored elements on their way out."""
    return isinstance(metadata, dict) and bool(metadata.get("conj") or metadata.get("neg"))


def _is_count(value: object) -> TypeGuard[int]:
    """A whole number from 0 to 2**63 - 1; a bool is none."""
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _are_counts(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(map(_is_count, value))


def _exceeds(shape: tuple[int, ...], limit: int) -> bool:
    """Whether the product is larger, found out without letting it grow beyond."""
    numel = 1
    for size in shape:
        numel *= size
        if numel > limit:
            return True
    return False


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
