"""Open a directory into a checkpoint, reading headers only."""

from collections.abc import Iterable
from pathlib import Path

from weightsmith.checkpoint.checkpoint import Checkpoint, Tensor, WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.discover import Found, discover
from weightsmith.checkpoint.layout import LayoutKind
from weightsmith.checkpoint.store import LocalStore, Store
from weightsmith.checkpoint.table import SAFETENSORS, read_table
from weightsmith.errors import NoTensors, TensorMissing, TensorTwice


def open_checkpoint(
    source: Path,
    label: str | None = None,
    *,
    kind: LayoutKind = "huggingface",
    store: Store | None = None,
    elsewhere: Iterable[str] = (),
) -> Checkpoint:
    """Open a local directory of safetensors or torch files, reading headers only.

    What is not a model is opened as what it holds: an ``adapter`` with its config as a sidecar, an
    ``exact-delta`` as the tensors of bytes that it stores.
    `store` reads the weight files, those `elsewhere` than in the directory too.
    Memory: the headers. No torch, no NumPy, and nothing from the checkpoint is run.
    Raises: SourceFault for what is missing, DamagedInput for what is broken; NoTensors for a model
    that holds none.
    """
    checkpoint = _open(source, label, discover(source, elsewhere, kind=kind), store)
    if kind == "huggingface" and not checkpoint.tensors:
        raise NoTensors(source=checkpoint.label)
    return checkpoint


def _open(source: Path, label: str | None, found: Found, store: Store | None = None) -> Checkpoint:
    store = store or LocalStore(source)
    files: list[WeightFile] = []
    holders: dict[str, Tensor] = {}
    twice: list[str] = []
    unlisted: dict[str, str] = {}
    stale: dict[str, Tensor] = {}
    notes: list[str] = []
    far = {name for name in found.weights if store.is_far(name) and not name.endswith(SAFETENSORS)}
    for name in found.weights:
        file = store.peek(name)
        identity = store.identity(name)  # before it is read: what changes it since is noticed
        tensors, header = read_table(file, notes, far=name in far)
        files.append(WeightFile(name, *identity, bytes_digest(header)))
        for stored in tensors:
            tensor_name = stored.info.name
            listed = found.index.weight_map.get(tensor_name) if found.index else name
            if listed is None:
                unlisted[tensor_name] = name
                continue
            if listed != name:
                stale[tensor_name] = Tensor(stored, name)
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
        named = ", ".join(f"{name} in {file}" for name, file in unlisted.items())
        notes.append(f"not used, as {found.index_name} does not list them: {named}")
    if stale:
        named = ", ".join(f"{name} in {copy.file}" for name, copy in stale.items())
        notes.append(f"not used, as {found.index_name} has them in other files: {named}")
    if found.left:
        notes.append("not used: " + ", ".join(found.left))
    return Checkpoint(
        label=label or str(source),
        directory=source,
        store=store,
        files=tuple(files),
        tensors=holders,
        sidecars=found.sidecars,
        notes=tuple(notes),
        large=found.large,
        unlisted=unlisted,
        stale=stale,
        assumed=far,
    )


def open_weight_file(directory: Path, name: str, label: str | None = None) -> Checkpoint:
    """Open one weight file by itself, without an index and without what lies beside it.

    Raises: SourceFault for what is missing, DamagedInput for what is broken.
    """
    found = Found(weights=(name,), index=None, index_name=None, sidecars=(), left=())
    return _open(directory, label or str(directory / name), found)
