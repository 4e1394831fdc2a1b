"""DeepSpeed's ZeRO 0 to 3: the model as it was trained, or its float32 weights.

With ZeRO 0 to 2 one file holds the whole model in the dtype of the training; with ZeRO 1 and 2 the
float32 weights of each group of the optimizer lie end to end, cut evenly among the processes. With
ZeRO-3 each weight by itself is, and there is no other copy.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.pieces import Gathered, Piece, Pieced
from weightsmith.checkpoint.store import LocalStore
from weightsmith.codecs.arithmetic import Block, cast
from weightsmith.engine.derived import Derived
from weightsmith.errors import PrecisionMissing
from weightsmith.formats.tensors import TORCH_NAMES, StoredTensor, TensorInfo, dtype_bits
from weightsmith.formats.torch_pickle import View
from weightsmith.plan.model import InputTensor, TensorPlan
from weightsmith.sources.training.complete import require_all
from weightsmith.sources.training.placement import are_counts
from weightsmith.sources.training.zero_files import ZeroFile, ZeroFiles, open_zero_files

Weights = Literal["16bit", "fp32"]
"""The model in the dtype that it was trained in, or the float32 weights that the optimizer kept."""

_ROLE: Final = "partitions"
_COMPARED: Final = 256
"""Weights of a process that are looked at."""
_WIDENED: Final = ("F16", "BF16")
_EXCLUDED: Final = "saved without its frozen weights, if it has any (exclude_frozen_parameters)"
_UNNAMED: Final = ("fp32_groups", "fp32_groups_flat")
"""Where the optimizer of ZeRO-0 keeps float32 weights: lists in the order of its own groups."""


def open_zero(
    directory: Path,
    folder: str,
    names: Collection[str],
    label: str,
    weights: Weights | None,
) -> Checkpoint:
    """The model in the files of one step, which lie in a `folder` of the source.

    Without a choice of `weights`: as it was trained; where that is nowhere whole, made from the
    float32 weights. Frozen weights and buffers have no others than those that they were trained
    with; buffers of 16 bits are widened beside float32 weights, as DeepSpeed's own script does.
    Raises: PrecisionMissing, RankMissing, TrainingMixed, TrainingUnknown; PartitionsInvalid,
    PartsDoNotFit; what opening a torch file raises.
    """
    return _Zero(open_zero_files(directory, folder, names, label), directory).open(weights)


@dataclass(frozen=True, slots=True)
class _Flat:
    """A stretch of weights that lie end to end in one file."""

    file: str
    stored: StoredTensor


class _Zero:
    def __init__(self, files: ZeroFiles, directory: Path) -> None:
        self._files, self._directory = files, directory
        self._model = files.model

    def open(self, weights: Weights | None) -> Checkpoint:
        whole = self._whole()
        held = {tensor.info.dtype for tensor in (whole or {}).values()}
        is_wide = not held & {*_WIDENED}
        if weights != "fp32" and whole is not None:
            if weights == "16bit" and is_wide:
                raise self._no("16-bit", "it was trained in float32", "fp32")
            return self._gathered(whole, "the model as it was trained")
        if whole is not None and is_wide and not self._files.partitions:
            return self._gathered(whole, "the model as it was trained, in float32")
        if not self._files.partitions:
            if any(self._model.get("optimizer", key) is not None for key in _UNNAMED):
                reason = "ZeRO-0 keeps them in its optimizer, by number alone"
                raise self._no("named float32", reason, "16bit")
            if not self._files.partitioned:
                raise self._no("float32", "no optimizer's states lie beside the model", "16bit")
            sentence = "the optimizer states of process {} are missing"
            require_all(range(len(self._files.models)), (), sentence, self._files.label)
        trained = dict(self._stage_3() if self._files.partitioned else self._stage_2())
        self._require_same_step(trained)
        tensors = self._in_order(trained | dict(self._frozen()) | dict(self._buffers()))
        said = "the float32 weights, put together from the optimizer's states"
        gathered = self._gathered(tensors, said)
        if weights == "fp32":
            buffers = [name for name, _ in self._buffers()]
            dtypes = {n: "F32" for n in buffers if tensors[n].info.dtype in _WIDENED}
            return _cast(gathered, dtypes, ()) if dtypes else gathered
        aliases = [n for n, source in self._shared().items() if source in trained]
        made = (*trained, *aliases)
        dtypes = {n: dtype for n in made if (dtype := self._trained_dtype(n)) != "F32"}
        words = " and ".join(sorted({TORCH_NAMES[dtype] for dtype in dtypes.values()}))
        note = f"cast to {words}, in which it was trained"
        return _cast(gathered, dtypes, (note,)) if dtypes else gathered

    # --- as it was trained

    def _whole(self) -> dict[str, Pieced] | None:
        """The model's own copy; None if it is not whole."""
        wanted = {name: shape for group in self._groups() for name, shape in group.items()}
        held = {str(n): v for n, v in self._model.map("module").items() if isinstance(v, View)}
        if self._files.partitioned or not held.keys() >= wanted.keys():
            return None
        tensors = {
            name: _single(self._model, self._model.tensor(name, view))
            for name, view in held.items()
        }
        if any(tensors[name].info.shape != shape for name, shape in wanted.items()):
            return None
        return tensors

    def _groups(self) -> list[dict[str, tuple[int, ...]]]:
        """None for ZeRO-0, which lists none."""
        return self._files.groups if self._model.get("param_shapes") is not None else []

    def _trained_dtype(self, name: str) -> str:
        """Of the model's own copy, which with ZeRO-3 has a place without elements for it."""
        view = self._model.map("module").get(name)
        if isinstance(view, View):
            return self._model.tensor(name, view).info.dtype
        for key, dtype in (("bf16", "BF16"), ("fp16", "F16")):
            if self._model.get("ds_config", key, "enabled") is True:
                return dtype
        return "F32"

    # --- float32

    def _stage_2(self) -> Iterator[tuple[str, Pieced]]:
        """Each group's weights, end to end, and cut among the processes in the order of theirs."""
        groups = self._groups()
        flats = [self._flats(rank, "single_partition_of_fp32_groups") for rank in self._ranks]
        if {len(each) for each in flats} != {len(groups)}:
            counts = sorted({len(each) for each in flats})
            raise self._files.mixed(f"{len(groups)} groups of weights, and {counts} in the states")
        paddings = self._files.partitions[0].get("optimizer_state_dict", "param_alignment_paddings")
        for number, group in enumerate(groups):
            parts = [each[number] for each in flats]
            between = paddings[number] if isinstance(paddings, list) else [0] * len(group)
            if not are_counts(between) or len(between) != len(group):
                raise self._files.partitions[0].invalid("its paddings are not those of its weights")
            needed = sum(map(math.prod, group.values())) + sum(between)
            held, align = sum(part.stored.info.numel for part in parts), 2 * len(parts)
            if not needed <= held <= -(-needed // align) * align:
                reason = f"a group has {needed} weights, and the states hold {held}"
                raise self._files.mixed(reason)
            offset = 0
            for (name, shape), padding in zip(group.items(), between, strict=True):
                yield name, _cut(TensorInfo(name, "F32", shape), parts, offset)
                offset += math.prod(shape) + padding

    def _stage_3(self) -> Iterator[tuple[str, Pieced]]:
        """Each weight cut among the processes, and each process's parts end to end."""
        flats = [self._flats(rank, "fp32_flat_groups") for rank in self._ranks]
        weights = {name: shape for group in self._groups() for name, shape in group.items()}
        needed = sum(-(-math.prod(shape) // len(flats)) for shape in weights.values())
        for rank, parts in zip(self._ranks, flats, strict=True):
            held = sum(part.stored.info.numel for part in parts)
            if held != needed:
                reason = f"process {rank} should hold {needed} weights, and holds {held}"
                raise self._files.mixed(reason)
        offset = 0
        for name, shape in weights.items():
            info = TensorInfo(name, "F32", shape)
            share = -(-info.numel // len(flats))
            pieces = [
                piece
                for number, parts in enumerate(flats)
                for piece in _stretch(parts, offset, share, number * share, info)
            ]
            yield name, Pieced.of(info, pieces)
            offset += share

    def _require_same_step(self, trained: dict[str, Pieced]) -> None:
        """The model's own copy, where there is one, is what its float32 weights round to: of each
        process's states a few weights are looked at.

        Raises: TrainingMixed.
        """
        store = LocalStore(self._directory)
        seen: set[str] = set()
        for name, tensor in trained.items():
            view = self._model.map("module").get(name)
            for piece in tensor.pieces if isinstance(view, View) else ():
                own = self._model.tensor(name, view)
                count = min(piece.stored.info.numel, _COMPARED)
                fits = own.info.shape == tensor.info.shape and own.strides is None
                if piece.file in seen or not fits or own.info.dtype not in _WIDENED:
                    continue
                seen.add(piece.file)
                wide = store.open(piece.file).read(piece.stored.offset, 4 * count)
                at = own.offset + 2 * piece.start[0]
                narrow = store.open(self._model.name).read(at, 2 * count)
                if _rounded(wide, own.info.dtype) != narrow:
                    reason = f"{name} in {piece.file} is not what {self._model.name} holds"
                    raise self._files.mixed(reason)

    def _frozen(self) -> Iterator[tuple[str, Pieced]]:
        """Weights that were not trained; with ZeRO-3 cut among the processes."""
        shapes = self._model.get("frozen_param_shapes")
        for name, shape in self._model.shapes(shapes or {}, "frozen_param_shapes").items():
            parts = [
                _Flat(file.name, file.tensor(name, file.map("frozen_param_fragments").get(name)))
                for _, file in sorted(self._files.models.items())
            ]
            info = TensorInfo(name, parts[0].stored.info.dtype, shape)
            share = -(-info.numel // len(parts))
            if not self._files.partitioned:
                yield name, _single(self._model, parts[0].stored)
                continue
            pieces = [
                piece
                for number, part in enumerate(parts)
                for piece in _stretch([part], 0, share, number * share, info)
            ]
            yield name, Pieced.of(info, pieces)

    def _buffers(self) -> Iterator[tuple[str, Pieced]]:
        """What is no weight and belongs to the model all the same; each process holds all of it."""
        names = self._model.get("buffer_names")
        for name, view in self._model.map("module").items():
            if isinstance(names, list) and name in names and isinstance(view, View):
                yield str(name), _single(self._model, self._model.tensor(str(name), view))

    @property
    def _ranks(self) -> list[int]:
        return sorted(self._files.partitions)

    def _flats(self, rank: int, key: str) -> list[_Flat]:
        """What one process holds of the float32 weights, one stretch a group or part of one.

        Raises: PartitionsInvalid.
        """
        file = self._files.partitions[rank]
        views = file.get("optimizer_state_dict", key)
        if not isinstance(views, list) or not views:
            raise file.invalid(f"it holds no float32 weights ({key})")
        flats = []
        for number, view in enumerate(views):
            stored = file.tensor(f"{key}[{number}]", view)
            if stored.info.dtype != "F32" or len(stored.info.shape) != 1 or stored.strides:
                raise file.invalid(f"{key}[{number}] is {stored.info}, no row of float32 weights")
            flats.append(_Flat(file.name, stored))
        return flats

    def _shared(self) -> dict[str, str]:
        """Second names of weights, and their first ones."""
        return {str(n): str(source) for n, source in self._model.map("shared_params").items()}

    def _in_order(self, tensors: dict[str, Pieced]) -> dict[str, Pieced]:
        """In the model's order, and weights that are another one's as well, under both names; what
        the states tell nothing of as the model has it: ZeRO-1 lists no frozen weights.
        """
        for alias, source in self._shared().items():
            if source in tensors:
                tensors[alias] = tensors[source].renamed(alias)
        for name, view in self._model.map("module").items():
            if isinstance(view, View) and name not in tensors and not self._files.partitioned:
                tensors[str(name)] = _single(self._model, self._model.tensor(str(name), view))
        order = [str(name) for name in self._model.map("module") if str(name) in tensors]
        return {name: tensors[name] for name in dict.fromkeys([*order, *tensors])}

    def _gathered(self, tensors: dict[str, Pieced], said: str) -> Gathered:
        return Gathered(
            label=self._files.label,
            directory=self._directory,
            files=self._files.files,
            tensors=tensors,
            notes=(said, _EXCLUDED) if self._excludes() else (said,),
        )

    def _excludes(self) -> bool:
        """Whether frozen weights were not saved, if there were any: ZeRO-2 and 3 list them else."""
        stage = self._model.get("ds_config", "zero_optimization", "stage")
        content = self._model.opened.content
        lists = isinstance(content, dict) and content.get("frozen_param_shapes", ()) is not None
        return stage in {2, 3} and not lists

    def _no(self, wanted: str, reason: str, other: Weights) -> PrecisionMissing:
        return PrecisionMissing(source=self._files.label, wanted=wanted, reason=reason, other=other)


def _rounded(wide: bytes, dtype: str) -> bytes:
    """Float32 weights in 16 bits."""
    made = bytearray(len(wide) // 2)
    cast(Block(memoryview(wide), "F32"), Block(memoryview(made), dtype))
    return bytes(made)


def _single(file: ZeroFile, stored: StoredTensor) -> Pieced:
    """A tensor that lies in one file as a whole."""
    return Pieced.of(stored.info, [Piece(file.name, stored, (0,) * len(stored.info.shape))])


def _cut(info: TensorInfo, parts: list[_Flat], offset: int) -> Pieced:
    """A tensor that begins `offset` elements into a row that several files hold."""
    return Pieced.of(info, _stretch(parts, offset, info.numel, 0, info))


def _stretch(
    parts: list[_Flat], offset: int, count: int, start: int, info: TensorInfo
) -> Iterator[Piece]:
    """`count` elements of a row from `offset` on, as pieces that begin at element `start` of a
    tensor; elements beyond its end are padding.
    """
    count = min(count, info.numel - start)
    for part in parts:
        held = part.stored.info.numel
        first, stop = max(offset, 0), min(offset + count, held)
        if first < stop:
            width = dtype_bits(part.stored.info.dtype) // 8
            place = replace(part.stored.info, name=info.name, shape=(stop - first,))
            stored = StoredTensor(place, part.stored.offset + first * width)
            yield Piece(part.file, stored, (start + first - offset,))
        offset -= held


def _cast(gathered: Gathered, dtypes: dict[str, str], notes: tuple[str, ...]) -> Derived:
    """The tensors in `dtypes` cast, all others as they are."""
    rules = [
        TensorPlan.cast_or_copy(
            InputTensor(_ROLE, tensor.info), dtypes.get(name, tensor.info.dtype)
        )
        for name, tensor in gathered.tensors.items()
    ]
    return Derived(
        label=gathered.label,
        directory=gathered.directory,
        rules=rules,
        inputs={_ROLE: gathered},
        sidecars={},
        notes=notes,
    )
