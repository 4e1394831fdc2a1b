"""The catalogue holds what it says, refuses what it should, and never guesses a row policy."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT, VECTORS
from weightsmith.catalogue.consistency import inconsistencies
from weightsmith.catalogue.load import (
    alias,
    find_prompt,
    load_bases,
    load_prompts,
    load_releases,
)
from weightsmith.catalogue.match import Recognition, contradictions, match
from weightsmith.catalogue.page import render
from weightsmith.catalogue.schema import Base, Checksums, HubRepo, Release, Signs, parse_entries
from weightsmith.checkpoint.opening import open_checkpoint

PROJECTOR = ("model.mm_projector.*",)
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
WHOLE_WITH_BUFFERS = (*EMBEDDINGS, "*.rotary_emb.inv_freq")

RULES = [
    ("lmsys/vicuna-7b-delta-v0", "llama-7b", "float16", "zero", (), "delta"),
    ("lmsys/vicuna-13b-delta-v0", "llama-13b", "float16", "zero", (), "delta"),
    ("lmsys/vicuna-7b-delta-v1.1", "llama-7b", "float16", "none", (), "delta"),
    ("lmsys/vicuna-13b-delta-v1.1", "llama-13b", "float16", "none", (), "delta"),
    ("tatsu-lab/alpaca-7b-wdiff", "llama-7b", "float32", "mean", (), "delta"),
    ("tatsu-lab/alpaca-farm-sft10k-wdiff", "llama-7b", "float32", "mean", (), "delta"),
    ("liuhaotian/LLaVA-7b-delta-v0", "llama-7b", "float16", "zero", PROJECTOR, "delta"),
    ("liuhaotian/LLaVA-13b-delta-v1-1", "llama-13b", "float16", "zero", PROJECTOR, "delta"),
    ("shikras/shikra-7b-delta-v1", "llama-7b", "float16", "zero", PROJECTOR, "delta"),
    ("CarperAI/stable-vicuna-13b-delta", "llama-13b", "float16", "zero", (), "delta"),
    ("WizardLM/WizardLM-7B-V1.0", "llama-7b", "float32", "mean", (), "delta"),
    ("jayelm/llama-7b-gist-1", "llama-7b", "float32", "zero", (), "delta"),
    ("allenai/tulu-65b", "llama-65b", "float32", "mean", (), "delta"),
    ("zjunlp/zhixi-13b-diff", "llama-13b", "float32", "none", (), "delta"),
    ("chitanda/llama-panda-zh-7b-delta", "llama-7b", "delta", "none", EMBEDDINGS, "delta"),
    ("IDEA-CCNL/Ziya-LLaMA-13B-v1", "llama-13b", "float16", "none", WHOLE_WITH_BUFFERS, "delta"),
    (
        "FreedomIntelligence/HuatuoGPT-13b-delta",
        *("llama-13b", "float16", "none", WHOLE_WITH_BUFFERS, "delta"),
    ),
    ("RUCAIBox/YuLan-Chat-65b-delta", "llama-65b", "float32", "zero", (), "delta"),
    ("ICTNLP/bayling-7b-diff", "llama-7b", "float16", "none", (), "delta"),
    ("daven3/k2_fp_delta", "llama-7b", "float16", "none", (), "base"),
]

RELEASE = """
base = "llama-7b"
encoding = "add"
dtype = "float16"
tokenizer = "delta"
confidence = "derived"
sources = ["here"]

[[release]]
id = "one"
name = "One"

