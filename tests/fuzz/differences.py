"""Where a reader of ours and a reference part: what is meant, and how often it was met.

Whoever accepts an input must make the same of it. Where only one accepts it, the one that refuses
says why; that reason stands in `MEANT`, or the difference is a defect.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["refused here", "taken here"]
"""Who refuses: weightsmith, or the reference."""


class Differs(Exception):
    """Two readers accept the same bytes, and make of them what is not the same; or only one accepts
    them, for a reason that nobody has written down.
    """


@dataclass(frozen=True, slots=True)
class Meant:
    """A difference that is meant."""

    reader: str
    """The reference: ``"sentencepiece"``."""
    side: Side
    says: str
    """A pattern for what the one that refuses says."""
    why: str


MEANT: Final = (
    Meant(
        *("safetensors", "refused here", ""),
        "the library lets pass what its format forbids: keys twice, and numbers or names that no "
        "model has",
    ),
    Meant(
        *("safetensors", "taken here", ""), "dtypes that this version of the library does not know"
    ),
    Meant(
        *("torch", "refused here", ""),
        "tensors beyond their storage, which torch makes longer; elements that lie in one place "
        "(stride 0); keys that are no names; a wrong checksum; what is no map",
    ),
    Meant(
        *("torch", "taken here", ""),
        "what no byte of a tensor depends on: the archive's version, storages in which no tensor "
        "lies, whether a tensor wants gradients",
    ),
    Meant(
        *("sentencepiece", "refused here", "cut short"),
        "the settings after the pieces are missing: the library takes its defaults, weightsmith a "
        "file that was cut short",
    ),
    Meant(
        *(
            "sentencepiece",
            "refused here",
            "is not a valid (Piece|Model)Type|wire type|field number",
        ),
        "kinds of pieces and models that nobody knows, for which protobuf takes the default; "
        "groups of fields and numbers of fields beyond 29 bits, which nobody writes",
    ),
    Meant(
        *("sentencepiece", "refused here", "same text"),
        "a special piece and another one of the same text, for which tokenizer.json has one id",
    ),
    Meant(
        *("sentencepiece", "refused here", "score of a piece"),
        "scores that are no numbers, by which nothing can be put in order: the library looks at "
        "those of some kinds of pieces only",
    ),
    Meant(
        *("sentencepiece", "refused here", "exactly one unknown piece|special pieces only"),
        "no piece for what is unknown, or none but special ones, which no trainer makes",
    ),
    Meant(
        *("sentencepiece", "taken here", "ParseFromArray"),
        "damage in parts that are not read: tests within the file, rules for putting text together",
    ),
    Meant(
        *("sentencepiece", "taken here", "[Bb]lob"),
        "the table of replaced characters, which is not read: such a model is left alone",
    ),
    Meant(
        *("sentencepiece", "taken here", "null character"),
        "a piece with the character 0, which older versions of the library take",
    ),
    Meant(
        *("sentencepiece", "refused here", "codec can't decode"),
        "texts that are not UTF-8, which the library cannot give either",
    ),
    Meant(
        *("tokenizers", "refused here", "is repeated"),
        "keys that are there twice, of which the library takes the last",
    ),
    Meant(
        *("tokenizers", "taken here", ""),
        "no more is read than repairs need: what the library refuses, fix-tokenizer tells as "
        "tokenizer-json-refused, or as a kind that is not known here",
    ),
    Meant(
        *("tiktoken", "refused here", "does not have the rank"),
        "ranks in another order than 0, 1, 2, with gaps or signs, and empty lines: nobody writes "
        "them, and a table that was cut or joined looks so",
    ),
    Meant(
        *("tiktoken", "refused here", "lacks single bytes|there twice"),
        "a table with which some text cannot be cut, or a token twice",
    ),
    Meant(
        *("tiktoken", "refused here", "line [0-9]+:"),
        "characters that are not of base64, which Python's reader leaves out",
    ),
)
"""Whoever accepts gives the same; who accepts may differ, for these reasons."""

COMPARED: Final = "compared"
"""What is counted when both readers accept."""
seen: dict[str, int] = {}
"""How often each was met, by `key`; the process of a target tells it at its end."""


def key(each: Meant) -> str:
    """What a difference is counted under."""
    return f"{each.reader}, {each.side}: {each.why}"


def count(what: str) -> None:
    """One more of these."""
    seen[what] = seen.get(what, 0) + 1


def meant(reader: str, side: Side, says: object) -> None:
    """Only one reader accepts: count the reason that the other one gives.

    Raises: Differs, where it is none that is meant.
    """
    for each in MEANT:
        if (each.reader, each.side) == (reader, side) and re.search(each.says, str(says)):
            count(key(each))
            return
    raise Differs(f"{reader}, {side}, and nobody wrote down why: {says}")
