"""``adapter_config.json`` is read strictly: what may not be mergeable is refused by name."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pace import examples
from weightsmith.errors import AdapterConfigInvalid, AdapterNotMergeable, JsonInvalid
from weightsmith.formats.adapter import AdapterConfig, parse_adapter_config

ALPACA_LORA = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 8,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}
"""As peft 0.2 wrote it."""


def parse(**settings: Any) -> AdapterConfig:
    return parse_raw(json.dumps(ALPACA_LORA | settings).encode())


def parse_raw(raw: bytes) -> AdapterConfig:
    return parse_adapter_config(raw, Path("adapter_config.json"), "my-lora")


def test_a_config_of_2023_is_understood() -> None:
    config = parse()
    assert (config.rank, config.alpha, config.base) == (8, 16, "decapoda-research/llama-7b-hf")
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 2.0
    assert not config.dora
    assert not config.fan_in_fan_out


def test_every_setting_of_todays_peft_is_read_harmless_or_refused() -> None:
    from peft import LoraConfig

    written = dataclasses.asdict(LoraConfig(r=8, lora_alpha=16))
    config = parse_raw(json.dumps({**written, "target_modules": ["q_proj"]}).encode())
    assert config.scale_of("q_proj") == 2.0


def test_guanacos_alpha_is_a_float() -> None:
    assert parse(r=64, lora_alpha=16.0).scale_of("q_proj") == 0.25


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    assert parse(use_rslora=True).scale_of("q_proj") == 16 / math.sqrt(8)


def test_the_first_pattern_that_matches_the_end_of_a_name_counts() -> None:
    config = parse(
        rank_pattern={"q_proj": 2, r"layers\.1\..*_proj": 4, "v_proj": 6},
        alpha_pattern={"self_attn.v_proj": 32},
    )
    names = {name: f"model.layers.1.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")}
    ranks = {name: config.rank_of(path) for name, path in names.items()}
    assert ranks == {"q_proj": 2, "k_proj": 4, "v_proj": 4}
    assert config.rank_of("model.layers.0.self_attn.v_proj") == 6
    assert config.rank_of("model.layers.0.self_attn.fv_proj") == 8
    assert config.scale_of(names["v_proj"]) == 32 / 4


def test_token_rows_are_named_for_all_or_by_module() -> None:
    assert parse(trainable_token_indices=[3, 1]).rows_of("model.embed_tokens") == (3, 1)
    by_module = parse(trainable_token_indices={"embed_tokens": [1], "lm_head": [2]})
    assert by_module.rows_of("model.embed_tokens") == (1,)
    assert by_module.rows_of("lm_head") == (2,)
    assert by_module.rows_of("model.other_embed_tokens") is None
    assert parse().rows_of("model.embed_tokens") is None


@pytest.mark.parametrize(
    "setting, value",
    [
        ("alora_invocation_tokens", [1, 2]),
        ("arrow_config", {"top_k": 3}),
        ("enable_lora", [True, False, True]),
        ("kasa_config", {"beta": 1}),
        ("layer_replication", [[0, 4], [2, 5]]),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("monteclora_config", {"num_samples": 8}),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
        ("velora_config", {"num_groups": 64}),
        ("something_of_tomorrow", True),
    ],
)
def test_a_setting_that_changes_what_the_numbers_mean_is_refused_by_name(
    setting: str, value: object
) -> None:
    with pytest.raises(AdapterNotMergeable, match=f"my-lora uses {setting}") as caught:
        parse(**{setting: value})
    assert caught.value.context[0].startswith(f"{setting}: ")
    assert parse(**{setting: None}).rank == 8


@pytest.mark.parametrize(
    "init",
    ["pissa", "pissa_niter_16", "PISSA", "olora", "corda", "loftq", "lora_ga", "tomorrow"],
)
def test_an_adapter_whose_base_was_changed_first_is_refused(init: str) -> None:
    with pytest.raises(AdapterNotMergeable, match=f"init_lora_weights {init}") as caught:
        parse(init_lora_weights=init)
    assert "path_initial_model_for_weight_conversion" in caught.value.hint_text


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_an_adapter_that_began_otherwise_is_merged(init: object) -> None:
    assert parse(init_lora_weights=init).rank == 8


def test_all_refused_settings_are_named_at_once() -> None:
    with pytest.raises(AdapterNotMergeable) as caught:
        parse(use_qalora=True, kasa_config={"beta": 1})
    assert len(caught.value.context) == 2


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "LN_TUNING", "BOFT", ["LORA"]])
def test_another_kind_of_adapter_is_refused_by_name(kind: object) -> None:
    with pytest.raises(AdapterNotMergeable, match=re.escape(f"peft_type {kind}")):
        parse(peft_type=kind)


@pytest.mark.parametrize(
    "kind, setting, value, feature",
    [
        ("OFT", "coft", True, "coft"),
        ("VBLORA", "save_only_topk_weights", True, "save_only_topk_weights"),
        ("VERA", "save_projection", False, "save_projection false"),
        ("IA3", "use_dora", True, "use_dora"),
        ("LOHA", "of_tomorrow", 1, "of_tomorrow"),
    ],
)
def test_a_setting_that_another_kind_does_not_have_is_refused_by_name(
    kind: str, setting: str, value: object, feature: str
) -> None:
    written = {"peft_type": kind, "r": 4, "alpha": 8, "topk": 2, setting: value}
    with pytest.raises(AdapterNotMergeable, match=feature):
        parse_raw(json.dumps(written).encode())


def test_every_setting_that_todays_peft_writes_of_other_kinds_is_known() -> None:
    import peft

    for kind in (peft.IA3Config, peft.LoHaConfig, peft.LoKrConfig, peft.OFTConfig, peft.VeraConfig):
        written = dataclasses.asdict(kind())
        assert parse_raw(json.dumps(written).encode()).kind == written["peft_type"]
    written = dataclasses.asdict(peft.AdaLoraConfig(total_step=10))
    assert parse_raw(json.dumps(written).encode()).size == written["init_r"]
    written = dataclasses.asdict(peft.VBLoRAConfig())
    assert parse_raw(json.dumps(written).encode()).size == written["topk"]


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"peft_type": None}, "it has no peft_type"),
        ({"r": None}, "r is None"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"r": 8.0}, "r is 8.0"),
        ({"r": 10**400}, "not a rank"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_alpha": 10**400}, "not a number"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is not an object"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern of q_proj is -1"),
        ({"alpha_pattern": {"q(proj": 4}}, "which is no pattern"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
        ({"trainable_token_indices": [1, -2]}, "not a list of different rows"),
        ({"trainable_token_indices": [1, 1]}, "not a list of different rows"),
        ({"trainable_token_indices": {"embed_tokens": "all"}}, "not a list of different rows"),
    ],
)
def test_a_value_that_cannot_be_is_named(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(AdapterConfigInvalid) as caught:
        parse(**settings)
    assert reason in str(caught.value)


def test_an_alpha_beyond_all_floats_is_named() -> None:
    raw = json.dumps(ALPACA_LORA).replace('"lora_alpha": 16', '"lora_alpha": 1e999').encode()
    with pytest.raises(JsonInvalid, match="1e999 is beyond what a number can be"):
        parse_raw(raw)


def test_what_is_no_object_or_no_json_is_said() -> None:
    with pytest.raises(AdapterConfigInvalid, match="it is not an object"):
        parse_raw(b"[]")
    with pytest.raises(JsonInvalid):
        parse_raw(b"{")


HOSTILE = (
    r"([a-z_.0-9]+)+[!]",
    r"(.*a){30}b",
    "(" + "|".join(["[a-z]*"] * 40) + ")*[!]",
    r"(a|a)" * 40 + "[!]",
    ".*" * 100 + "[!]",
    r"(?:(?:(?:x?){40}){40}){40}y",
)


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_pattern_that_would_be_matched_for_ever_is_given_up(pattern: str) -> None:
    """Or it is seen at once that it cannot match."""
    config = parse(rank_pattern={pattern: 3}, alpha_pattern={pattern: 5})
    module = "model.layers.0.self_attn.q_proj" + "a" * 100
    try:
        assert (config.rank_of(module), config.scale_of(module)) == (8, 2.0)
    except AdapterConfigInvalid as error:
        assert "takes too long to match" in str(error)  # noqa: PT017  (either is right)


@pytest.mark.parametrize(
    "pattern",
    ["q(proj", "a" * 301, "(?i)q_proj", "a{99999999999}", "[", "*"],
)
def test_what_cannot_be_matched_is_no_pattern(pattern: str) -> None:
    with pytest.raises(AdapterConfigInvalid, match="rank_pattern has"):
        parse(rank_pattern={pattern: 3})


PIECES = st.sampled_from(
    [
        *("model", "layers", r"\.", ".", "q_proj", "v_proj", "self_attn", "mlp", "0", "11", r"\d+"),
        *("[0-9]+", "[01]", ".*", ".+", "(q|v)_proj", "(?:k|o)_proj", "(?=q)", "(?!v)", "^", "$"),
        *(
            r"\w+",
            r"\b",
            "{1,2}",
            "{2}",
            "?",
            "{a}",
            "{e<=1}",
            "{",
            "}",
            "[^.]+",
            "(?<=q)",
            "_proj",
        ),
        *(r"(?P<x>q)_proj", "|", r"\{a}"),
    ]
)
MODULES = (
    *("model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head", "q_proj"),
    *("layers.1.v_proj", "model{a}", "m{e<=1}q_proj", ""),
)


@given(st.lists(PIECES, max_size=6).map("".join))
@settings(max_examples=examples(500))
def test_patterns_match_what_peft_would_match(pattern: str) -> None:
    try:
        expected = [bool(re.match(rf"(.*\.)?({pattern})$", name)) for name in MODULES]
    except re.error:
        with pytest.raises(AdapterConfigInvalid):
            parse(rank_pattern={pattern: 3})
        return
    config = parse(rank_pattern={pattern: 3})
    assert [config.rank_of(name) == 3 for name in MODULES] == expected
