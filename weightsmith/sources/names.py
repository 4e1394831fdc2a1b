"""Give tensors the model's own names, without the words that training puts before or into them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final, TypeVar

from weightsmith.catalogue.architectures import expected_tensors
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import NamesAmbiguous, WeightsmithError
from weightsmith.units import counted

C = TypeVar("C", bound=Checkpoint)

_INNER: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Words between dots that no model uses: torch.compile's, FSDP1's, checkpointed activations'."""
_PARALLEL: Final = "module"
"""What DataParallel and DeepSpeed put there; a few models have modules of that name."""
_ADAPTED: Final = "base_model"
"""What peft puts before names of adapters, which belong there."""
_LIGHTNING: Final = "model."
"""Under what name training scripts with Lightning keep the model; models use it too."""
_DOUBLED: Final = ("model.model.", "model.lm_head.", "model.transformer.", "model.gpt_neox.")
"""Names that no model has, but one within another's ``model.``"""


def with_own_names(checkpoint: C, wanted: Collection[str] | None = None) -> C:
    """The checkpoint, its tensors under the model's own names, and a note on what was left out.

    `wanted` are names that the model has, by its base; without them its config tells, where the
    architecture is known. Where neither does, only words go that no model uses, and what every
    name begins with. Where both do, so does a word before the model's names alone, as trl has one
    beside its value head: what else there is keeps its name, and is said.
    Raises: NamesAmbiguous, if two tensors would share a name.
    """
    if wanted is None:
        wanted = _by_config(checkpoint)
    names = list(checkpoint.tensors)
    candidates = list(_candidates(names, wanted))
    wrapped = _wrapped(candidates, wanted) if wanted is not None else None
    best = wrapped or max(candidates, key=lambda found: _fit(found, wanted))
    renames = {old: new for old, new in zip(names, best.values(), strict=True) if old != new}
    if not renames:
        return checkpoint
    words = " and ".join(f"{word}." for word in _gone(renames))
    taken: dict[str, str] = {}
    twice = []
    for old, new in zip(names, best.values(), strict=True):
        if new in taken:
            twice.append(f"{old} and {taken[new]} would both be {new}")
        taken[new] = old
    if twice:
        raise NamesAmbiguous(
            source=checkpoint.label, count=len(twice), how=f"without {words}", context=twice
        )
    note = f"{counted(len(renames), 'name')} read without {words}, which training put there"
    if wrapped is not None:
        others = [name for name in wrapped.values() if name not in {*(wanted or ())}]
        note = f"{note}; not of its model, and kept as they are: {', '.join(others)}"
    return checkpoint.renamed(renames, note)


def _by_config(checkpoint: Checkpoint) -> Collection[str] | None:
    try:
        known = expected_tensors(checkpoint.config)
    except (ValueError, WeightsmithError):  # damage is reported by what needs the config
        return None
    return known.shapes if known is not None else None


def _candidates(
    names: Collection[str], wanted: Collection[str] | None
) -> Iterator[Mapping[str, str]]:
    """Ways to name the tensors, what changes least first."""
    plain = {name: _without(name, _INNER) for name in names}
    parallel = plain
    if wanted is not None:
        parallel = {name: _without(new, (_PARALLEL,)) for name, new in plain.items()}
    elif all(name.startswith(f"{_PARALLEL}.") for name in plain.values()):
        parallel = {name: new.removeprefix(f"{_PARALLEL}.") for name, new in plain.items()}
    for found in (plain, parallel):
        yield found
        doubled = all(name.startswith(_LIGHTNING) for name in found.values()) and any(
            name.startswith(_DOUBLED) for name in found.values()
        )
        if wanted is not None or doubled:
            yield {name: new.removeprefix(_LIGHTNING) for name, new in found.items()}
    while wanted is not None and (word := _shared(parallel.values())):
        parallel = {name: new.removeprefix(f"{word}.") for name, new in parallel.items()}
        yield parallel


def _wrapped(
    candidates: Collection[Mapping[str, str]], wanted: Collection[str]
) -> Mapping[str, str] | None:
    """The names without a word that stands before the model's alone, where they then fit better
    than any candidate, and where only one word does that: there may be two models.
    """
    most = max(_fit(each, wanted) for each in candidates)
    for names in candidates:
        words = {name.partition(".")[0] for name in names.values() if "." in name}
        found = [
            {old: new.removeprefix(f"{word}.") for old, new in names.items()} for word in words
        ]
        best = max([_fit(each, wanted) for each in found], default=0)
        if best > most:
            fitting = [each for each in found if _fit(each, wanted) == best]
            return fitting[0] if len(fitting) == 1 else None
    return None


def _shared(names: Collection[str]) -> str:
    """The word with which all names begin, as a training script's own class gives it; or none."""
    words = {name.partition(".")[0] for name in names if "." in name}
    alike = len(words) == 1 and all("." in name for name in names) and _ADAPTED not in words
    return words.pop() if alike else ""


def _fit(names: Mapping[str, str], wanted: Collection[str] | None) -> int:
    """How many names are the model's own; without knowing any, how short they are."""
    if wanted is None:
        return -sum(map(len, names.values()))
    return sum(name in wanted for name in names.values())


def _without(name: str, words: Collection[str]) -> str:
    parts = name.split(".")
    if not any(part in words for part in parts):
        return name
    return ".".join(part for part in parts if part not in words) or name


def _gone(renames: Mapping[str, str]) -> list[str]:
    """The words that were left out, in the order in which they come up."""
    found: dict[str, None] = {}
    for old, new in renames.items():
        rest = new.split(".")
        for part in old.split("."):
            if rest and part == rest[0]:
                rest = rest[1:]
            else:
                found[part] = None
    return list(found)
