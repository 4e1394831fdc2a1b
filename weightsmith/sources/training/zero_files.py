"""DeepSpeed's files of one step: which there are, and what each says of the model."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.store import LocalStore
from weightsmith.checkpoint.training_names import ZERO_MODEL, ZERO_PARTITIONS
from weightsmith.errors import PartitionsInvalid, RankMissing, TrainingMixed, TrainingUnknown
from weightsmith.formats.tensors import StoredTensor
from weightsmith.formats.torch_pickle import View
from weightsmith.formats.torch_zip import TorchFile
from weightsmith.sources.training.complete import require_all
from weightsmith.sources.training.placement import are_counts

_PIPELINE: Final = re.compile(r"layer_\d+.*model_states\.pt|.*expert.*_states\.pt")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ZeroFile:
    """One file, opened."""

    name: str
    """A path in the directory that is the source."""
    opened: TorchFile

    def tensor(self, name: str, view: object) -> StoredTensor:
        """Where a tensor lies.

        Raises: PartitionsInvalid, if it is none; as `TorchFile.locate`.
        """
        if not isinstance(view, View):
            raise self.invalid(f"{name} is no tensor")
        return self.opened.locate(name, view)

    def get(self, *keys: str) -> object:
        """A value in the maps that it holds; None where there is none."""
        value = self.opened.content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def map(self, key: str) -> dict[object, object]:
        """A map that it holds at the top; empty where there is none."""
        value = self.get(key)
        return value if isinstance(value, dict) else {}

    def shapes(self, value: object, what: str) -> Shapes:
        """Names and shapes.

        Raises: PartitionsInvalid.
        """
        if not isinstance(value, dict):
            raise self.invalid(f"its {what} is no map")
        for name, shape in value.items():
            if not isinstance(name, str) or not are_counts(shape):
                raise self.invalid(f"its {what} gives {name} no shape")
        return {name: tuple(shape) for name, shape in value.items()}

    def invalid(self, reason: str) -> PartitionsInvalid:
        """The error that says what is wrong with it."""
        return PartitionsInvalid(file=self.opened.path, reason=reason)


@dataclass(slots=True)
class ZeroFiles:
    """The files of one step."""

    label: str
    models: dict[int, ZeroFile] = field(default_factory=dict)
    """By process; with ZeRO-3 all of them, else one."""
    partitions: dict[int, ZeroFile] = field(default_factory=dict)
    """By process; none where they were not kept."""
    files: tuple[WeightFile, ...] = ()

    @property
    def model(self) -> ZeroFile:
        """What is known of the model; the same in all of its files."""
        return self.models[min(self.models)]

    @property
    def partitioned(self) -> bool:
        """Whether each process holds a part of each weight (ZeRO-3)."""
        return ZERO_MODEL.fullmatch(Path(self.model.name).name)[1] is not None  # type: ignore[index]

    @property
    def groups(self) -> list[Shapes]:
        """The trained weights by the optimizer's groups, in the order of their bytes."""
        groups = self.model.get("param_shapes")
        if isinstance(groups, dict):
            groups = [groups]
        if not isinstance(groups, list):
            raise self.model.invalid("it lists no weights (param_shapes)")
        return [self.model.shapes(group, "param_shapes") for group in groups]

    def mixed(self, reason: str) -> TrainingMixed:
        """The error that says what shows that files do not belong together."""
        return TrainingMixed(source=self.label, reason=reason)


def open_zero_files(directory: Path, folder: str, names: Collection[str], label: str) -> ZeroFiles:
    """Open the files of these names in a folder of the source, headers only.

    Raises: RankMissing, TrainingMixed, TrainingUnknown; what opening a torch file raises.
    """
    found = ZeroFiles(label)
    store = LocalStore(directory)
    unknown = [name for name in names if _PIPELINE.fullmatch(name)]
    files: list[WeightFile] = []
    for name in sorted(names):
        model, partition = ZERO_MODEL.fullmatch(name), ZERO_PARTITIONS.fullmatch(name)
        match = model or partition
        if match is None or name in unknown:
            continue
        if int(match[2]):
            unknown.append(name)
            continue
        path = f"{folder}/{name}" if folder else name
        opened = TorchFile(store.open(path))
        files.append(WeightFile(path, *store.identity(path), bytes_digest(opened.directory)))
        place = found.models if model else found.partitions
        place[int(match[1] or 0)] = ZeroFile(path, opened)
    if unknown:
        reason = f"{unknown[0]} is of a run with model, pipeline or expert parallelism"
        raise TrainingUnknown(source=label, reason=reason)
    if not found.models:
        missing = ["mp_rank_00_model_states.pt is missing"]
        raise RankMissing(source=label, count=1, total=1 + len(found.partitions), context=missing)
    found.files = tuple(files)
    _require_one_save(found)
    return found


def _require_one_save(found: ZeroFiles) -> None:
    """Refuse missing processes, and files that differ where those of one save are the same.

    Raises: RankMissing, TrainingMixed.
    """
    first = found.model
    world = first.get("dp_world_size")
    if type(world) is not int or world < 1:
        world = 1 + max((*found.partitions, *found.models))
    for kind in (found.models if found.partitioned else {}, found.partitions):
        numbers = set(kind)
        if not numbers:
            continue
        what = "model" if kind is found.models else "optimizer"
        sentence = f"the {what} states of process {{}} are missing"
        require_all(range(world), numbers, sentence, found.label)
        if max(numbers) >= world:
            raise found.mixed(
                f"there are {max(numbers) + 1} processes, and {world} by {first.name}"
            )
    for other in found.models.values():
        for key in ("global_steps", "dp_world_size", "param_shapes", "frozen_param_shapes"):
            if other.get(key) != first.get(key):
                seen = [f"{each.get(key)}" for each in (first, other)]
                values = f" ({seen[0]} and {seen[1]})" if key == "global_steps" else ""
                raise found.mixed(f"{first.name} and {other.name} differ in {key}{values}")
    steps = {each.name: step for each in found.partitions.values() for step in _steps(each)}
    for name, step in steps.items():
        if step != next(iter(steps.values())):
            raise found.mixed(f"{next(iter(steps))} and {name} are of different steps")


def _steps(file: ZeroFile) -> Iterator[object]:
    """How many steps the optimizer counts for its first group, if it does."""
    for key in ("base_optimizer_state", "optimizer_state_dict"):
        state = file.get("optimizer_state_dict", key, "state")
        if isinstance(state, Mapping):
            for each in list(state.values())[:1]:
                step = each.get("step") if isinstance(each, dict) else None
                if type(step) in {int, float}:
                    yield step