[[release]]
id = "two"
name = "Two"
"""


def parsed(text: str) -> tuple[list[Release], list[str]]:
    faults: list[str] = []
    return parse_entries(Release, "release", text, "new.toml", faults), faults


def base_of(name: str) -> Base:
    base = alias(name)
    assert base is not None
    return base


def release_of(repo_id: str) -> Release:
    named = repo_id.casefold()
    (release,) = (
        each for each in load_releases() for repo in each.hub if repo.id.casefold() == named
    )
    return release


def is_ambiguous(found: Recognition) -> bool:
    """Whether what it may be is applied differently, so that the user must choose."""
    return found.rules is None and bool(found.candidates)


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: each.info.shape for name, each in open_checkpoint(folder).tensors.items()}


def recognised(vector: str, repo_id: str | None = None, **config: object) -> Recognition:
    folder = VECTORS / vector
    return match(
        repo_id=repo_id,
        config={**json.loads((folder / "delta/config.json").read_text()), **config},
        delta_shapes=shapes(folder / "delta"),
        base_shapes=shapes(folder / "base"),
    )


class TestEntries:
    def test_installed_catalogue_is_consistent(self) -> None:
        assert inconsistencies(load_bases(), load_releases(), load_prompts()) == []

    @pytest.mark.parametrize("repo_id, base, dtype, new_rows, whole, tokenizer", RULES)
    def test_additive_release_has_the_rules_of_its_published_script(
        self,
        repo_id: str,
        base: str,
        dtype: str,
        new_rows: str,
        whole: tuple[str, ...],
        tokenizer: str,
    ) -> None:
        found = release_of(repo_id)
        assert (found.encoding, found.base, found.dtype) == ("add", base, dtype)
        assert (found.new_rows, found.whole, found.tokenizer) == (new_rows, whole, tokenizer)

    def test_alpaca_and_vicuna_v0_differ_in_nothing_but_rows_dtype_and_name(self) -> None:
        vicuna = release_of("lmsys/vicuna-7b-delta-v0")
        alpaca = release_of("tatsu-lab/alpaca-7b-wdiff")
        assert vicuna.vocab_size == alpaca.vocab_size
        assert (vicuna.new_rows, alpaca.new_rows) == ("zero", "mean")

    @pytest.mark.parametrize("base", load_bases(), ids=lambda base: base.alias)
    def test_shape_facts_rebuild_the_published_params_json(self, base: Base) -> None:
        text = json.dumps(
            {
                "dim": base.hidden_size,
                "multiple_of": 256,
                "n_heads": base.num_attention_heads,
                "n_layers": base.num_hidden_layers,
                "norm_eps": base.rms_norm_eps,
                "vocab_size": -1,
            }
        )
        if base.alias.startswith("llama-2"):
            text += "\n"
        published = {
            group.algorithm: group.files["params.json"]
            for group in base.checksums
            if group.of == "meta" and "params.json" in group.files
        }
        assert published
        for algorithm, digest in published.items():
            assert hashlib.new(algorithm, text.encode()).hexdigest() == digest

    @pytest.mark.parametrize("base", load_bases(), ids=lambda base: base.alias)
    def test_inner_width_is_what_metas_formula_gives(self, base: Base) -> None:
        inner = int(2 * 4 * base.hidden_size / 3)
        assert base.intermediate_size == 256 * ((inner + 255) // 256)

    @pytest.mark.parametrize("base", load_bases(), ids=lambda base: base.alias)
    def test_every_shard_of_meta_is_named(self, base: Base) -> None:
        shards = {
            file
            for group in base.checksums
            if group.of == "meta"
            for file in group.files
            if file.endswith(".pth")
        }
        assert shards == {f"consolidated.{n:02}.pth" for n in range(len(shards))}

    def test_all_sources_agree_on_the_one_tokenizer_model(self) -> None:
        groups = [group for base in load_bases() for group in base.checksums]
        groups += [group for release in load_releases() for group in release.checksums]
        digests = {
            (group.algorithm, group.files["tokenizer.model"])
            for group in groups
            if "tokenizer.model" in group.files
        }
        assert {algorithm for algorithm, _ in digests} == {"md5", "sha256"}
        assert len(digests) == 2

    def test_point_alpaca_files_decode_to_the_files_whose_hashes_were_published(self) -> None:
        (release,) = (each for each in load_releases() if each.id == "point-alpaca-7b")
        encoded, decoded = release.checksums
        names = {file.rsplit(".", 2)[0]: file.rsplit(".", 2)[1] for file in encoded.files}
        assert set(names) == set(decoded.files)
        assert names["tokenizer.model"] == base_of("llama-7b").checksums[1].files["tokenizer.model"]

    def test_keystream_key_is_a_file_of_the_base_with_a_known_hash(self) -> None:
        keyed = [release for release in load_releases() if release.key is not None]
        assert keyed
        for release in keyed:
            known = [
                group
                for group in base_of(release.base).checksums
                if group.of == "meta" and release.key in group.files
            ]
            assert known

    def test_published_sums_are_there(self) -> None:
        sums = {each.value for release in load_releases() for each in release.sums}
        assert sums == {50637.1836, 50547.9570, 50596.9141, 50503.8789, 94052.2891}

    def test_lookups_are_by_name_in_any_case(self) -> None:
        assert base_of("LLaMA-7B").hidden_size == 4096
        assert release_of("LMSYS/Vicuna-7B-delta-v0").id == "vicuna-7b-v0"
        assert alias("llama-3-8b") is None


class TestSchema:
    def test_keys_above_the_first_entry_are_shared(self) -> None:
        entries, faults = parsed(RELEASE)
        assert not faults
        assert [(each.id, each.base) for each in entries] == [
            ("one", "llama-7b"),
            ("two", "llama-7b"),
        ]

    @pytest.mark.parametrize(
        "written, instead, fault",
        [
            ('name = "Two"', 'nmae = "Two"', "release 2: unknown key nmae"),
            ('name = "Two"', "", "release 2: no name"),
            ('name = "Two"', "name = 2", "release 2.name is 2, which is no text"),
            ('name = "Two"', 'name = ""', "release 2.name is empty"),
            ('name = "Two"', 'name = "Two"\nvocab_size = true', "release 2.vocab_size is True"),
            ('name = "Two"', 'name = "Two"\nvocab_size = 1.5', "which is no integer"),
            ('name = "Two"', 'name = "Two"\nnew_rows = "prefix"', "which is none of none, zero"),
            ('name = "Two"', 'name = "Two"\nwhole = "lm_head"', "which is no array"),
            ('name = "Two"', 'name = "Two"\nwhole = ["a", 1]', "release 2.whole[1] is 1"),
            ('name = "Two"', 'name = "Two"\nhub = [{ id = "a/b" }]', "hub[0]: no confidence"),
            ('name = "Two"', 'name = "Two"\nsigns = ["llava"]', "signs is ['llava'], which is no"),
        ],
    )
    def test_fault_is_told_with_its_file_entry_and_key(
        self, written: str, instead: str, fault: str
    ) -> None:
        entries, faults = parsed(RELEASE.replace(written, instead))
        assert [each.id for each in entries] == ["one"]
        assert [each for each in faults if each.startswith("new.toml: ") and fault in each]

    def test_all_faults_are_collected(self) -> None:
        text = RELEASE.replace('"add"', '"sub"').replace('name = "One"', "name = 1\nsize = 7")
        entries, faults = parsed(text)
        assert entries == []
        assert sorted(faults) == [
            "new.toml: release 1.encoding is 'sub', which is none of add, xor-file, keystream-file",
            "new.toml: release 1.name is 1, which is no text",
            "new.toml: release 1: unknown key size",
            "new.toml: release 2.encoding is 'sub', which is none of add, xor-file, keystream-file",
        ]

    @pytest.mark.parametrize("text", ["id = ", "", 'release = "one"', "release = [1]"])
    def test_file_without_entries_is_a_fault(self, text: str) -> None:
        entries, faults = parsed(text)
        assert entries == []
        assert len(faults) == 1

    @pytest.mark.parametrize(
        "change, fault",
        [
            ({"base": "llama-8b"}, "no base llama-8b"),
            ({"prompt": "poem"}, "no prompt poem"),
            ({"sources": ()}, "no source"),
            ({"id": "Vicuna 7B"}, "an id is lower-case"),
            ({"dtype": None}, "dtype belongs to the encoding add"),
            ({"key": "consolidated.00.pth"}, "key belongs to the encoding keystream-file"),
            ({"encoding": "xor-file", "dtype": None}, "a file encoding has neither new rows nor"),
            ({"new_rows": "none"}, "32001 rows on 32000 with new_rows none"),
            ({"vocab_size": 32000}, "32000 rows on 32000 with new_rows zero"),
            ({"signs": Signs()}, "signs that say nothing"),
            ({"hub": (HubRepo("vicuna", "stated"),)}, "vicuna is no hub id"),
            (
                {"checksums": (Checksums("delta", "md5", "x", "stated", {"a.bin": "12"}),)},
                "a.bin: 12 is no md5",
            ),
        ],
    )
    def test_entry_that_does_not_fit_the_others_is_found(
        self, change: dict[str, object], fault: str
    ) -> None:
        release = replace(release_of("lmsys/vicuna-7b-delta-v0"), **change)  # type: ignore[arg-type]
        (found,) = inconsistencies(load_bases(), [release], load_prompts())
        assert fault in found

    def test_two_releases_cannot_claim_one_repository(self) -> None:
        release = release_of("lmsys/vicuna-7b-delta-v0")
        twin = replace(release, id="twin")
        assert inconsistencies(load_bases(), [release, twin], load_prompts()) == [
            "repository lmsys/vicuna-7b-delta-v0 is there 2 times",
            "repository name vicuna-7b-delta-v0 is there 2 times",
        ]


class TestRecognition:
    def test_llava_is_recognised_by_its_config_and_projector(self) -> None:
        found = recognised("llava_v0")
        assert found.rules is not None
        assert (found.rules.new_rows, found.rules.whole) == ("zero", PROJECTOR)
        assert found.release is None  # the stand-in is of no published size
        assert {each.id for each in found.candidates} >= {"llava-7b-v0", "llava-13b-v0"}
        assert "config" in found.reason

    def test_width_narrows_llava_to_one_size(self) -> None:
        found = recognised("llava_v0", hidden_size=4096)
        assert {each.base for each in found.candidates} == {"llama-7b"}
        assert found.rules is not None

    def test_llava_by_old_config_keys_alone(self) -> None:
        found = recognised("llava_v0", model_type="llama", architectures=["LlamaForCausalLM"])
        assert found.rules is not None
        assert found.rules.whole == PROJECTOR

    def test_shikra_is_one_release_by_its_config(self) -> None:
        base = {"model.embed_tokens.weight": (400, 32)}
        delta = {"model.embed_tokens.weight": (403, 32), "model.mm_projector.bias": (32,)}
        found = match(
            repo_id=None, config={"model_type": "shikra"}, delta_shapes=delta, base_shapes=base
        )
        assert found.release is not None
        assert found.release.id == "shikra-7b-v1"

    def test_projector_that_the_base_has_too_is_not_taken_for_whole(self) -> None:
        delta = shapes(VECTORS / "llava_v0/delta")
        found = match(
            repo_id=None,
            config=json.loads((VECTORS / "llava_v0/delta/config.json").read_text()),
            delta_shapes=delta,
            base_shapes=delta,
        )
        assert found.rules is None

    def test_llava_config_with_another_unknown_tensor_is_not_recognised(self) -> None:
        folder = VECTORS / "llava_v0"
        found = match(
            repo_id=None,
            config=json.loads((folder / "delta/config.json").read_text()),
            delta_shapes={**shapes(folder / "delta"), "model.resampler.weight": (4, 4)},
            base_shapes=shapes(folder / "base"),
        )
        assert (found.rules, found.candidates) == (None, ())

    @pytest.mark.parametrize("vector", ["vicuna_v0", "alpaca_wdiff"])
    def test_one_more_row_is_ambiguous_whatever_it_was_made_with(self, vector: str) -> None:
        found = recognised(vector)
        assert is_ambiguous(found)
        assert {each.new_rows for each in found.candidates} == {"zero", "mean", "none"}
        assert {each.id for each in found.candidates} >= {"vicuna-7b-v0", "alpaca-7b", "panda-7b"}
        for choice in ("1 vocabulary row", "zero", "mean", "whole"):
            assert choice in found.reason

    def test_equal_shapes_leave_nothing_to_decide(self) -> None:
        found = recognised("vicuna_v1_1")
        assert (found.release, found.rules, found.candidates) == (None, None, ())
        assert not is_ambiguous(found)

    @pytest.mark.parametrize(
        "vector, repo_id, release",
        [
            ("vicuna_v0", "lmsys/vicuna-7b-delta-v0", "vicuna-7b-v0"),
            ("vicuna_v0", "LMSYS/vicuna-7b-delta-V0", "vicuna-7b-v0"),
            ("vicuna_v0", "vicuna-13b-delta-v0", "vicuna-13b-v0"),
            ("alpaca_wdiff", "alpaca-7b-wdiff", "alpaca-7b"),
            ("vicuna_v1_1", "vicuna-7b-delta-v1.1", "vicuna-7b-v1.1"),
            ("llava_v0", "LLaVA-7b-delta-v0", "llava-7b-v0"),
        ],
    )
    def test_hub_id_or_a_directory_of_its_name_decides(
        self, vector: str, repo_id: str, release: str
    ) -> None:
        found = recognised(vector, repo_id)
        assert found.release is not None
        assert found.release.id == release
        assert found.candidates == (found.release,)
        assert found.rules == found.release.rules
        assert ("directory is named" in found.reason) == ("/" not in repo_id)

    @pytest.mark.parametrize(
        "name",
        ["vicuna-7b", "Vicuna-7B-delta-v0", "vicuna-7b-delta-v0-copy", "delta", "tatsu-lab"],
    )
    def test_directory_with_nearly_the_name_decides_nothing(self, name: str) -> None:
        assert is_ambiguous(recognised("vicuna_v0", name))

    @pytest.mark.parametrize("name", ["vicuna-7b-delta-v1.1", "LLaVA-7b-delta-v0", "k2_fp_delta"])
    def test_directory_whose_shapes_belie_its_name_is_not_believed(self, name: str) -> None:
        assert is_ambiguous(recognised("vicuna_v0", name))

    def test_xor_release_is_recognised_by_its_folder(self) -> None:
        found = match(
            repo_id="oasst-sft-6-llama-30b-xor", config={}, delta_shapes={}, base_shapes={}
        )
        assert found.rules is not None
        assert found.rules.encoding == "xor-file"

    def test_doubtful_repository_is_called_so(self) -> None:
        found = recognised("alpaca_wdiff", "WizardLM/WizardLM-7B-V1.0")
        assert found.release is not None
        assert "unverified" in found.reason

    def test_gist_is_recognised_by_the_class_that_saved_it(self) -> None:
        found = recognised("alpaca_wdiff", architectures=["GistLlamaForCausalLM"])
        assert found.rules is not None
        assert found.rules.new_rows == "zero"

    def test_alike_releases_with_other_rules_leave_the_choice_to_the_user(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        llava = release_of("liuhaotian/LLaVA-7b-delta-v0")
        twins = (llava, replace(llava, id="twin", new_rows="mean"))
        monkeypatch.setattr("weightsmith.catalogue.match.load_releases", lambda: twins)
        found = recognised("llava_v0")
        assert is_ambiguous(found)
        assert found.candidates == twins

    def test_ziya_like_shapes_offer_whole_embeddings_and_hub_id_decides_them(self) -> None:
        base = dict.fromkeys(EMBEDDINGS, (400, 32))
        delta = dict.fromkeys(EMBEDDINGS, (512, 32))
        unnamed = match(repo_id=None, config={}, delta_shapes=delta, base_shapes=base)
        assert is_ambiguous(unnamed)
        assert "ziya-llama-13b-v1" in {each.id for each in unnamed.candidates}
        named = match(repo_id="Ziya-LLaMA-13B-v1", config={}, delta_shapes=delta, base_shapes=base)
        assert named.rules is not None
        assert named.rules.whole == WHOLE_WITH_BUFFERS

    def test_fewer_rows_or_other_shapes_are_no_known_release(self) -> None:
        wide, narrow = {"w": (400, 32)}, {"w": (400, 16)}
        for delta, base in (({"w": (399, 32)}, wide), (wide, narrow), ({"v": (1,)}, wide)):
            found = match(repo_id=None, config={}, delta_shapes=delta, base_shapes=base)
            assert (found.rules, found.candidates) == (None, ())

    @given(
        rows=st.integers(1, 20),
        width=st.sampled_from([32, 4096, 5120, 6656, 8192]),
        dtype=st.sampled_from(["float16", "float32"]),
    )
    def test_shapes_alone_never_choose_a_row_policy(
        self, rows: int, width: int, dtype: str
    ) -> None:
        config = {"model_type": "llama", "hidden_size": width, "torch_dtype": dtype}
        base = dict.fromkeys(EMBEDDINGS, (400, width))
        delta = dict.fromkeys(EMBEDDINGS, (400 + rows, width))
        found = match(repo_id=None, config=config, delta_shapes=delta, base_shapes=base)
        assert found.release is None
        assert found.rules is None


class TestContradictions:
    @pytest.mark.parametrize(
        "repo_id, new_rows, whole",
        [
            ("lmsys/vicuna-7b-delta-v0", None, ()),
            ("lmsys/vicuna-7b-delta-v0", "auto", ()),
            ("lmsys/vicuna-7b-delta-v0", "zero", ()),
            ("liuhaotian/LLaVA-7b-delta-v0", "zero", PROJECTOR),
            ("liuhaotian/LLaVA-7b-delta-v0", None, ("model.mm_projector.weight",)),
        ],
    )
    def test_flags_that_say_the_same_are_no_contradiction(
        self, repo_id: str, new_rows: str | None, whole: tuple[str, ...]
    ) -> None:
        assert contradictions(release_of(repo_id), new_rows=new_rows, whole=whole) == []

    @pytest.mark.parametrize(
        "repo_id, new_rows, whole, sentence",
        [
            (
                *("lmsys/vicuna-7b-delta-v0", "mean", ()),
                "`new_rows=mean`: it counts the base's missing rows as zero",
            ),
            (
                *("tatsu-lab/alpaca-7b-wdiff", "zero", ()),
                "`new_rows=zero`: it counts the base's missing rows as mean",
            ),
            (
                *("IDEA-CCNL/Ziya-LLaMA-13B-v1", "zero", ()),
                "`new_rows=zero`: it adds no vocabulary rows to the base's",
            ),
            (
                *("lmsys/vicuna-7b-delta-v0", None, ("lm_head.weight",)),
                "`whole=lm_head.weight`: it stores nothing whole",
            ),
            (
                *("liuhaotian/LLaVA-7b-delta-v0", None, ("*",)),
                "`whole=*`: it stores only model.mm_projector.* whole",
            ),
        ],
    )
    def test_flag_against_the_catalogue_is_told(
        self, repo_id: str, new_rows: str | None, whole: tuple[str, ...], sentence: str
    ) -> None:
        release = release_of(repo_id)
        (told,) = contradictions(release, new_rows=new_rows, whole=whole)
        assert told.startswith(sentence)
        assert release.name in told

    def test_every_contradiction_is_told(self) -> None:
        release = release_of("lmsys/vicuna-7b-delta-v0")
        assert len(contradictions(release, new_rows="mean", whole=("a", "b"))) == 3


class TestPrompts:
    @pytest.mark.parametrize(
        "prompt_id, start, end",
        [
            (
                "vicuna-v0",
                "A chat between a curious human",
                ".\n\n### Human: Hi {x}\n### Assistant:",
            ),
            ("vicuna-v1.1", "A chat between a curious user", ". USER: Hi {x} ASSISTANT:"),
            (
                "alpaca",
                "Below is an instruction that describes a task. Write",
                "request.\n\n### Instruction:\nHi {x}\n\n### Response:",
            ),
            ("llama-2-chat", "[INST] ", "[INST] Hi {x} [/INST]"),
        ],
    )
    def test_prompt_has_its_exact_text(self, prompt_id: str, start: str, end: str) -> None:
        prompt = find_prompt(prompt_id)
        assert prompt is not None
        text = prompt.fill("Hi {x}")
        assert text.startswith(start)
        assert text.endswith(end)

    def test_prompt_that_looks_like_a_placeholder_stays_as_it_is(self) -> None:
        prompt = find_prompt("vicuna-v1.1")
        assert prompt is not None
        assert "USER: {system}{prompt} ASSISTANT:" in prompt.fill("{system}{prompt}")


def test_catalogue_page_is_fresh() -> None:
    page = ROOT / "docs" / "reference" / "catalogue.md"
    assert page.read_text(encoding="utf-8") == render()
