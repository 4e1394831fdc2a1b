"""Find known faults in a folder's files, and mend them in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from weightsmith.catalogue.repairs import Detector, KnownRepair, load_repairs
from weightsmith.checkpoint.sidecars import VOCABULARY, matches
from weightsmith.errors import NoTokenizer
from weightsmith.repair import (
    config,
    skew_class,
    skew_config,
    skew_json,
    skew_llama,
    skew_tokens,
    tokens,
)
from weightsmith.repair import tokenizer_json as tokenizer
from weightsmith.repair.contents import MODEL, SETTINGS, TEKKEN, TOKENIZER_JSON, Reader
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder, read_folder
from weightsmith.repair.llama import difference_from_llama
from weightsmith.repair.proof import Proof, is_installed, prove_tokenizer_json

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


EXACT_CLASS: Final = "leading-space-v5"
"""The remark that is mended only by naming another class."""

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
    "pad-without-row": tokens.pad_without_row,
    "ids-beyond-rows": config.ids_beyond_rows,
    "no-positions": config.no_positions,
    "wrong-vocab-size": config.wrong_vocab_size,
    "idle-sampling": config.idle_sampling,
    "missing-model": missing_model,
    "damaged-model": damaged_model,
    "class-tokenizers-backend": skew_class.class_tokenizers_backend,
    "token-type-ids": skew_class.token_type_ids,
    "llama-class-bytelevel": skew_class.llama_class_bytelevel,
    "class-overrules-json": skew_class.class_overrules_json,
    "class-forced": skew_class.class_forced,
    "padding-side": skew_class.padding_side,
    "legacy-dropped": skew_llama.legacy_dropped,
    "prefix-space-forces-slow": skew_llama.prefix_space_forces_slow,
    "extra-tokens-list": skew_tokens.extra_tokens_list,
    "extra-tokens-empty": skew_tokens.extra_tokens_empty,
    "stale-special-map": skew_tokens.stale_special_map,
    "stale-added-tokens": skew_tokens.stale_added_tokens,
    "template-only-in-file": skew_tokens.template_only_in_file,
    "template-twice": skew_tokens.template_twice,
    "cleanup-spaces": skew_tokens.cleanup_spaces,
    "auto-map-leftover": skew_tokens.auto_map_leftover,
    "bert-case": skew_json.bert_case,
    "prefix-space": skew_json.prefix_space,
    "added-token-ids": skew_json.added_token_ids,
    "json-refused": skew_json.json_refused,
    "mistral-regex": skew_json.mistral_regex,
    "vocab-merges-stale": skew_json.vocab_merges_stale,
    "merges-pairs": skew_json.merges_pairs,
    "vocab-files-only": skew_json.vocab_files_only,
    "rope-parameters-only": skew_config.rope_parameters_only,
    "rope-nested": skew_config.rope_nested,
    "rope-twice": skew_config.rope_twice,
    "dtype-only": skew_config.dtype_only,
}
"""Detectors that look at the files as they are."""

LATE_DETECTORS: Final[Mapping[Detector, Look]] = {
    "model-only-llama": skew_llama.model_only_llama,
    "model-only-mistral": skew_llama.model_only_mistral,
    "v5-save-beside-model": skew_llama.v5_save_beside_model,
    "bos-rule-lost": skew_llama.bos_rule_lost,
    "stale-json": tokenizer.stale_json,
    "leading-space-v5": skew_class.leading_space_v5,
    "eos-lacks-turn-end": skew_tokens.eos_lacks_turn_end,
}
"""Detectors that run once the settings that they depend on are mended."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a folder's tokenizer and config files."""

    faults: tuple[Fault, ...]
    """Faults that are mended, and those only reported; `Fault.verdict` says which."""
    notes: tuple[str, ...]
    """What else a user should know, the reasons of `unchecked` included; sentences."""
    before: Folder
    after: Folder
    """The folder with every edit made; ``tokenizer.json`` is built only by `mend`."""
    remarks: tuple[Fault, ...] = ()
    """Findings that are left as they are unless the user asks."""
    unchecked: tuple[str, ...] = ()
    """Why the tokenizer itself was not checked; empty if it was."""

    @property
    def mendable(self) -> tuple[Fault, ...]:
        """The faults that a repair mends."""
        return tuple(fault for fault in self.faults if fault.verdict == "fault" and not fault.error)

    @property
    def of_another_model(self) -> bool:
        """Whether the tokenizer, or the ids that the configs name, are another model's."""
        told = {fault.id for fault in self.faults if fault.verdict == "report"}
        return bool(told & {"vocab-size-small", "token-ids-wrong"})

    @property
    def incurable(self) -> tuple[Fault, ...]:
        """Faults that make any repair impossible: there is no sound vocabulary."""
        return tuple(fault for fault in self.faults if fault.error)


