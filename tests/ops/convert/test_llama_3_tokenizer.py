"""Llama 3's table of byte pairs becomes a tokenizer.json that cuts text as tiktoken does."""

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import regex

from tests.support.meta_layout import random_llama, write_meta
from weightsmith.errors import TokenizerInvalid
from weightsmith.formats.tiktoken_ranks import parse_tiktoken
from weightsmith.ops.convert import convert

CORPUS = (
    "The quick brown fox's 12345 jumps; don't they'll I'VE over   the lazy dog.\n\n\tCode: x = 3\n"
    "Über-café naïve 猫が好き привет 🙂🙂 they they the the quick quick brown over over code code "
) * 3
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PROBES = [
    "The quick brown fox's",
    " they'll, I'VE  over 1234567",
    "\n\n  x = 3;\t\r\n",
    "猫が好き привет naïve 🙂",
    "",
    "unseen zzz  words\x00",
]


def merge(parts: list[bytes], ranks: dict[bytes, int]) -> list[bytes]:
    """Byte-pair encoding as tiktoken does it: the pair whose token has the lowest rank first."""
    while True:
        pairs = [(ranks.get(a + b), at) for at, (a, b) in enumerate(itertools.pairwise(parts))]
        known = [(rank, at) for rank, at in pairs if rank is not None]
        if not known:
            return parts
        _, at = min(known)
        parts = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]


def encode(text: str, ranks: dict[bytes, int]) -> list[int]:
    ids = []
    for piece in regex.findall(PATTERN, text):
        raw = piece.encode()
        whole = ranks.get(raw)
        parts = [raw] if whole is not None else merge([bytes([b]) for b in raw], ranks)
        ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def table() -> dict[bytes, int]:
    """Ranks trained the way they come about: the most frequent pair becomes the next token."""
    ranks = {bytes([value]): value for value in range(256)}
    words = [[bytes([b]) for b in piece.encode()] for piece in regex.findall(PATTERN, CORPUS)]
    for _ in range(80):
        counts: dict[bytes, int] = {}
        for word in words:
            for a, b in itertools.pairwise(word):
                counts[a + b] = counts.get(a + b, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], pair))
        ranks[best] = len(ranks)
        words = [merge(word, ranks) for word in words]
    return ranks


def written(table: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(t) + b" %d\n" % rank for t, rank in table.items())


@pytest.fixture(scope="module")
def folder(table: dict[bytes, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama 3.1 in Meta's layout, converted."""
    home = tmp_path_factory.mktemp("llama3")
    weights = random_llama(vocab=len(table) + 256, kv_heads=2)
    params = {"rope_theta": 500000.0, "use_scaled_rope": True}
    meta = write_meta(
        home / "meta", weights, heads=8, kv_heads=2, shards=2, embedding="rows", params=params
    )
    (meta / "tokenizer.model").write_bytes(written(table))
    convert(meta, home / "out")
    return home / "out"


@pytest.mark.parametrize("text", PROBES)
def test_ids_are_those_of_tiktoken_behind_the_begin_of_text(
    text: str, folder: Path, table: dict[bytes, int]
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    assert ids == [len(table), *encode(text, table)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_transformers_reads_the_tokenizer_and_its_special_tokens(
    folder: Path, table: dict[bytes, int]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    first = len(table)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (first, first + 1)
    assert len(tokenizer) == first + 256
    turn = "<|start_header_id|>user<|end_header_id|>\n\nthe fox<|eot_id|>"
    ids = tokenizer(turn, add_special_tokens=False)["input_ids"]
    assert [id_ for id_ in ids if id_ >= first] == [first + 6, first + 7, first + 9]
    assert tokenizer.decode(ids) == turn


def test_ids_of_the_config_are_the_tokenizers(folder: Path, table: dict[bytes, int]) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    generation = json.loads((folder / "generation_config.json").read_bytes())
    first = len(table)
    assert (config["bos_token_id"], config["eos_token_id"]) == (first, first + 1)
    assert generation["eos_token_id"] == [first + 1, first + 8, first + 9]


def test_no_file_is_left_that_readers_take_for_sentencepiece(folder: Path) -> None:
    assert not (folder / "tokenizer.model").exists()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda raw: raw[: len(raw) // 2], "single bytes|rank|line"),
        (lambda raw: raw.replace(b" 7\n", b" 8\n", 1), "rank 7"),
        (lambda raw: b"AA* 0\n" + raw.split(b"\n", 1)[1], "line 1"),
        (lambda raw: raw + b"AA== 336\n", "twice"),
    ],
)
def test_a_damaged_table_is_refused(damage: Any, reason: str, table: dict[bytes, int]) -> None:
    with pytest.raises(TokenizerInvalid, match=reason):
        parse_tiktoken(damage(written(table)), "tokenizer.model")
