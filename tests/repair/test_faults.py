"""Each known fault is found, mended, and not found again; what is in order is left alone."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pace import examples
from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import (
    GOOD_TOKENS,
    OLD_TABLE,
    Files,
    changed,
    document,
    fault_ids,
    mended,
    old_folder,
    read,
    trained,
)
from weightsmith.catalogue.repairs import Detector, load_repairs
from weightsmith.errors import (
    JsonInvalid,
    LfsPointer,
    NoTokenizer,
    TokenizerTruncated,
    WeightsmithError,
)
from weightsmith.repair.contents import READ
from weightsmith.repair.detect import DETECTORS, LATE_DETECTORS, diagnose, mend

SETTINGS, SPECIAL_MAP, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
CONFIG, GENERATION = "config.json", "generation_config.json"
ALL_OLD_FAULTS = [
    "architecture-misspelt",
    "token-ids-wrong",
    "token-ids-wrong",
    "token-ids-wrong",
    "token-ids-wrong",
    "pad-id-out-of-range",
    "max-position-embeddings-missing",
    "tokenizer-class-misspelt",
    "add-bos-token-missing",
    "legacy-missing",
    "special-tokens-blank",
    "model-only-llama",
]


def said(files: Files, name: str) -> Any:
    return json.loads(files[name])


def setting(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update(values)


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: [document.pop(key, None) for key in keys]


def test_every_fault_of_the_catalogue_is_looked_for_and_has_references() -> None:
    repairs = load_repairs()
    assert {*DETECTORS, *LATE_DETECTORS} == set(get_args(Detector))
    assert {repair.detector for repair in repairs} == set(get_args(Detector))
    assert all(repair.references for repair in repairs)


def test_a_folder_broken_the_decapoda_way_has_all_its_faults_found(broken: Files) -> None:
    assert fault_ids(broken) == ALL_OLD_FAULTS


def test_a_repaired_folder_says_everything_that_readers_need(healthy: Files) -> None:
    assert fault_ids(healthy) == []
    settings = said(healthy, SETTINGS)
    assert settings["tokenizer_class"] == "LlamaTokenizer"
    assert {role: settings[role] for role in GOOD_TOKENS} == GOOD_TOKENS
    rules = (settings["add_bos_token"], settings["add_eos_token"], settings["legacy"])
    assert rules == (True, False, True)
    assert [entry["content"] for entry in settings["added_tokens_decoder"].values()] == [
        "<unk>",
        "<s>",
        "</s>",
    ]
    assert not any(entry["normalized"] for entry in settings["added_tokens_decoder"].values())
    assert said(healthy, SPECIAL_MAP) == GOOD_TOKENS
    config, generation = said(healthy, CONFIG), said(healthy, GENERATION)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, None)
    assert (config["max_position_embeddings"], config["max_sequence_length"]) == (256, 256)
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (1, 2)


@pytest.mark.parametrize(
    "file,change,expected",
    [
        (SETTINGS, setting(tokenizer_class="LLamaTokenizer"), "tokenizer-class-misspelt"),
        (SETTINGS, setting(tokenizer_class="LLaMATokenizerFast"), "tokenizer-class-misspelt"),
        (SETTINGS, setting(tokenizer_class="CodeLLaMATokenizer"), "tokenizer-class-misspelt"),
        (SETTINGS, without("tokenizer_class"), "tokenizer-class-missing"),
        (SETTINGS, without("legacy"), "legacy-missing"),
        (SETTINGS, setting(bos_token="", eos_token="", unk_token=""), "special-tokens-blank"),
        (SETTINGS, setting(eos_token=None), "special-tokens-blank"),
        (SETTINGS, setting(pad_token=""), "special-tokens-blank"),
        (SPECIAL_MAP, setting(bos_token={"content": ""}), "special-tokens-blank"),
        (SETTINGS, setting(bos_token="</s>", unk_token="</s>"), "special-tokens-wrong"),
        (SPECIAL_MAP, setting(bos_token="</s>", unk_token="</s>"), "special-tokens-wrong"),
        (SETTINGS, setting(eos_token="<|endoftext|>"), "special-tokens-wrong"),
        (SETTINGS, setting(pad_token="[PAD]"), "special-tokens-wrong"),
        (SETTINGS, setting(pad_token="</s>"), None),
        (CONFIG, setting(architectures=["LLaMAForCausalLM"]), "architecture-misspelt"),
        (CONFIG, setting(architectures=["LlavaLlamaForCausalLM"]), None),
        (CONFIG, setting(bos_token_id=0), "token-ids-wrong"),
        (CONFIG, setting(eos_token_id=1), "token-ids-wrong"),
        (CONFIG, setting(eos_token_id=[0, 1]), "token-ids-wrong"),
        (CONFIG, setting(eos_token_id=[399, 2]), None),
        (CONFIG, setting(eos_token_id=None), None),
        (GENERATION, setting(eos_token_id=1), "token-ids-wrong"),
        (GENERATION, setting(pad_token_id=-1), "pad-id-out-of-range"),
        (CONFIG, setting(pad_token_id=400), "pad-id-out-of-range"),
        (CONFIG, setting(pad_token_id=0), None),
        (CONFIG, without("max_position_embeddings"), "max-position-embeddings-missing"),
        (GENERATION, setting(temperature=0.9, top_p=0.6), "generation-settings-idle"),
        (GENERATION, setting(temperature=0.6, do_sample=True), None),
        (GENERATION, setting(temperature=1.0, top_k=50, top_p=None), None),
    ],
)  # fmt: skip
def test_one_broken_value_is_one_fault_and_its_repair_is_lasting(
    healthy: Files, file: str, change: Callable[[dict[str, Any]], object], expected: str | None
) -> None:
    files = changed(healthy, file, change)
    assert fault_ids(files) == ([expected] if expected else [])
    assert fault_ids(mended(files)) == []


def test_two_files_that_name_different_possible_tokens_are_made_to_agree(healthy: Files) -> None:
    files = {
        **changed(healthy, SETTINGS, setting(pad_token="<unk>")),
        SPECIAL_MAP: document({**GOOD_TOKENS, "pad_token": "</s>", "note": 1}),
    }
    assert fault_ids(files) == ["special-tokens-map-disagrees"]
    expected = {**GOOD_TOKENS, "pad_token": "<unk>", "note": 1}
    assert said(mended(files), SPECIAL_MAP) == expected


def test_a_vocabulary_size_that_does_not_fit_the_weights_is_mended(healthy: Files) -> None:
    assert fault_ids(healthy, embedding_rows=400) == []
    assert fault_ids(healthy, embedding_rows=432) == ["vocab-size-wrong"]
    assert said(mended(healthy, embedding_rows=432), CONFIG)["vocab_size"] == 432


@pytest.mark.parametrize("named", [None, "[PAD]", "<pad>"])
def test_one_row_more_than_tokens_is_a_pad_token(healthy: Files, named: str | None) -> None:
    files = changed(healthy, CONFIG, setting(vocab_size=401))
    if named:
        files = changed(files, SETTINGS, setting(pad_token=named))
    assert fault_ids(files) == ["added-tokens-missing", "tokenizer-json-stale"]
    after, name = mended(files), named or "[PAD]"
    assert said(after, ADDED) == {name: 400}
    assert said(after, SETTINGS)["pad_token"] == said(after, SPECIAL_MAP)["pad_token"] == name
    assert said(after, SETTINGS)["added_tokens_decoder"]["400"]["content"] == name
    assert said(after, "tokenizer.json")["added_tokens"][-1]["id"] == 400
    assert fault_ids(after) == []


@pytest.mark.parametrize("rows", [402, 416])
def test_more_rows_than_one_are_padding_of_the_matrix_and_no_fault(
    healthy: Files, rows: int
) -> None:
    files = changed(healthy, CONFIG, setting(vocab_size=rows))
    assert fault_ids(files, embedding_rows=rows) == []


def test_added_tokens_of_a_release_keep_their_ids(vectors: Path) -> None:
    files = read(vectors / "oasst_xor" / "expected")
    after = mended(files)
    assert said(after, ADDED) == {f"<|t{n}|>": 400 + n for n in range(5)}
    added = [(t["id"], t["content"]) for t in said(after, "tokenizer.json")["added_tokens"]]
    assert added[3:] == [(400 + n, f"<|t{n}|>") for n in range(5)]


def test_an_added_token_may_end_texts(vectors: Path) -> None:
    after = mended(read(vectors / "oasst_xor" / "expected"))
    files = changed(after, SETTINGS, setting(eos_token="<|t4|>"))
    assert fault_ids(changed(files, CONFIG, setting(eos_token_id=404))) == [
        "special-tokens-map-disagrees"
    ]


def test_a_published_tokenizer_json_that_splits_special_tokens_is_stale(vectors: Path) -> None:
    files = read(vectors / "alpaca_wdiff" / "delta")
    (fault,) = diagnose(files).faults
    assert fault.id == "tokenizer-json-stale"
    assert "'A<unk>'" in fault.evidence
    assert fault_ids(mended(files)) == []


@pytest.mark.parametrize(
    "break_it",
    [
        lambda doc: doc["model"]["merges"].reverse(),
        lambda doc: doc.update(normalizer=None),
        lambda doc: doc["added_tokens"].pop(),
        lambda doc: doc["model"].pop("vocab"),
    ],
)
def test_a_tokenizer_json_that_disagrees_or_cannot_be_read_is_built_anew(
    healthy: Files, break_it: Callable[[dict[str, Any]], object]
) -> None:
    files = changed(healthy, "tokenizer.json", break_it)
    assert fault_ids(files) == ["tokenizer-json-stale"]
    assert mended(files)["tokenizer.json"] == healthy["tokenizer.json"]


def test_a_bos_that_the_settings_promise_is_put_into_tokenizer_json(healthy: Files) -> None:
    files = changed(healthy, "tokenizer.json", setting(post_processor=None))
    assert fault_ids(files) == ["bos-rule-lost"]
    assert said(mended(files), "tokenizer.json") == said(healthy, "tokenizer.json")


def test_what_is_unknown_is_kept_in_its_place(healthy: Files) -> None:
    config = {"made_by": "somebody", **said(healthy, CONFIG), "later": {"ü": [1e-05, 2**70]}}
    files = {**healthy, CONFIG: document({**config, "bos_token_id": 0}), "x.py": b"no"}
    repair = mend(diagnose(files))
    assert list(repair.changed) == [CONFIG]
    assert list(said(dict(repair.changed), CONFIG).items()) == list(config.items())


def test_true_ids_come_from_the_model_and_not_from_a_table() -> None:
    model = trained(["a b c d e"] * 50, 280, unk_id=2, bos_id=0, eos_id=1, pad_id=3)
    files = {
        "tokenizer.model": model,
        SETTINGS: document({"tokenizer_class": "LlamaTokenizer"}),
        CONFIG: document({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1}),
    }
    config = said(mended(files), CONFIG)
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)
    kept = {**files, CONFIG: document({"bos_token_id": 0, "eos_token_id": 1})}
    assert "token-ids-wrong" not in fault_ids(kept)


# --- a tokenizer that is not the model's ----------------------------------------------------------


def guanaco(healthy: Files) -> Files:
    """A pad token was added in all files that can name one, and no row for it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    entry = {"content": "[PAD]", "special": True, **flags}
    files = changed(healthy, SETTINGS, setting(pad_token="[PAD]"))
    files = changed(files, SETTINGS, lambda doc: doc["added_tokens_decoder"].update({"400": entry}))
    files = changed(files, SPECIAL_MAP, setting(pad_token="[PAD]"))
    files = changed(files, CONFIG, setting(pad_token_id=400))
    files = changed(
        files, "tokenizer.json", lambda doc: doc["added_tokens"].append({"id": 400, **entry})
    )
    return {**files, ADDED: document({"[PAD]": 400})}


