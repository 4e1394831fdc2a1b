"""Where the library reads a tokenizer.json otherwise than it looks, or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import Files, document, fault_ids, mended, read, write
from weightsmith.errors import TokenizerUnproved
from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer
from weightsmith.repair.contents import first_tokens
from weightsmith.repair.detect import diagnose
from weightsmith.repair.folder import read_folder

BYTES = VECTORS / "skew" / "class-tokenizers-backend" / "broken"
PIECES = VECTORS / "skew" / "leading-space-v5" / "broken"
"""A ``tokenizer.json`` of byte pairs; one beside a ``tokenizer.model``, as LLaMA has them."""


def edited(folder: Path, **values: Any) -> Files:
    files = read(folder)
    said = json.loads(files["tokenizer.json"]) | values
    return {**files, "tokenizer.json": document(said)}


def added(folder: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(read(folder)["tokenizer.json"])["added_tokens"]
    return listed


def template(single: list[dict[str, Any]], known: Mapping[str, Any]) -> dict[str, Any]:
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    rule = {"type": "TemplateProcessing", "single": single, "pair": pair}
    return rule | {"special_tokens": known}


TEXT: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
UNKNOWN: dict[str, Any] = {"SpecialToken": {"id": "<no such token>", "type_id": 0}}
BOS: dict[str, Any] = {"SpecialToken": {"id": "<s>", "type_id": 0}}
KNOWN = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}


# --- ids that the library gives -------------------------------------------------------------------


def test_a_token_taken_out_of_the_list_shifts_those_after_it_and_is_reported() -> None:
    listed = added(BYTES)
    files = edited(BYTES, added_tokens=listed[:2] + listed[3:])
    (fault,) = (e for e in diagnose(files).faults if e.id == "added-token-ids")
    given = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert given.token_to_id(listed[3]["content"]) == listed[3]["id"] - 1
    assert fault.verdict == "report"
    assert fault.evidence == (
        "<|end_header_id|> has the id 603 there, and is given 602, as 2 more are given others"
    )


def test_a_token_that_is_the_model_s_keeps_its_id_there_and_the_order_of_others_counts() -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    vocab = json.loads(read(BYTES)["tokenizer.json"])["model"]["vocab"]
    piece, number = next(iter(vocab.items()))
    there = {"id": number, "content": piece, **flags}
    again = {"id": 700, "content": piece, **flags}
    new = [{"id": 600 + at, "content": f"<{at}>", **flags} for at in range(2)]
    assert "added-token-ids" not in fault_ids(edited(BYTES, added_tokens=[new[0], there, new[1]]))
    for listed in ([new[1], new[0]], [again, *new], [there, again, *new]):
        assert "added-token-ids" in fault_ids(edited(BYTES, added_tokens=listed))


def test_published_folders_have_the_ids_that_they_say() -> None:
    for path in sorted((VECTORS / "skew").glob("*/broken")):
        folder = read_folder(read(path))
        assert all(folder.json_given[text] == number for text, number in folder.json_entries)


# --- what the library does not read ---------------------------------------------------------------


def without_merged_token(folder: Path) -> Files:
    model = json.loads(read(folder)["tokenizer.json"])["model"]
    model["merges"].append(["a", "no such token"])
    return edited(folder, model=model)


def test_a_tokenizer_json_that_the_library_does_not_read_fails_the_check(tmp_path: Path) -> None:
    found = check_tokenizer(write(tmp_path, without_merged_token(BYTES)))
    (fault,) = (each for each in found.faults if each.id == "tokenizer-json-refused")
    assert (fault.verdict, fault.file) == ("report", "tokenizer.json")
    assert "out of vocabulary" in fault.evidence
    with pytest.raises(TokenizerUnproved, match="out of vocabulary"):
        fix_tokenizer(tmp_path)


def test_one_by_which_the_library_panics_is_told_the_same_way(tmp_path: Path) -> None:
    found = check_tokenizer(
        write(tmp_path, edited(BYTES, post_processor=template([BOS, TEXT], {})))
    )
    assert "tokenizer-json-refused" in {fault.id for fault in found.faults}


def test_a_kind_that_is_not_known_is_not_called_broken(tmp_path: Path) -> None:
    found = check_tokenizer(write(tmp_path, edited(BYTES, version="9.0")))
    assert "tokenizer-json-refused" not in {fault.id for fault in found.faults}
    assert any("not known here (version 9.0)" in reason for reason in found.unchecked)


def test_a_panic_of_the_library_is_a_disagreement_with_the_model_and_mended() -> None:
    files = edited(PIECES, post_processor=template([BOS, TEXT, UNKNOWN], KNOWN))
    assert "tokenizer-json-stale" in fault_ids(files)
    assert "tokenizer-json-stale" not in fault_ids(mended(files))


# --- what stands before a text --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, first",
    [
        (template([BOS, TEXT], KNOWN), ["<s>"]),
        (template([TEXT, BOS], KNOWN), []),
        (template([TEXT], KNOWN), []),
        (template([BOS, BOS, TEXT, BOS], KNOWN), ["<s>", "<s>"]),
        ({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}, ["<s>"]),
        ({"type": "Sequence", "processors": [template([BOS, TEXT], KNOWN)]}, ["<s>"]),
        (None, []),
    ],
)
def test_what_a_rule_puts_before_a_text_is_what_the_library_puts_there(
    rule: dict[str, Any] | None, first: list[str]
) -> None:
    tokenizer = Tokenizer.from_str(edited(PIECES, post_processor=rule)["tokenizer.json"].decode())
    plain = tokenizer.encode("x", add_special_tokens=False).tokens
    whole = tokenizer.encode("x").tokens
    assert whole[: whole.index(plain[0])] == first_tokens(rule) == first
