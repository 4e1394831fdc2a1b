"""Detectors for config.json and generation_config.json."""

from collections.abc import Iterator
from typing import Final, TypeGuard

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import CONFIG, GENERATION, SETTINGS, as_list
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder

_SAMPLING: Final[dict[str, object]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Settings that only sampling reads, with their defaults: a default is no fault.

Source: transformers 4.57, `GenerationConfig.validate`.
"""


def wrong_ids(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """BOS and EOS ids that are neither the tokenizer's nor, for EOS, those of an added token.

    An id with a row in the model but no token in the tokenizer belongs to another tokenizer: these
    files do not tell which of the two is wrong, so it is only reported.
    """
    if folder.tokens_lack_rows:
        return  # the tokenizer is another model's; `ids_beyond_rows` reports it
    size = max(folder.tokens.values(), default=0) + 1
    for file in (CONFIG, GENERATION):
        for role in ("bos_token", "eos_token"):
            key = f"{role}_id"
            said, right = folder.parsed(file).get(key), folder.right_id(role)
            if said is None or right is None or _may_mean(folder, role, as_list(said)):
                continue
            evidence = f"{key} is {said}, the tokenizer's is {right}"
            beyond = [number for number in as_list(said) if _is_id(number) and number >= size]
            if beyond and folder.rows is not None and max(beyond) < folder.rows:
                evidence += f": it has {size} tokens, the model {folder.rows} rows"
                yield Fault(known.id, file, evidence, verdict="report")
            else:
                yield Fault(known.id, file, evidence, (Edit(file, {key: right}),))


def _may_mean(folder: Folder, role: str, said: list[object]) -> bool:
    """Whether one of the ids that a config names may be right for a role.

    Families other than LLaMA name other special tokens than their tokenizer does, on purpose. A BOS
    id does not matter if no text begins with BOS.
    """
    if folder.right_id(role) in said:
        return True
    if folder.llama:
        model = folder.llama
        good = [model.bos_id] if role == "bos_token" else [model.eos_id, *folder.added]
        return any(number in good for number in said)
    if any(_is_id(number) and number in folder.added for number in said):
        return True
    return role == "bos_token" and not folder.adds_bos


def ids_beyond_rows(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Tokens whose ids lie beyond the model's last row."""
    rows = folder.rows
    beyond = folder.beyond_rows
    if rows is None or not beyond:
        return
    texts = sorted(beyond, key=lambda text: beyond[text])
    named = ", ".join(f"{text} ({beyond[text]})" for text in texts[:3])
    more = f", and {len(texts) - 3} more" if len(texts) > 3 else ""
    evidence = f"the model has {rows} rows, the tokenizer more: {named}{more}"
    file = CONFIG if CONFIG in folder.files else SETTINGS
    yield Fault(known.id, file, evidence, verdict=known.verdict)


def pad_out_of_range(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A pad id that is negative, or that lies beyond the last row and is no token's id."""
    rows = folder.rows
    for file in (CONFIG, GENERATION):
        said = folder.parsed(file).get("pad_token_id")
        if not _is_id(said) or (said >= 0 and (rows is None or said < rows)):
            continue
        if said in folder.beyond_rows.values():
            continue  # the tokenizer has this id too: it is the rows that are missing
        right = folder.right_id("pad_token")
        if right is not None and rows is not None and right >= rows:
            right = None
        should = "null, since there is no pad token" if right is None else str(right)
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
    """Sampling settings though ``do_sample`` is not set."""
    said = folder.parsed(GENERATION)
    idle = [key for key, default in _SAMPLING.items() if said.get(key, default) != default]
    idle = [key for key in idle if said[key] is not None]
    if idle and not said.get("do_sample"):
        evidence = f"{', '.join(idle)} without do_sample"
        yield Fault(known.id, GENERATION, evidence, (Edit(GENERATION, remove=tuple(idle)),))


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int