def test_an_added_pad_token_without_a_row_goes_from_all_files(healthy: Files) -> None:
    files = guanaco(healthy)
    assert "pad-token-without-row" in fault_ids(files, embedding_rows=400)
    repair = mend(diagnose(files, embedding_rows=400))
    after = dict(repair.after.files)
    assert repair.deleted == (ADDED,)
    assert not any(b"[PAD]" in raw for raw in after.values())
    assert said(after, CONFIG)["pad_token_id"] is None
    assert fault_ids(after, embedding_rows=400) == []


@pytest.mark.parametrize(
    "file,change",
    [
        (CONFIG, setting(eos_token_id=400)),
        (SETTINGS, setting(additional_special_tokens=["[PAD]"])),
        (SETTINGS, setting(chat_template="{{ '[PAD]' }}")),
        (SETTINGS, setting(eos_token="[PAD]")),
    ],
)
def test_one_that_something_uses_is_reported_and_nothing_is_written_for_it(
    healthy: Files, file: str, change: Callable[[dict[str, Any]], object]
) -> None:
    files = changed(guanaco(healthy), file, change)
    diagnosis = diagnose(files, embedding_rows=400)
    assert [fault.id for fault in diagnosis.faults if fault.verdict == "report"] == [
        "vocab-size-small"
    ]
    assert b"[PAD]" in mend(diagnosis).after.files[ADDED]


