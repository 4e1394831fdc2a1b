"""Build ``tokenizer.json`` from a sentencepiece model, with settings that every reader reads alike.

transformers can convert too, but each version does it in another way (version 5 in two ways, by the
class's name), importing it takes seconds, and older versions cannot read what it writes. The rules
are few, and the proof compares them with sentencepiece.
"""

from collections.abc import Iterator
from typing import Any

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.errors import PackageMissing
from weightsmith.formats.sentencepiece_model import SPACE, PieceType, SentencePieceModel
from weightsmith.repair.contents import ADDED, ROLES, SETTINGS, SPECIAL_MAP, TOKENIZER_JSON
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import AddedToken, Folder
from weightsmith.repair.pipeline import surrounding, with_bos
from weightsmith.repair.proof import disagreement
from weightsmith.repair.tokens import added_entry


def stale_json(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``tokenizer.json`` that gives other ids than sentencepiece does."""
    if folder.llama and TOKENIZER_JSON in folder.files:
        try:
            where = disagreement(_with_its_bos(folder))
        except PackageMissing:
            return  # the diagnosis says that this was not checked
        if where:
            edits = tuple(plain_settings(folder))
            yield Fault(known.id, TOKENIZER_JSON, where, edits, rebuild=True)


def _with_its_bos(folder: Folder) -> Folder:
    """The folder with the BOS rule of its settings: a lost rule is a fault of its own."""
    if folder.begins_with_bos and not folder.adds_bos and folder.parsed(TOKENIZER_JSON):
        return folder.edited([Edit(TOKENIZER_JSON, {"post_processor": with_bos(folder)})])
    return folder


def plain_settings(folder: Folder) -> Iterator[Edit]:
    """Edits of the JSON files beside ``tokenizer.json``, so that all readers agree with it.

    Special tokens become plain texts, and all tokens go into ``added_tokens_decoder``, never
    ``normalized``: the objects that transformers 4.28 wrote make later versions cut ``</s>`` into
    characters. If the folder does not say whether a text begins with BOS, that stays open:
    `bos_rule_lost` asks.
    """
    said = folder.settings
    tokens = {role: folder.right_token(role) for role in ROLES}
    pad = folder.right_token("pad_token")
    there = said.get("added_tokens_decoder")
    there = there if isinstance(there, dict) else {}
    entries = {str(token.id): _described(token) for token in folder.special_tokens}
    entries = {k: there[k] if there.get(k) == entry else entry for k, entry in entries.items()}
    rules = {"add_bos_token": True} if folder.begins_with_bos else {}
    rules |= {"add_eos_token": False, "legacy": True}
    rules |= {key: said[key] for key in rules if said.get(key) is not None}
    settings = {**rules, **tokens, "added_tokens_decoder": entries}
    if pad or "pad_token" in said:
        settings["pad_token"] = pad
    yield Edit(SETTINGS, settings)
    yield Edit(SPECIAL_MAP, tokens | ({"pad_token": pad} if pad else {}))
    if folder.added:
        yield Edit(ADDED, {token.text: token.id for token in folder.added.values()})


def tokenizer_document(folder: Folder, model: SentencePieceModel) -> dict[str, Any]:
    """``tokenizer.json`` for LLaMA's kind of sentencepiece model, in the form of transformers 4.

    Merges are written as texts, which every version of tokenizers reads.
    """
    bos, eos = (folder.right_token(role) or "" for role in ("bos_token", "eos_token"))
    unknown = model.pieces[model.unk_id].text
    ids = folder.vocabulary
    first = {bos: ids[bos]} if folder.begins_with_bos else {}
    last = {eos: ids[eos]} if folder.settings.get("add_eos_token", False) else {}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": t.id, **_described(t)} for t in folder.special_tokens],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": surrounding(first, last) if first or last else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": any(piece.type is PieceType.BYTE for piece in model.pieces),
            "vocab": {piece.text: number for number, piece in enumerate(model.pieces)},
            "merges": merges(model),
        },
    }


def merges(model: SentencePieceModel) -> list[str]:
    """Every way to join two pieces into one, in the order in which tokenizers must try them.

    sentencepiece joins the neighbours whose joint piece scores highest; tokenizers joins those that
    stand first in this list. Pieces of spaces alone share a score, and then the longer left part
    comes first, then the longer right part: any other order errs on runs of spaces.
    Source: transformers 4.57, ``convert_slow_tokenizer.generate_merges``.
    """
    normal = [piece for piece in model.pieces if piece.type is PieceType.NORMAL]
    known = {piece.text for piece in normal}
    pairs = [
        (piece.score, piece.text[:cut], piece.text[cut:])
        for piece in normal
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in known and piece.text[cut:] in known
    ]
    pairs.sort(key=lambda pair: (pair[0], len(pair[1]), len(pair[2])), reverse=True)
    return [f"{left} {right}" for _, left, right in pairs]


def _described(token: AddedToken) -> dict[str, object]:
    return added_entry(
        token.text,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        special=token.special,
    )
