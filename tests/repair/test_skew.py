"""Folders that versions of transformers read apart: found, mended and proved; good ones untouched.

The cases, and what the original tokenizers make of texts, were made by others: `vectors/skew`.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.support.skew_cases import ORACLES, cases, fault_of, files_of
from tests.support.skew_readers import by_transformers
from tests.support.tokenizer_folders import Files, changed
from weightsmith.errors import TokenizerUnproved
from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer
from weightsmith.repair.detect import Diagnosis, diagnose, mend
from weightsmith.repair.examples import examples
from weightsmith.smoke import tokenizer as smoke


def ids(found: Diagnosis) -> tuple[set[str], set[str], set[str]]:
    """The ids of faults, of reports and of remarks."""
    faults = {fault.id for fault in found.faults if fault.verdict == "fault"}
    reports = {fault.id for fault in found.faults if fault.verdict == "report"}
    return faults, reports, {fault.id for fault in found.remarks}


def misread(files: Files, oracle: dict[str, Any]) -> list[str]:
    """Texts that tokenizers does not read as the original tokenizer did."""
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    wrong = [text for text, right in oracle["ids"] if tokenizer.encode(text).ids != right]
    back = [text for right, text in oracle.get("decoded", ()) if tokenizer.decode(right) != text]
    return wrong + back


@pytest.mark.parametrize("case", cases("good", "trap"))
def test_a_good_folder_has_nothing_but_what_its_family_publishes(case: str) -> None:
    found = diagnose(files_of(case))
    faults, reports, remarks = ids(found)
    assert (faults, reports) == (set(), set())
    assert remarks <= set(ORACLES[case].get("remarks_allowed", ()))
    assert mend(found).changed == {}


@pytest.mark.parametrize("case", cases("repair"))
def test_a_fault_is_found_mended_for_good_and_the_ids_are_those_of_the_original(case: str) -> None:
    found = diagnose(files_of(case))
    assert fault_of(case) in ids(found)[0]
    after = dict(mend(found).after.files)
    assert diagnose(after).faults == ()
    oracle = ORACLES[case]
    if "ids" in oracle:
        assert misread(after, oracle) == []
    config = json.loads(after.get("config.json", b"{}"))
    for key, right in oracle.get("config_must_read", {}).items():
        assert config.get("torch_dtype" if key == "dtype" else key) == right


@pytest.mark.parametrize("case", cases("report-only"))
def test_what_nothing_can_safely_be_written_for_is_reported(case: str) -> None:
    found = diagnose(files_of(case))
    assert fault_of(case) in ids(found)[1]
    assert fault_of(case) not in {fault.id for fault in mend(found).faults}


@pytest.mark.parametrize("case", cases("remark"))
def test_what_families_publish_so_is_a_remark_and_left_alone(case: str) -> None:
    found = diagnose(files_of(case))
    faults, reports, remarks = ids(found)
    assert (faults, reports) == (set(), set())
    assert fault_of(case) in remarks
    assert mend(found).changed == {}


@pytest.fixture(scope="module")
def mended_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every broken folder, repaired; those of remarks with the exact class."""
    root = tmp_path_factory.mktemp("mended")
    made = {}
    for case in cases("repair", "remark"):
        found = diagnose(files_of(case), exact_class=ORACLES[case]["kind"] == "remark")
        made[case] = root / case
        made[case].mkdir()
        for name, raw in mend(found).after.files.items():
            (made[case] / name).write_bytes(raw)
    return made


LLAMA_S_OWN = {"model-only-llama", "v5-save-beside-model"}
"""What keeps Llama's class, with which transformers 5 cuts text that begins with a space
otherwise.
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_transformers_5_reads_every_mended_folder_rightly(
    mended_folders: dict[str, Path],
) -> None:
    told = by_transformers({path: ORACLES[c] for c, path in mended_folders.items()}, sys.executable)
    assert {path.name for path, verdict in told.items() if verdict != "ok"} == LLAMA_S_OWN


# --- for whom -------------------------------------------------------------------------------------


def test_what_another_reader_errs_at_does_not_count() -> None:
    files = files_of("dtype-only")
    assert ids(diagnose(files, reader="transformers-4"))[0] == {"dtype-only"}
    assert ids(diagnose(files, reader="transformers-5"))[0] == set()
    assert ids(diagnose(files, reader="llama.cpp"))[0] == set()


@pytest.mark.parametrize(
    "case,reader", [("cleanup-spaces", "transformers-4"), ("padding-side", "transformers-5")]
)
def test_a_remark_is_mended_when_asked_for_its_reader(case: str, reader: Any) -> None:
    found = diagnose(files_of(case), reader=reader)
    assert fault_of(case) in ids(found)[0]
    assert fault_of(case) not in ids(diagnose(dict(mend(found).after.files), reader=reader))[0]


def unsaid_bos() -> Files:
    """Llama 2 without a BOS rule in tokenizer.json, and without a word in the settings."""
    files = changed(
        files_of("good-llama2"), "tokenizer.json", lambda doc: doc.update(post_processor=None)
    )
    return changed(files, "tokenizer_config.json", lambda doc: doc.pop("add_bos_token"))


def bytes_without_bos() -> Files:
    """Llama's class above bytes, and no BOS rule."""
    files = files_of("llama-class-bytelevel")
    return changed(files, "tokenizer.json", lambda doc: doc.update(post_processor=None))


