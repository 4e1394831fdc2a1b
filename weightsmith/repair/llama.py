"""Tell whether a sentencepiece model follows LLaMA's rules, which `tokenizer.json` can state."""

from collections import Counter

from weightsmith.formats.sentencepiece_model import (
    SPACE,
    ModelType,
    PieceType,
    SentencePieceModel,
)


def difference_from_llama(model: SentencePieceModel) -> str | None:
    """Why `tokenizer.json` cannot state this model's rules, in a few words; None if it can.

    LLaMA's rules are: byte-pair merges in an unambiguous order, text taken as it is, one space put
    before it. Pieces made of spaces alone may share a score, as in Meta's own file and Mistral's,
    where all of them have -1e9: `merges` orders these as transformers does. Where other pieces
    share one, sentencepiece joins the pair that stands first in the text, and a list of merges
    cannot say that.
    """
    scores = Counter(
        piece.score
        for piece in model.pieces
        if piece.type is PieceType.NORMAL and piece.text.strip(SPACE)
    )
    spaces = {
        piece.score
        for piece in model.pieces
        if piece.type is PieceType.NORMAL and not piece.text.strip(SPACE)
    }
    types = {piece.type for piece in model.pieces}
    reasons = {
        f"it is of type {model.model_type.name.lower()}": model.model_type is not ModelType.BPE,
        "it rewrites characters": bool(model.charsmap),
        "it drops spaces": model.remove_extra_whitespaces,
        "it leaves spaces as they are": not model.escape_whitespaces,
        "it puts no space before the text": not model.add_dummy_prefix,
        "it puts the space after the text": model.whitespace_as_suffix,
        "a piece holds a plain space": any(" " in piece.text for piece in model.pieces),
        "a piece is the character 0": any(piece.text == "\0" for piece in model.pieces),
        "pieces share a score": max(scores.values(), default=1) > 1,
        "spaces share a score with other pieces": bool(spaces & scores.keys()),
        "it has user-defined pieces": PieceType.USER_DEFINED in types,
        "it has unused pieces": PieceType.UNUSED in types,
        "it has no BOS or EOS": model.bos_id is None or model.eos_id is None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