def test_without_weights_to_count_rows_of_it_is_reported(healthy: Files) -> None:
    diagnosis = diagnose(guanaco(healthy))
    assert [(f.id, f.verdict) for f in diagnosis.faults] == [("vocab-size-small", "report")]
    assert mend(diagnosis).changed == {}


def byte_pairs(count: int, special: dict[str, int]) -> bytes:
    """A ``tokenizer.json`` of another kind than LLaMA's, as far as its ids go."""
    vocab = {f"t{number}": number for number in range(count)}
    entries = [{"id": number, "content": text, "special": True} for text, number in special.items()]
    return document({"added_tokens": entries, "model": {"type": "BPE", "vocab": vocab}})


def llama_3(config: dict[str, object], **settings: object) -> Files:
    """A tokenizer of 600 tokens and two more, and what a config says beside it."""
    ends = {"<begin>": 600, "<end>": 601}
    settings = {"bos_token": "<begin>", "eos_token": "<end>", **settings}
    return {
        "tokenizer.json": byte_pairs(600, ends),
        SETTINGS: document({"tokenizer_class": "PreTrainedTokenizerFast", **settings}),
        CONFIG: document({"model_type": "llama", "vocab_size": 602, **config}),
    }


@pytest.mark.parametrize("ids", [{"bos_token_id": 600, "eos_token_id": 601}, {"eos_token_id": 2}])
def test_the_tokenizer_of_another_model_is_reported_and_nothing_is_written(
    ids: dict[str, object],
) -> None:
    diagnosis = diagnose(llama_3({**ids, "vocab_size": 320}))
    (fault,) = diagnosis.faults
    assert (fault.id, fault.verdict) == ("vocab-size-small", "report")
    assert "the model has 320 rows, the tokenizer more: t320 (320)" in fault.evidence
    assert mend(diagnosis).changed == {}