@pytest.mark.parametrize(
    "files,fault",
    [(unsaid_bos(), "bos-rule-lost"), (bytes_without_bos(), "llama-class-bytelevel")],
    ids=["spaces", "bytes"],
)
def test_where_one_s_cure_is_another_s_poison_it_is_a_question(files: Files, fault: str) -> None:
    def unsaid(settings: dict[str, Any]) -> None:
        settings.pop("add_bos_token", None)

    files = changed(files, "tokenizer_config.json", unsaid)
    found = diagnose(files)
    asked = next(each for each in found.faults if each.id == fault)
    assert asked.verdict == "report"
    assert "add_bos_token" in asked.evidence
    answers = []
    for said in (True, False):

        def say(settings: dict[str, Any], said: bool = said) -> None:
            settings["add_bos_token"] = said

        found = diagnose(changed(files, "tokenizer_config.json", say))
        assert fault not in ids(found)[1]
        after = dict(mend(found).after.files)
        answers.append(Tokenizer.from_str(after["tokenizer.json"].decode()).encode("hi").ids)
    assert answers[0][1:] == answers[1]
    assert fault in ids(diagnose(files, reader="transformers-5"))[0]


def test_the_exact_class_works_on_a_folder_without_faults(tmp_path: Path) -> None:
    for name, raw in files_of("good-llama2").items():
        (tmp_path / name).write_bytes(raw)
    result = fix_tokenizer(tmp_path, exact_class=True)
    assert [fault.id for fault in result.faults] == ["leading-space-v5"]
    assert result.proofs[-1].departures == ()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    found = check_tokenizer(tmp_path, exact_class=True)
    assert (found.faults, found.remarks, found.unchecked) == ((), (), ())


# --- proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [case for case in cases("repair", "report-only") if "class" in case or "bos" in case]
)
def test_a_silent_fault_is_shown_by_a_text_and_its_ids(case: str) -> None:
    found = diagnose(files_of(case))
    fault = next(each for each in found.faults if each.id == fault_of(case))
    if fault.read_as is None:
        assert fault.id == "class-tokenizers-backend"
        return
    example = examples([fault], found.before, smoke.ask_tokenizers)[fault.id]
    assert example.ids != example.right
    assert example.wrong <= example.texts


def test_a_folder_with_a_report_gets_its_other_repairs(tmp_path: Path) -> None:
    for name, raw in files_of("rope-twice").items():
        (tmp_path / name).write_bytes(raw)
    assert [fault.id for fault in fix_tokenizer(tmp_path).faults] == ["dtype-only"]
    assert [fault.id for fault in check_tokenizer(tmp_path).faults] == ["rope-twice"]


