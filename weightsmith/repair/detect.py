"""Find known faults in a folder's files, and mend them in memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from weightsmith.catalogue.repairs import Detector, KnownRepair, load_repairs
from weightsmith.checkpoint.sidecars import VOCABULARY, matches
from weightsmith.errors import NoTokenizer
from weightsmith.repair import config, tokens
from weightsmith.repair import tokenizer_json as tokenizer
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import (
    MODEL,
    SETTINGS,
    TOKENIZER_JSON,
    Folder,
    read_folder,
)
from weightsmith.repair.llama import difference_from_llama
from weightsmith.repair.proof import Proof, prove_tokenizer_json

Look = Callable[[Folder, KnownRepair], Iterator[Fault]]


def missing_model(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A LLaMA model without any vocabulary."""
    named = SETTINGS in folder.files or "model_type" in folder.config
    if named and folder.says_llama and not any(matches(n, VOCABULARY) for n in folder.files):
        evidence = f"neither {MODEL} nor {TOKENIZER_JSON} is there"
        yield Fault(known.id, MODEL, evidence, error=NoTokenizer(source="this folder"))


def damaged_model(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``tokenizer.model`` that cannot be read."""
    if folder.model_error:
        yield Fault(known.id, MODEL, str(folder.model_error), error=folder.model_error)


DETECTORS: Final[Mapping[Detector, Look]] = {
    "misspelt": tokens.misspelt,
    "no-tokenizer-class": tokens.no_tokenizer_class,
    "blank-tokens": tokens.blank_tokens,
    "wrong-tokens": tokens.wrong_tokens,
    "special-tokens-map": tokens.special_tokens_map,
    "no-bos-rule": tokens.no_bos_rule,
    "no-legacy-rule": tokens.no_legacy_rule,
    "missing-pad-row": tokens.missing_pad_row,
    "wrong-ids": config.wrong_ids,
    "pad-out-of-range": config.pad_out_of_range,
    "no-positions": config.no_positions,
    "wrong-vocab-size": config.wrong_vocab_size,
    "idle-sampling": config.idle_sampling,
    "missing-model": missing_model,
    "damaged-model": damaged_model,
}
"""What looks at the files as they are."""

JSON_DETECTORS: Final[Mapping[Detector, Look]] = {
    "missing-json": tokenizer.missing_json,
    "stale-json": tokenizer.stale_json,
}
"""What looks at ``tokenizer.json`` once all settings that it depends on are mended."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a folder's tokenizer and config files."""

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    """Why a tokenizer was not looked at, where that is so."""
    before: Folder
    after: Folder
    """With every edit made; ``tokenizer.json`` is built only by `mend`."""

    @property
    def incurable(self) -> tuple[Fault, ...]:
        """The faults that cannot be repaired from these files."""
        return tuple(fault for fault in self.faults if fault.error)


@dataclass(frozen=True, slots=True)
class Repair:
    """New content for every file that changes, proved in memory."""

    faults: tuple[Fault, ...]
    changed: Mapping[str, bytes]
    after: Folder
    proof: Proof | None
    """That ``tokenizer.json`` agrees with ``tokenizer.model``; None where it was not built anew."""


def diagnose(files: Mapping[str, bytes], *, embedding_rows: int | None = None) -> Diagnosis:
    """Look for every known fault in a folder's files, given by name; only `READ` matter.

    Nothing is repaired that is not known to be broken: a tokenizer that is not LLaMA's, or whose
    sentencepiece model follows other rules, is left alone, and its config is looked at only for
    what no model may say.
    Raises: JsonInvalid.
    """
    before = read_folder(files, embedding_rows)
    faults = _look(before, DETECTORS)
    faults += _look(before.edited(_edits(faults)), JSON_DETECTORS)
    after = before.edited(_edits(faults))
    return Diagnosis(tuple(faults), tuple(_notes(before)), before, after)


def mend(diagnosis: Diagnosis) -> Repair:
    """Make the repairs of a diagnosis in memory, and prove them.

    Raises: the error of the first fault that cannot be repaired; TokenizerUnproved.
    """
    for fault in diagnosis.incurable:
        if fault.error:
            raise fault.error
    after, proof = diagnosis.after, None
    if after.llama and any(fault.file == TOKENIZER_JSON for fault in diagnosis.faults):
        built = tokenizer.tokenizer_document(after, after.llama)
        after = after.with_document(TOKENIZER_JSON, built)
        proof = prove_tokenizer_json(after)
    changed = {
        name: raw for name, raw in after.files.items() if diagnosis.before.files.get(name) != raw
    }
    return Repair(diagnosis.faults, changed, after, proof)


def _look(folder: Folder, detectors: Mapping[Detector, Look]) -> list[Fault]:
    return [
        fault
        for known in load_repairs()
        if known.detector in detectors
        for fault in detectors[known.detector](folder, known)
    ]


def _edits(faults: list[Fault]) -> Iterator[Edit]:
    for fault in faults:
        yield from fault.edits


def _notes(folder: Folder) -> Iterator[str]:
    if folder.model and folder.says_llama and (difference := difference_from_llama(folder.model)):
        yield f"{MODEL} is not of LLaMA's kind ({difference}): the tokenizer's files are left alone"
    elif folder.model and not folder.says_llama:
        named = folder.settings.get("tokenizer_class") or folder.config.get("model_type")
        yield f"{named} is not LLaMA's tokenizer: its files are left alone"