def test_ids_that_contradict_the_tokenizer_are_mended_in_any_family() -> None:
    files = llama_3({"bos_token_id": 1, "eos_token_id": 2})
    assert fault_ids(files) == ["token-ids-wrong"]  # no text gets a BOS: its id is read by nobody
    assert said(mended(files), CONFIG)["eos_token_id"] == 601
    assert fault_ids(llama_3({"bos_token_id": 601, "eos_token_id": [600]})) == []


def test_ids_of_a_larger_tokenizer_are_reported_where_the_model_has_rows_for_them(
    healthy: Files,
) -> None:
    files = changed(healthy, CONFIG, setting(eos_token_id=501, vocab_size=512))
    diagnosis = diagnose(files)
    assert [(f.id, f.verdict) for f in diagnosis.faults] == [("token-ids-wrong", "report")]
    assert mend(diagnosis).changed == {}


def test_a_pad_id_that_the_tokenizer_has_is_not_put_out_of_the_way() -> None:
    files = llama_3({"pad_token_id": 601, "vocab_size": 600}, pad_token="<end>")
    assert fault_ids(files) == ["vocab-size-small"]


@pytest.mark.parametrize(
    "files,why",
    [
        ({"tokenizer.model": b"IQ== 0\nIg== 1\n"}, "there is no tokenizer.json"),
        ({"tekken.json": b"{}"}, "there is no tokenizer.json"),
        ({"vocab.json": b"{}", "merges.txt": b""}, "there is no tokenizer.json"),
    ],
)
def test_a_tokenizer_that_nobody_looked_at_is_not_said_to_be_in_order(
    files: Files, why: str
) -> None:
    settings = document({"tokenizer_class": "GPT2Tokenizer"})
    (reason,) = diagnose({**files, SETTINGS: settings}).unchecked
    assert why in reason


