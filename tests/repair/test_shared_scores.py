"""Models as the real ones are: the pieces made of spaces alone share one score."""

import importlib
import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.support.tokenizer_folders import fault_ids, mended, old_folder, processor
from weightsmith.formats.sentencepiece_model import parse_sentencepiece_model
from weightsmith.repair.detect import diagnose
from weightsmith.repair.llama import difference_from_llama

SCHEMA: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
SPACE = "\u2581"
LOWEST = -1e9
"""What all these pieces have in Meta's file and in Mistral's."""


def rescored(model: bytes, scores: dict[str, float]) -> bytes:
    """The model with these pieces scored so; those that it lacks are put behind the others."""
    parsed = SCHEMA.ModelProto()
    parsed.ParseFromString(model)
    there = {piece.piece: piece for piece in parsed.pieces}
    for text, score in scores.items():
        piece = there.get(text) or parsed.pieces.add(piece=text)
        piece.score = score
    raw: bytes = parsed.SerializeToString()
    return raw


def built(model: bytes) -> bytes:
    """The ``tokenizer.json`` that is made of it."""
    return mended(old_folder("decapoda", model))["tokenizer.json"]


@pytest.fixture(scope="module")
def look_alike(small_model: bytes) -> bytes:
    """The small model with Meta's sixteen pieces of spaces, and Meta's one score for them."""
    return rescored(small_model, {SPACE * count: LOWEST for count in range(1, 17)})


def test_pieces_of_spaces_may_share_a_score(look_alike: bytes) -> None:
    model = parse_sentencepiece_model(look_alike)
    assert sum(piece.score == LOWEST for piece in model.pieces) == 16
    assert difference_from_llama(model) is None
    files = old_folder("decapoda", look_alike)
    assert "special-tokens-blank" in fault_ids(files)
    assert fault_ids(mended(files)) == []
    assert diagnose(mended(files)).unchecked == ()


def test_runs_of_spaces_are_cut_as_sentencepiece_cuts_them(look_alike: bytes) -> None:
    rng = random.Random(0)
    ours = Tokenizer.from_str(built(look_alike).decode())
    theirs = processor(look_alike)
    atoms = (
        *(" " * count for count in (1, 2, 3, 4, 7, 15, 16, 17, 31, 33)),
        "a",
        "the",
        "\n",
        "x1",
    )
    texts = ["".join(rng.choices(atoms, k=rng.randint(1, 12))) for _ in range(3000)]
    ids = [encoding.ids for encoding in ours.encode_batch(texts)]
    assert ids == [[1, *theirs.encode(text)] for text in texts]


@pytest.mark.parametrize("order", [1, -1], ids=["shorter-left-first", "vocabulary-order"])
def test_another_order_of_the_merges_would_err(look_alike: bytes, order: int) -> None:
    document: dict[str, Any] = json.loads(
        mended(old_folder("decapoda", look_alike))["tokenizer.json"]
    )
    merges = document["model"]["merges"]
    spaces = [each for each in merges if not each.strip(f"{SPACE} ")]
    others = [each for each in merges if each not in spaces]
    by_length = sorted(spaces, key=lambda each: (len(each), order * each.index(" ")))
    document["model"]["merges"] = [*others, *by_length]
    wrong = Tokenizer.from_str(json.dumps(document))
    theirs = processor(look_alike)
    assert any(
        wrong.encode(text).ids != [1, *theirs.encode(text)]
        for text in (f"a{' ' * count}b" for count in range(1, 60))
    )


def test_other_pieces_may_not_share_one(small_model: bytes) -> None:
    parsed = parse_sentencepiece_model(small_model)
    score = parsed.pieces[-1].score
    tied = rescored(small_model, {parsed.pieces[-2].text: score})
    said = "pieces share a score"
    assert difference_from_llama(parse_sentencepiece_model(tied)) == said
    (why,) = diagnose(old_folder("decapoda", tied)).unchecked
    assert said in why
    mixed = rescored(small_model, {SPACE: score, SPACE * 2: score})
    assert difference_from_llama(parse_sentencepiece_model(mixed)) is not None