def test_a_repair_that_makes_a_text_wrong_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, raw in files_of("class-overrules-json").items():
        (tmp_path / name).write_bytes(raw)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = smoke.ask_transformers

    def spoiled(files: Files, texts: list[str], scratch: Path) -> object:
        if scratch.name == "after":
            files = changed(files, "tokenizer.json", lambda doc: doc.update(post_processor=None))
        return real(files, texts, scratch)

    monkeypatch.setattr("weightsmith.smoke.prove_tokenizer.ask_transformers", spoiled)
    with pytest.raises(TokenizerUnproved):
        fix_tokenizer(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def spelled_as_gpt2() -> dict[str, int]:
    """The byte for every character by which GPT-2's alphabet spells it."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in visible]
    spelled = {chr(value): value for value in visible}
    return spelled | {chr(256 + place): value for place, value in enumerate(others)}


def test_mistral_s_rule_is_proved_by_mistral_s_own_file(tmp_path: Path) -> None:
    files, alphabet = files_of("mistral-regex"), spelled_as_gpt2()
    vocab = json.loads(files["tokenizer.json"])["model"]["vocab"]
    tekken = json.loads(files["tekken.json"])
    first = tekken["config"]["default_num_special_tokens"]
    tekken["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(bytes(alphabet[c] for c in text)).decode()}
        for rank, text in enumerate(list(vocab)[first:])
    ]
    good = {**files, "tekken.json": json.dumps(tekken).encode()}
    tekken["vocab"][300], tekken["vocab"][301] = tekken["vocab"][301], tekken["vocab"][300]
    tekken["vocab"][300]["rank"], tekken["vocab"][301]["rank"] = 300, 301
    bad = {**files, "tekken.json": json.dumps(tekken).encode()}
    for name, case in (("good", good), ("bad", bad)):
        (tmp_path / name).mkdir()
        for each, raw in case.items():
            (tmp_path / name / each).write_bytes(raw)
    assert "mistral-regex" in [fault.id for fault in fix_tokenizer(tmp_path / "good").faults]
    with pytest.raises(TokenizerUnproved):
        fix_tokenizer(tmp_path / "bad")


@pytest.mark.slow
@pytest.mark.fresh
def test_a_tokenizer_that_never_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass\n")
    monkeypatch.setattr(smoke, "_SCRIPT", endless)
    monkeypatch.setattr(smoke, "LIMIT_S", 1)
    with pytest.raises(TokenizerUnproved, match="no answer in 1 s"):
        smoke.ask_tokenizers([{}], ["x"])
    found = diagnose(files_of("class-overrules-json"))
    assert examples(found.faults, found.before, smoke.ask_tokenizers) == {}


# --- the kind, not the example --------------------------------------------------------------------

SETTINGS, CONFIG, JSON = "tokenizer_config.json", "config.json", "tokenizer.json"
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def with_values(files: Files, name: str, **values: Any) -> Files:
    return changed(files, name, lambda document: document.update(values))


def without(files: Files, *names: str) -> Files:
    return {name: raw for name, raw in files.items() if name not in names}


def test_llama_s_class_above_a_tokenizer_that_puts_no_space_first() -> None:
    """As Yi is published."""
    files = without(files_of("good-llama2"), "tokenizer.model")
    files = with_values(files, JSON, normalizer=REPLACE)
    assert "class-overrules-json" in ids(diagnose(files))[0]
    assert ids(diagnose(with_values(files, SETTINGS, add_prefix_space=False)))[0] == {
        "prefix-space-forces-slow"
    }


def test_gemma_s_class_above_a_tokenizer_that_puts_one() -> None:
    normalizer = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, REPLACE],
    }
    files = with_values(files_of("good-gemma"), JSON, normalizer=normalizer, pre_tokenizer=None)
    assert ids(diagnose(files))[0] == {"class-overrules-json"}


def test_a_space_that_a_class_leaves_out_of_its_sequence() -> None:
    def spaced(document: dict[str, Any]) -> None:
        document["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True

    files = changed(files_of("trap-qwen-class-fits"), JSON, spaced)
    assert ids(diagnose(files))[0] == {"class-overrules-json"}
    assert diagnose(with_values(files, SETTINGS, add_prefix_space=True)).faults == ()


def test_a_class_for_bytes_above_marked_spaces() -> None:
    files = without(files_of("good-llama2"), "tokenizer.model")
    files = with_values(files, SETTINGS, tokenizer_class="GPT2Tokenizer")
    assert "class-overrules-json" in ids(diagnose(files))[0]


def test_the_generic_class_needs_no_rule_of_llama_s_beside_tokenizer_model() -> None:
    def generic(settings: dict[str, Any]) -> None:
        for key in ("legacy", "add_bos_token", "add_eos_token"):
            settings.pop(key, None)
        settings |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
        }

    found = diagnose(changed(files_of("good-llama2"), SETTINGS, generic))
    assert (found.faults, found.remarks) == ((), ())


@pytest.mark.parametrize("end", ["<|call|>", "<turn_over>"])
def test_a_turn_s_end_is_what_the_template_writes_after_the_content(end: str) -> None:
    template = "{% for m in messages %}{{ '<|u|>' + m['content'] + '" + end + "\n' }}{% endfor %}"
    files = with_values(files_of("good-llama3"), SETTINGS, chat_template=template)
    files = changed(
        files,
        JSON,
        lambda doc: doc["added_tokens"].append({"id": 607, "content": end, "special": True}),
    )
    assert "eos-lacks-turn-end" in ids(diagnose(files))[0]
    base = with_values(files, "generation_config.json", do_sample=False)
    assert "eos-lacks-turn-end" not in ids(diagnose(base))[0]


def test_a_stretched_rotation_that_stands_in_the_new_name_only() -> None:
    stretched = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 500000.0}
    files = changed(
        files_of("trap-rope-twice-agreeing"), CONFIG, lambda doc: doc.pop("rope_scaling")
    )
    files = with_values(files, CONFIG, rope_parameters=stretched)
    found = diagnose(files)
    assert ids(found)[0] == {"rope-parameters-only"}
    config = json.loads(mend(found).after.files[CONFIG])
    assert config["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}


def test_the_text_part_of_a_model_of_several_modalities_is_mended_in_its_place() -> None:
    inner = {"model_type": "llama", "dtype": "bfloat16", "rope_parameters": {"rope_theta": 7.0}}
    config = {"model_type": "qwen2_vl", "dtype": "bfloat16", "text_config": inner}
    after = json.loads(mend(diagnose({CONFIG: json.dumps(config).encode()})).after.files[CONFIG])
    assert after["text_config"] == {**inner, "rope_theta": 7.0, "torch_dtype": "bfloat16"}


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_one_of_two_vocabularies_may_be_stale(name: str) -> None:
    good = files_of("good-qwen2")
    fewer = json.loads(good["vocab.json"])
    fewer.popitem()
    stale = {
        "vocab.json": json.dumps(fewer).encode(),
        "merges.txt": files_of("vocab-merges-stale")["merges.txt"],
    }
    files = {**good, name: stale[name]}
    assert ids(diagnose(files))[0] == {"vocab-merges-stale"}
    (fault,) = diagnose(files).faults
    assert fault.file == name
    after = mend(diagnose(files)).after.files
    assert diagnose(dict(after)).faults == ()


@pytest.mark.parametrize(
    "change", [{"version": "9.0"}, {"model": {"type": "Quantum"}}, {"model": 5}]
)
def test_a_tokenizer_json_of_a_newer_library_is_not_said_to_be_in_order(
    change: dict[str, Any],
) -> None:
    found = diagnose(with_values(files_of("good-nemo"), JSON, **change))
    assert "newer library" in found.unchecked[0]


def test_hostile_names_of_code_are_only_names() -> None:
    named = {"AutoTokenizer": ["../../etc/passwd.X", "\x1b[2Jx.y", {"a": ["q.z", 5, None]}, ""]}
    files = with_values(files_of("auto-map-leftover"), SETTINGS, auto_map=named)
    after = json.loads(mend(diagnose(files)).after.files[SETTINGS])
    assert "auto_map" not in after


def test_code_that_is_there_is_meant() -> None:
    files = files_of("auto-map-leftover")
    names = ["modeling_x.py", "tokenization_x.py"]
    assert diagnose(files, names=names).faults == ()


# --- as people publish it -------------------------------------------------------------------------


def test_a_bos_that_the_settings_promise_above_bytes_is_put_into_tokenizer_json_and_proved(
    tmp_path: Path,
) -> None:
    """As DeepSeek-V3 is published: transformers 4 alone puts a BOS before a text."""
    files = with_values(bytes_without_bos(), SETTINGS, add_bos_token=True)
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    assert "llama-class-bytelevel" in [fault.id for fault in fix_tokenizer(tmp_path).faults]
    after = Tokenizer.from_file(str(tmp_path / JSON)).encode("hi").ids
    before = Tokenizer.from_str(files[JSON].decode()).encode("hi").ids
    assert after[1:] == before


def phi_3_saved_by_4_33() -> Files:
    """Phi-3 without its added tokens' rules in tokenizer.json, and no word of BOS."""

    def forgotten(document: dict[str, Any]) -> None:
        for token in document["added_tokens"]:
            if token["id"] > 2:
                token |= {"rstrip": False, "normalized": True, "special": False}

    files = changed(files_of("good-phi3"), JSON, forgotten)
    return changed(files, SETTINGS, lambda settings: settings.pop("add_bos_token"))


def test_a_tokenizer_json_that_is_built_anew_leaves_the_question_of_bos_open() -> None:
    found = diagnose(phi_3_saved_by_4_33())
    assert ids(found)[:2] == ({"tokenizer-json-stale"}, {"bos-rule-lost"})
    after = dict(mend(found).after.files)
    assert "add_bos_token" not in json.loads(after[SETTINGS])
    assert misread(after, ORACLES["good-phi3"]) == []


def test_a_control_piece_keeps_the_rules_that_the_files_give_it() -> None:
    """Phi-3's </s> takes the space behind it."""
    after = dict(mend(diagnose(phi_3_saved_by_4_33())).after.files)
    decoder = json.loads(files_of("good-phi3")[SETTINGS])["added_tokens_decoder"]
    assert decoder["2"]["rstrip"]
    assert json.loads(after[SETTINGS])["added_tokens_decoder"] == decoder


CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>\n' }}{% endfor %}"


@pytest.mark.parametrize(
    "eos_token,generation,told",
    [
        ("<|endoftext|>", {"eos_token_id": 600}, False),
        ("<|endoftext|>", {"eos_token_id": 600, "do_sample": False}, False),
        ("<|endoftext|>", {"eos_token_id": 600, "do_sample": True}, True),
        ("<|im_end|>", {"eos_token_id": 600}, True),
        ("<|im_end|>", {"eos_token_id": [600, 602]}, False),
    ],
)
def test_a_base_model_with_a_chatml_template_ends_as_documents_do(
    eos_token: str, generation: dict[str, Any], told: bool
) -> None:
    files = with_values(files_of("good-qwen2"), SETTINGS, eos_token=eos_token, chat_template=CHATML)
    files["generation_config.json"] = json.dumps(generation).encode()
    assert ("eos-lacks-turn-end" in ids(diagnose(files))[0]) == told


def test_llama_3_as_first_published_is_told_and_gemma_1_is_not() -> None:
    said = {"_from_model_config": True, "bos_token_id": 600, "eos_token_id": 601}
    files = with_values(files_of("eos-lacks-turn-end"), SETTINGS, eos_token="<|end_of_text|>")
    files["generation_config.json"] = json.dumps(said).encode()
    assert ids(diagnose(files))[0] == {"eos-lacks-turn-end"}
    assert (
        "eos-lacks-turn-end" not in ids(diagnose(with_values(files, CONFIG, model_type="gemma")))[0]
    )


def test_pairs_are_joined_for_a_reader_that_wants_texts() -> None:
    files = files_of("merges-pairs")
    after = dict(mend(diagnose(files, reader="transformers-4")).after.files)
    merges = json.loads(after[JSON])["model"]["merges"]
    assert all(isinstance(each, str) for each in merges)
    assert misread(after, ORACLES["merges-pairs"]) == []
    assert mend(diagnose(files, reader="transformers-5")).changed == {}


def normalized(**rule: Any) -> Files:
    """BERT with another normalizer."""
    return changed(files_of("good-bert"), JSON, lambda doc: doc["normalizer"].update(rule))


@pytest.mark.parametrize(
    "files,edits",
    [
        (normalized(handle_chinese_chars=False), {"tokenize_chinese_chars": False}),
        (normalized(strip_accents=False), {"strip_accents": False}),
        (
            normalized(lowercase=False, strip_accents=True),
            {"do_lower_case": False, "strip_accents": True},
        ),
        (normalized(strip_accents=True), None),
        (with_values(files_of("trap-bert-cased"), SETTINGS, strip_accents=False), None),
    ],
    ids=["chinese", "accents", "both", "accents go with capitals", "none to strip"],
)
def test_every_setting_of_bert_s_normalizer_says_what_tokenizer_json_does(
    files: Files, edits: dict[str, Any] | None
) -> None:
    found = [fault for fault in diagnose(files).faults if fault.id == "bert-case"]
    assert [dict(fault.edits[0].set) for fault in found] == ([edits] if edits else [])


def test_code_llama_is_read_by_transformers_5_as_llama_is() -> None:
    files = with_values(files_of("good-llama2"), SETTINGS, tokenizer_class="CodeLlamaTokenizer")
    files = without(files, "tokenizer.model")
    assert ids(diagnose(files)) == (set(), set(), {"leading-space-v5"})
    after = json.loads(mend(diagnose(files, exact_class=True)).after.files[SETTINGS])
    assert (after["tokenizer_class"], after["padding_side"]) == ("PreTrainedTokenizerFast", "left")


def test_gemma_s_class_above_bytes() -> None:
    files = with_values(files_of("good-nemo"), SETTINGS, tokenizer_class="GemmaTokenizer")
    assert "class-overrules-json" in ids(diagnose(without(files, CONFIG)))[0]


@pytest.mark.parametrize(
    "name,why", [("tokenizer.model", "tiktoken"), ("tekken.json", "Mistral's own")]
)
def test_a_vocabulary_that_is_not_looked_at_is_named(name: str, why: str) -> None:
    raw = {"tokenizer.model": b"IQ== 0\nIg== 1\n", "tekken.json": b"{}"}[name]
    (reason,) = diagnose({name: raw, CONFIG: b'{"model_type": "mistral"}'}).unchecked
    assert why in reason