# --- other families -------------------------------------------------------------------------------


def test_llama_2_as_published_is_left_alone(healthy: Files, vectors: Path) -> None:
    theirs = read(vectors / "meta_llama1_2shards" / "expected")["tokenizer.json"]
    files = {**healthy, "tokenizer.json": theirs}
    files = changed(files, SETTINGS, setting(legacy=False, add_bos_token=True))
    files = changed(files, SETTINGS, without("added_tokens_decoder"))
    files = changed(files, GENERATION, setting(do_sample=True, temperature=0.6, top_p=0.9))
    assert fault_ids(files, embedding_rows=400) == []


def test_the_newer_shape_of_tokenizer_json_is_left_alone(healthy: Files) -> None:
    metaspace = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "first",
        "split": False,
    }
    files = changed(healthy, "tokenizer.json", setting(normalizer=None, pre_tokenizer=metaspace))
    files = changed(files, SETTINGS, without("legacy"))
    assert fault_ids(files) == []


def test_a_pad_id_that_no_model_may_have_is_found_in_any_family() -> None:
    files = {
        "tokenizer.json": b"{}",
        SETTINGS: document({"tokenizer_class": "GPT2Tokenizer"}),
        CONFIG: document({"model_type": "gpt2", "pad_token_id": -1, "eos_token_id": 50256}),
    }
    assert fault_ids(files) == ["pad-id-out-of-range"]
    assert said(mended(files), CONFIG)["pad_token_id"] is None


def test_llama_3_with_its_tiktoken_table_is_left_alone() -> None:
    files = {
        "tokenizer.model": b"IQ== 0\nIg== 1\n",
        "tokenizer.json": b"{}",
        SETTINGS: document({"tokenizer_class": "LlamaTokenizer"}),
        CONFIG: document({"model_type": "llama", "bos_token_id": 128000}),
    }
    assert fault_ids(files) == []


@pytest.mark.parametrize(
    "settings,reason",
    [
        ({"model_type": "unigram"}, "type unigram"),
        ({"normalization_rule_name": "nfkc"}, "rewrites characters"),
        ({"remove_extra_whitespaces": True}, "drops spaces"),
        ({"add_dummy_prefix": False}, "no space before"),
        ({"user_defined_symbols": ["<x>"]}, "user-defined"),
        ({"bos_id": -1}, "no BOS"),
    ],
)
def test_a_model_with_other_rules_than_llama_s_is_left_alone_with_a_note(
    settings: dict[str, object], reason: str
) -> None:
    model = trained(["the quick brown fox", "over the lazy dog"] * 40, 290, **settings)
    diagnosis = diagnose(old_folder("decapoda", model))
    assert [fault.id for fault in diagnosis.faults] == ["tokenizer-class-misspelt"]
    assert reason in diagnosis.notes[0]


