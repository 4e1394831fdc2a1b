"""tokenizer.json built from a sentencepiece model gives the ids that sentencepiece gives."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import (
    Files,
    changed,
    document,
    mended,
    old_folder,
    processor,
    trained,
)
from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.detect import diagnose, mend
from weightsmith.repair.folder import read_folder
from weightsmith.repair.proof import (
    Answers,
    Truth,
    probes_for_readers,
    prove_reader,
    prove_tokenizer_json,
)

SMALL = (VECTORS / "sp.model").read_bytes()
MENDED = mended(old_folder("decapoda", SMALL))
OURS = Tokenizer.from_str(MENDED["tokenizer.json"].decode())
THEIRS = processor(SMALL)
TRUTH = Truth(read_folder(MENDED))


def loaded(files: Files) -> Tokenizer:
    return Tokenizer.from_str(files["tokenizer.json"].decode())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_gets_sentencepiece_s_ids_and_comes_back(text: str) -> None:
    if not any(token in text for token in ("<unk>", "<s>", "</s>")):
        ids = OURS.encode(text).ids
        assert ids == [1, *THEIRS.encode(text)]
        assert OURS.decode(ids) == text.replace("\u2581", " ")


@given(st.text("ab 1é\u2581<s>/\n", max_size=40))
def test_texts_that_merge_in_many_ways_get_sentencepiece_s_ids(text: str) -> None:
    assert OURS.encode(text).ids == TRUTH.encode(text)


def test_ambiguous_vocabularies_are_merged_in_sentencepiece_s_order() -> None:
    rng = random.Random(0)
    for alphabet in ("ab", "ab ", "abc 01"):
        texts = ["".join(rng.choices(alphabet, k=rng.randint(3, 30))) for _ in range(300)]
        model = trained(texts, 340, character_coverage=1.0)
        ours, theirs = loaded(mended(old_folder("decapoda", model))), processor(model)
        for _ in range(500):
            text = "".join(rng.choices(alphabet, k=rng.randint(0, 40)))
            assert ours.encode(text).ids == [1, *theirs.encode(text)]


def test_what_transformers_4_31_converted_is_built_again(vectors: Path) -> None:
    expected = json.loads(
        (vectors / "meta_llama1_2shards" / "expected" / "tokenizer.json").read_bytes()
    )
    built = json.loads(MENDED["tokenizer.json"])
    merges = [each["model"].pop("merges") for each in (built, expected)]
    assert set(merges[0]) == set(merges[1])
    assert built == expected


@pytest.mark.slow
def test_a_vocabulary_of_llama_s_size_is_built(
    large_model: bytes, library_lines: list[str]
) -> None:
    repair = mend(diagnose(old_folder("decapoda", large_model)))
    assert repair.proof is not None
    ours, theirs = loaded(dict(repair.after.files)), processor(large_model)
    lines = library_lines[::40]
    assert len(lines) > 1000
    assert [e.ids for e in ours.encode_batch(lines)] == [[1, *ids] for ids in theirs.encode(lines)]


@pytest.mark.parametrize(
    "rules,first,last",
    [
        ({"add_bos_token": False}, [], []),
        ({"add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
    ],
)
def test_the_settings_rules_for_bos_and_eos_are_carried_over(
    rules: dict[str, bool], first: list[int], last: list[int]
) -> None:
    files = old_folder("no-legacy-rule", SMALL)
    files = changed(files, "tokenizer_config.json", lambda doc: doc.update(rules))
    tokenizer = loaded(mended(files))
    assert tokenizer.encode("hi").ids == [*first, *THEIRS.encode("hi"), *last]
    both = [*first, *THEIRS.encode("a"), *last, *first, *THEIRS.encode("b"), *last]
    assert tokenizer.encode("a", "b").ids == both


def test_an_added_token_s_flags_are_kept() -> None:
    token = {"content": "<tool>", "rstrip": True, "lstrip": True, "special": False}
    settings = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {"400": token}}
    files = {**old_folder("decapoda", SMALL), "tokenizer_config.json": document(settings)}
    entry = json.loads(mended(files)["tokenizer.json"])["added_tokens"][-1]
    assert entry == {"id": 400, **token, "normalized": False, "single_word": False}


# --- the proof itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda doc: doc["model"].update(merges=doc["model"]["merges"][::-1]),
        lambda doc: doc["normalizer"]["normalizers"].pop(0),
        lambda doc: doc["decoder"]["decoders"].pop(),
        lambda doc: doc["model"].update(byte_fallback=False),
        lambda doc: doc["added_tokens"][2].update(normalized=True),
        lambda doc: doc.update(post_processor=None),
    ],
)
def test_no_spoiled_tokenizer_json_is_proved(spoil: Any) -> None:
    files = changed(MENDED, "tokenizer.json", spoil)
    with pytest.raises(TokenizerUnproved):
        prove_tokenizer_json(read_folder(files))


def test_a_reader_that_gives_other_ids_or_texts_is_told_by_its_probe() -> None:
    folder = read_folder(MENDED)
    probes = probes_for_readers(folder)
    encodings = [OURS.encode(probe).ids for probe in probes]
    texts = [OURS.decode(ids) for ids in encodings]
    assert prove_reader(folder, probes, Answers("me", encodings, texts)).departures == ()
    number = probes.index("Hello world")
    wrong = [*encodings[:number], [1, 5], *encodings[number + 1 :]]
    with pytest.raises(TokenizerUnproved, match=r"me does not .* 'Hello world' gives \[5\]"):
        prove_reader(folder, probes, Answers("me", wrong, texts))
    wrong_texts = [*texts[:number], "Hello", *texts[number + 1 :]]
    with pytest.raises(TokenizerUnproved, match="comes back as 'Hello'"):
        prove_reader(folder, probes, Answers("me", encodings, wrong_texts))


def test_a_reader_may_not_depart_from_anything_but_leading_spaces() -> None:
    folder = read_folder(MENDED)
    no_space = [1, *THEIRS.encode("x")[1:]]
    with pytest.raises(TokenizerUnproved):
        prove_reader(folder, ["x"], Answers("me", [no_space], ["x"]))
