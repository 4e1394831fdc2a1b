"""Detectors for config.json and generation_config.json."""

from collections.abc import Iterator
from typing import Final

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import CONFIG, GENERATION, Folder

_SAMPLING: Final[dict[str, object]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Settings that only sampling reads, with the defaults that nobody complains about.

Source: transformers 4.57, `GenerationConfig.validate`.
"""


def wrong_ids(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """BOS and EOS ids that are neither the tokenizer's nor, for EOS, those of an added token."""
    model = folder.llama
    if model is None:
        return
    for file in (CONFIG, GENERATION):
        for role in ("bos_token", "eos_token"):
            key = f"{role}_id"
            said = folder.parsed(file).get(key)
            right = folder.right_id(role)
            good = [right, model.bos_id if role == "bos_token" else model.eos_id]
            if role == "eos_token":
                good += folder.added
            if said is None or any(number in good for number in _listed(said)):
                continue
            evidence = f"{key} is {said}, the tokenizer's is {right}"
            yield Fault(known.id, file, evidence, (Edit(file, {key: right}),))


def pad_out_of_range(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A pad id that is negative, or beyond the last row."""
    rows = folder.rows
    for file in (CONFIG, GENERATION):
        said = folder.parsed(file).get("pad_token_id")
        if type(said) is int and (said < 0 or (rows is not None and said >= rows)):
            right = folder.right_id("pad_token")
            should = "null, for there is no pad token" if right is None else str(right)
            evidence = f"pad_token_id is {said}, it should be {should}"
            yield Fault(known.id, file, evidence, (Edit(file, {"pad_token_id": right}),))


def no_positions(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """``max_sequence_length`` where ``max_position_embeddings`` should be."""
    length = folder.config.get("max_sequence_length")
    said = "max_position_embeddings" in folder.config
    if folder.config.get("model_type") == "llama" and isinstance(length, int) and not said:
        evidence = f"max_position_embeddings is missing, max_sequence_length is {length}"
        edit = Edit(CONFIG, {"max_position_embeddings": length})
        yield Fault(known.id, CONFIG, evidence, (edit,))


def wrong_vocab_size(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``vocab_size`` that is not the number of embedding rows."""
    said, rows = folder.config.get("vocab_size"), folder.embedding_rows
    if isinstance(said, int) and rows is not None and said != rows:
        evidence = f"vocab_size is {said}, the embeddings have {rows} rows"
        yield Fault(known.id, CONFIG, evidence, (Edit(CONFIG, {"vocab_size": rows}),))


def idle_sampling(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Sampling settings without ``do_sample``."""
    said = folder.parsed(GENERATION)
    idle = [key for key, default in _SAMPLING.items() if said.get(key, default) != default]
    idle = [key for key in idle if said[key] is not None]
    if idle and not said.get("do_sample"):
        evidence = f"{', '.join(idle)} without do_sample"
        yield Fault(known.id, GENERATION, evidence, (Edit(GENERATION, remove=tuple(idle)),))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