@pytest.mark.parametrize("name", ["GemmaTokenizer", "CodeLlamaTokenizer", "T5Tokenizer"])
def test_another_class_of_tokenizer_is_left_alone_with_a_note(
    name: str, small_model: bytes
) -> None:
    settings = {"tokenizer_class": name, "bos_token": "", "legacy": None}
    diagnosis = diagnose({"tokenizer.model": small_model, SETTINGS: document(settings)})
    assert diagnosis.faults == ()
    assert f"{name} is not LLaMA's" in diagnosis.notes[0]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["decapoda", "no-bos-rule"])
def test_a_folder_without_any_vocabulary_is_named_and_cannot_be_mended(
    row: str, small_model: bytes
) -> None:
    files = old_folder(row, small_model)
    del files["tokenizer.model"]
    diagnosis = diagnose(files)
    assert "tokenizer-model-missing" in [fault.id for fault in diagnosis.incurable]
    with pytest.raises(NoTokenizer):
        mend(diagnosis)


@pytest.mark.parametrize(
    "raw,error",
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 499723\n", LfsPointer),
        (b"", TokenizerTruncated),
        ("half", TokenizerTruncated),
    ],
)
def test_a_damaged_model_is_named_and_cannot_be_mended(
    healthy: Files, raw: bytes | str, error: type[WeightsmithError]
) -> None:
    whole = healthy["tokenizer.model"]
    damaged = whole[: len(whole) // 2] if isinstance(raw, str) else raw
    diagnosis = diagnose({**healthy, "tokenizer.model": damaged})
    assert [fault.id for fault in diagnosis.faults] == ["tokenizer-model-damaged"]
    with pytest.raises(error):
        mend(diagnosis)


@pytest.mark.parametrize(
    "raw,reason",
    [
        (b"{", "Expecting property name"),
        (b'{"a": 1, "a": 2}', "'a' is repeated"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[]", "not an object"),
        (b'{"a": NaN}', "NaN"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
    ],
)
@pytest.mark.parametrize("file", [name for name in READ if name.endswith(".json")])
def test_a_file_that_is_no_sound_json_is_named(
    healthy: Files, file: str, raw: bytes, reason: str
) -> None:
    with pytest.raises(JsonInvalid, match=reason) as caught:
        diagnose({**healthy, file: raw})
    assert caught.value.values["file"] == file


@functools.cache
def _healthy() -> Files:
    """As the fixture, which hypothesis would print."""
    return mended(read(VECTORS / "vicuna_v1_1" / "base"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 500) | st.sampled_from(["", "<s>", "</s>", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["content", "0", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
keys = st.sampled_from(
    [
        *("tokenizer_class", "bos_token", "eos_token", "unk_token", "pad_token", "legacy"),
        *("add_bos_token", "added_tokens_decoder", "additional_special_tokens", "added_tokens"),
        *("architectures", "model_type", "vocab_size", "bos_token_id", "eos_token_id"),
        *("pad_token_id", "max_sequence_length", "temperature", "do_sample", "normalizer"),
        *("dtype", "rope_parameters", "rope_scaling", "rope_theta", "text_config", "auto_map"),
        *("extra_special_tokens", "chat_template", "add_prefix_space", "do_lower_case", "backend"),
        *("pre_tokenizer", "post_processor", "decoder", "model", "config", "model_input_names"),
    ]
)


@settings(max_examples=examples(80))
@given(
    st.dictionaries(
        st.sampled_from([name for name in READ if name.endswith(".json")]),
        st.dictionaries(keys, anything, max_size=3),
        max_size=3,
    )
)
def test_any_values_are_mended_for_good_or_refused_by_name(
    changes: dict[str, dict[str, Any]],
) -> None:
    files = _healthy()
    for file, values in changes.items():
        files = changed(files, file, setting(**values))
    try:
        after = mended(files)
    except WeightsmithError:
        return
    assert diagnose(after).mendable == ()


def test_the_table_of_old_folders_has_eight_rows() -> None:
    assert len(OLD_TABLE) == 8
