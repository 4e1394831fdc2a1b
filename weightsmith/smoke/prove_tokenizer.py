"""Prove a repaired tokenizer by the libraries that read it, each in a process of its own."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.contents import TEKKEN, TOKENIZER_JSON
from weightsmith.repair.faults import Fault
from weightsmith.repair.folder import Folder
from weightsmith.repair.proof import (
    Answers,
    Proof,
    common_probes,
    probes_for_readers,
    prove_by_tekken,
    prove_reader,
    prove_unharmed,
)
from weightsmith.smoke.tokenizer import ask_tekken, ask_tokenizers, ask_transformers


def prove_by_readers(
    before: Folder, after: Folder, faults: Iterable[Fault], scratch: Path
) -> Proof | None:
    """Hold what transformers makes of the repaired files against sentencepiece, where that is the
    truth, else against what tokenizers makes of ``tokenizer.json``; None where there is neither.

    `faults` are those that were mended; the files are read from copies in the directory `scratch`.
    Raises: TokenizerUnproved.
    """
    if after.llama:
        probes = probes_for_readers(after)
        answers = ask_transformers(after.files, probes, scratch / "after")
        return prove_reader(after, probes, answers)
    if TOKENIZER_JSON not in after.files:
        return None
    probes = common_probes(after)
    old, right = ask_tokenizers([each.parsed(TOKENIZER_JSON) for each in (before, after)], probes)
    if isinstance(right, str):
        raise TokenizerUnproved(reader="tokenizers", reason=right)
    if any(fault.truth for fault in faults):  # tokenizer.json itself was wrong
        _prove_by_tekken(after, probes, right)
    elif old != right:
        reason = f"{TOKENIZER_JSON} would give other ids than before"
        raise TokenizerUnproved(reader="tokenizers", reason=reason)
    try:
        then = ask_transformers(before.files, probes, scratch / "before")
    except TokenizerUnproved:
        then = None  # it could not be loaded: that may be what is mended
    now = ask_transformers(after.files, probes, scratch / "after")
    return prove_unharmed(probes, right, then, now)


def _prove_by_tekken(folder: Folder, probes: Sequence[str], answers: Answers) -> None:
    """Hold the `answers` by ``tokenizer.json`` against ``tekken.json``, where there is one: on the
    probes without added tokens, which the latter does not look for.

    Raises: TokenizerUnproved.
    """
    tekken = folder.parsed(TEKKEN)
    if not tekken.get("vocab"):
        return
    plain = [n for n, text in enumerate(probes) if not any(t in text for t in folder.json_added)]
    texts = [probes[n] for n in plain]
    ids, decoded = [answers.ids[n] for n in plain], [answers.texts[n] for n in plain]
    prove_by_tekken(texts, ask_tekken(tekken, texts), Answers(answers.reader, ids, decoded))