@dataclass(frozen=True, slots=True)
class Repair:
    """New content for every file that changes."""

    faults: tuple[Fault, ...]
    """Those that were mended."""
    changed: Mapping[str, bytes]
    deleted: tuple[str, ...]
    """Names of files that are removed."""
    after: Folder
    proof: Proof | None
    """That ``tokenizer.json`` agrees with ``tokenizer.model``; None where it was not built anew."""


def diagnose(
    files: Mapping[str, bytes],
    *,
    embedding_rows: int | None = None,
    names: Iterable[str] = (),
    reader: Reader | None = None,
    exact_class: bool = False,
    refused: str | None = None,
) -> Diagnosis:
    """Look for every known fault in a folder's files, given by name; only `READ` matter.

    `names` are the folder's other files. With a `reader`, only what that one misreads counts, and
    is mended even where families publish it so. With `exact_class`, Llama's class is replaced by
    the one that reads all of ``tokenizer.json``. `refused` is why the tokenizers library, if it was
    asked, does not read that file.
    Nothing is repaired that is not known to be broken: a tokenizer that is not LLaMA's, or whose
    sentencepiece model follows other rules, keeps its ids.
    Raises: JsonInvalid.
    """
    before = read_folder(files, embedding_rows, names)
    before = replace(before, reader=reader, exact_class=exact_class, refused=refused)
    found = _judged(_look(before, DETECTORS), before)
    found += _judged(_look(before.edited(_edits(found)), LATE_DETECTORS), before)
    faults = tuple(fault for fault in found if fault.verdict != "remark")
    remarks = tuple(fault for fault in found if fault.verdict == "remark")
    unchecked = tuple(_unchecked(before))
    after = before.edited(_edits(faults))
    return Diagnosis(faults, unchecked, before, after, remarks, unchecked)


def _judged(found: Iterable[Fault], folder: Folder) -> list[Fault]:
    """The findings that count for the chosen reader, or for all, each with its verdict."""
    known = {repair.id: repair for repair in load_repairs()}
    judged = []
    for fault in found:
        misread_by, meant = known[fault.id].misread_by, folder.reader
        if meant and misread_by and meant not in misread_by:
            continue
        asked = meant in misread_by or (folder.exact_class and fault.id == EXACT_CLASS)
        if fault.verdict == "remark" and fault.edits and asked:
            judged.append(replace(fault, verdict="fault"))
        else:
            judged.append(fault)
    return judged


def mend(diagnosis: Diagnosis) -> Repair:
    """Make the repairs of a diagnosis in memory; a ``tokenizer.json`` that is built anew is proved.

    Raises: the error of the first fault that cannot be repaired; TokenizerUnproved.
    """
    for fault in diagnosis.incurable:
        if fault.error:
            raise fault.error
    after, proof = diagnosis.after, None
    if after.sound and any(fault.rebuild for fault in diagnosis.mendable):
        built = tokenizer.tokenizer_document(after, after.sound)
        after = after.with_document(TOKENIZER_JSON, built)
        proof = prove_tokenizer_json(after)
    changed = {
        name: raw for name, raw in after.files.items() if diagnosis.before.files.get(name) != raw
    }
    deleted = tuple(name for name in diagnosis.before.files if name not in after.files)
    return Repair(diagnosis.mendable, changed, deleted, after, proof)


def _look(folder: Folder, detectors: Mapping[Detector, Look]) -> list[Fault]:
    return [
        fault
        for known in load_repairs()
        if known.detector in detectors
        for fault in detectors[known.detector](folder, known)
    ]


def _edits(faults: Iterable[Fault]) -> Iterator[Edit]:
    for fault in faults:
        if fault.verdict == "fault":
            yield from fault.edits


def _unchecked(folder: Folder) -> Iterator[str]:
    """Why the tokenizer was not checked, a sentence for each reason."""
    if folder.model_error:
        return
    if folder.llama:
        lacking = [name for name in ("sentencepiece", "tokenizers") if not is_installed(name)]
        if lacking and TOKENIZER_JSON in folder.files:
            needed = " and ".join(lacking)
            yield f"{TOKENIZER_JSON} is not held against {MODEL}: that needs {needed}"
        return
    if TOKENIZER_JSON in folder.files and (kind := folder.unknown_kind):
        yield f"{TOKENIZER_JSON} is of a kind that is not known here ({kind}): a newer library's?"
    if folder.model and folder.says_llama:
        difference = difference_from_llama(folder.model)
        yield f"{MODEL} is not of LLaMA's kind ({difference}): the tokenizer's files are left alone"
    elif TOKENIZER_JSON in folder.files:
        return
    elif folder.model:
        named = folder.settings.get("tokenizer_class") or folder.config.get("model_type")
        yield f"{named} is not LLaMA's tokenizer: its files are left alone"
    elif MODEL in folder.files:
        yield f"{MODEL} is a table of tiktoken's, and there is no {TOKENIZER_JSON}"
    elif TEKKEN in folder.files:
        yield f"{TEKKEN} is Mistral's own, and there is no {TOKENIZER_JSON}"
    else:
        yield f"there is no {TOKENIZER_JSON}, and no {MODEL}"
