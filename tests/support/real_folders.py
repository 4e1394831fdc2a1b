"""Folders as people published them in 2023 and since, with real tokenizers and a tiny model of
the full vocabulary, and texts to hold a tokenizer by.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from tests.support import real_files as real
from tests.support.real_files import SCHEMA
from tests.support.tokenizer_folders import Files, document

ENDLESS: Final = 1000000000000000019884624838656
"""The ``model_max_length`` of who did not know one."""
_GOOD: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BLANK: Final = dict.fromkeys(_GOOD, "")
_ENDS: Final = dict.fromkeys(_GOOD, "</s>")


def _llama_config(rows: int = 32000, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 24,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": rows,
        **more,
    }


def _token(text: str) -> dict[str, Any]:
    """A special token as transformers 4.28 wrote it."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": text, **flags}


def _files(config: Mapping[str, Any], settings: Mapping[str, Any], **more: Any) -> Files:
    """Files by name, where ``tokenizer_model`` stands for ``tokenizer.model``."""
    said = {"config": config, "tokenizer_config": settings, **more}
    return {
        "tokenizer.model" if name == "tokenizer_model" else f"{name}.json": raw
        if isinstance(raw, bytes)
        else document(raw)
        for name, raw in said.items()
    }


def decapoda() -> Files:
    """decapoda-research/llama-7b-hf: of the first conversion."""
    return _files(
        _llama_config(
            architectures=["LLaMAForCausalLM"],
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=-1,
            max_sequence_length=2048,
        ),
        {**_BLANK, "model_max_length": ENDLESS, "tokenizer_class": "LLaMATokenizer"},
        special_tokens_map={},
        generation_config={"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1},
        tokenizer_model=real.llama_model(),
    )


def huggyllama() -> Files:
    """huggyllama/llama-7b: converted right, by transformers 4.28."""
    tokens = {role: _token(text) for role, text in _GOOD.items()}
    return _files(
        _llama_config(pad_token_id=0),
        {
            **tokens,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "pad_token": None,
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
        },
        special_tokens_map=tokens,
        tokenizer=real.llama_2_json(),
        tokenizer_model=real.llama_model(),
    )


def yahma() -> Files:
    """yahma/llama-7b-hf: decapoda's with the class and the ids put right, and nothing else."""
    return _files(
        _llama_config(pad_token_id=0),
        {**_BLANK, "model_max_length": ENDLESS, "tokenizer_class": "LlamaTokenizer"},
        special_tokens_map={},
        tokenizer_model=real.llama_model(),
    )


def vicuna_v0() -> Files:
    """lmsys/vicuna-7b-delta-v0: every special token is </s>, and a pad token was added."""
    return _files(
        _llama_config(32001, pad_token_id=-1),
        {
            **_ENDS,
            "model_max_length": 2048,
            "padding_side": "right",
            "tokenizer_class": "LlamaTokenizer",
        },
        added_tokens={"[PAD]": 32000},
        special_tokens_map={**_ENDS, "pad_token": "[PAD]"},
        tokenizer_model=real.llama_model(),
    )


def vicuna_v1_1() -> Files:
    """lmsys/vicuna-7b-delta-v1.1."""
    return _files(
        _llama_config(pad_token_id=0),
        {
            "add_bos_token": True,
            "add_eos_token": False,
            **{role: _token(text) for role, text in _GOOD.items()},
            "model_max_length": 2048,
            "pad_token": None,
            "padding_side": "right",
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
        },
        special_tokens_map={**_GOOD, "pad_token": "<unk>"},
        tokenizer_model=real.llama_model(),
    )


def open_assistant() -> Files:
    """OpenAssistant/oasst-sft-6-llama-30b: tokens of its own behind LLaMA's."""
    own = ["<|prompter|>", "<|system|>", "<|prefix_begin|>", "<|prefix_end|>", "<|assistant|>"]
    return _files(
        _llama_config(32016, pad_token_id=0),
        {**_BLANK, "model_max_length": ENDLESS, "tokenizer_class": "LlamaTokenizer"},
        added_tokens={text: 32000 + n for n, text in enumerate(own)},
        special_tokens_map={
            "additional_special_tokens": own,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "sep_token": "<s>",
        },
        tokenizer_model=real.llama_model(),
    )


def alpaca() -> Files:
    """tatsu-lab/alpaca-7b-wdiff."""
    return _files(
        _llama_config(32001),
        {
            **{role: _token(text) for role, text in _GOOD.items()},
            "model_max_length": 512,
            "padding_side": "right",
            "tokenizer_class": "LLaMATokenizer",
        },
        added_tokens={"[PAD]": 32000},
        special_tokens_map={**_GOOD, "pad_token": "[PAD]"},
        tokenizer_model=real.llama_model(),
    )


def guanaco() -> Files:
    """TheBloke/guanaco-7B-HF: a pad token was added, and no row for it."""
    return _files(
        _llama_config(pad_token_id=0),
        {
            **{role: _token(text) for role, text in _GOOD.items()},
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
            "model_max_length": ENDLESS,
            "tokenizer_class": "LlamaTokenizer",
        },
        added_tokens={"[PAD]": 32000},
        special_tokens_map={**_GOOD, "pad_token": "[PAD]"},
        tokenizer_model=real.llama_model(),
    )


def chinese_llama() -> Files:
    """hfl/chinese-llama-2: Chinese pieces behind LLaMA's, all with the score 0."""
    return _files(
        _llama_config(32000 + len(_CHINESE)),
        {**_GOOD, "add_bos_token": True, "legacy": True, "tokenizer_class": "LlamaTokenizer"},
        special_tokens_map=_GOOD,
        tokenizer_model=chinese_model(),
    )


def llama_2() -> Files:
    """meta-llama/Llama-2-7b-hf."""
    return _files(
        _llama_config(max_position_embeddings=4096, pretraining_tp=1, rope_scaling=None),
        real.settings_of(real.llama_2_settings()),
        special_tokens_map=_GOOD,
        tokenizer=real.llama_2_json(),
        tokenizer_model=real.llama_model(),
    )


def llama_3() -> Files:
    """meta-llama/Meta-Llama-3-8B, as first published: nothing says that a text begins with BOS."""
    return _files(
        _llama_config(128256, bos_token_id=128000, eos_token_id=128001, rope_theta=500000.0),
        real.settings_of(real.llama_3_settings()),
        special_tokens_map={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        generation_config={"bos_token_id": 128000, "eos_token_id": [128001, 128009]},
        tokenizer=real.llama_3_json(),
    )


def mistral() -> Files:
    """mistralai/Mistral-7B-v0.1."""
    config = _llama_config(
        architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4096
    )
    return _files(
        config,
        real.settings_of(real.llama_2_settings()),
        special_tokens_map=_GOOD,
        tokenizer=real.mistral_json(),
        tokenizer_model=real.mistral_model(),
    )


FOLDERS: Final[Mapping[str, Callable[[], Files]]] = {
    "decapoda": decapoda,
    "huggyllama": huggyllama,
    "yahma": yahma,
    "vicuna-v0": vicuna_v0,
    "vicuna-v1.1": vicuna_v1_1,
    "open-assistant": open_assistant,
    "alpaca": alpaca,
    "guanaco": guanaco,
    "chinese-llama": chinese_llama,
    "llama-2": llama_2,
    "llama-3": llama_3,
    "mistral": mistral,
}


_CHINESE: Final = tuple(
    dict.fromkeys(
        [chr(code) for code in range(0x4E00, 0x5200)]
        + re.findall(
            r"..", "中国人民世界和平学习语言模型人工智能机器翻译上海北京今天天气很好我们一起去吧"
        )
    )
)


def chinese_model() -> bytes:
    """Meta's model with Chinese pieces put behind its own, by the script that all such models were
    made with: a piece that LLaMA has not, with the score 0.
    """
    model = SCHEMA.ModelProto()
    model.ParseFromString(real.llama_model())
    known = {piece.piece for piece in model.pieces}
    for text in _CHINESE:
        piece = model.pieces.add()
        piece.piece = text if text not in known else f"{text}{text}"
        piece.score = 0.0
    raw: bytes = model.SerializeToString()
    return raw


def write_model(folder: Path, files: Files, *, seed: int = 0) -> Path:
    """A folder with these files and a tiny model that fits its config."""
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    save_file(
        weights(json.loads(files["config.json"]), seed),
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def weights(config: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Random weights of the config's shapes."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, rows = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    shapes = {
        "model.embed_tokens.weight": (rows, hidden),
        "lm_head.weight": (rows, hidden),
        "model.norm.weight": (hidden,),
        **{f"model.layers.0.self_attn.{n}_proj.weight": (hidden, hidden) for n in "qkvo"},
        **{f"model.layers.0.mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")},
        "model.layers.0.mlp.down_proj.weight": (hidden, inner),
        "model.layers.0.input_layernorm.weight": (hidden,),
        "model.layers.0.post_attention_layernorm.weight": (hidden,),
    }
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        made[name] = (1 + 0.1 * noise if len(shape) == 1 else 0.05 * noise).to(torch.float16)
    return made


# --- texts ----------------------------------------------------------------------------------------

_ATOMS: Final = (
    *("the", "quick", "Brown", "fox", "jumps", "don't", "I'm", "HTTP", "x86_64", "naïve"),
    *(
        "Straße",
        "Ελληνικά",
        "русский",
        "язык",
        "العربية",
        "עברית",
        "हिन्दी",
        "ไทย",
        "한국어",
        "안녕",
    ),
    *(
        "你好",
        "世界",
        "中国人民",
        "これは",
        "テスト",
        "🙂",
        "👩\u200d👧",
        "🇩🇪",
        "½",
        "™",
        "e\u0301",
    ),
    *("0", "7", "42", "3.14159", "1,000,000", "2024-01-31", "-1e-05", "#include", "def f(x):"),
    *("return", "{", "}", "[1, 2]", '"key":', "<div>", "a=b", "://", "&&", "||", "//", "\\n", "'"),
    *(
        ".",
        ",",
        "!",
        "?",
        ":",
        ";",
        "...",
        "--",
        "_",
        "\u2581",
        "\u00a0",
        "\u200b",
        "\ufeff",
        "\x07",
    ),
)
_GAPS: Final = (
    *(" ", " ", " ", " ", "", "", "  ", "   ", "    ", " " * 7, " " * 16, " " * 17, "\t", "\t\t"),
    *("\n", "\n\n", "\r\n", "\n    ", "\n\t", " \n"),
)


def texts(count: int = 500, special: tuple[str, ...] = ("</s>", "<s>")) -> list[str]:
    """Texts of many scripts, gaps of many kinds, special tokens within; always the same."""
    rng = random.Random(12)
    made = []
    for number in range(count):
        parts = []
        for _ in range(rng.randint(1, 14)):
            parts += [rng.choice(_ATOMS), rng.choice(_GAPS)]
        text = "".join(parts)
        if number % 10 == 0:
            text = rng.choice((" ", "  ", "\n", "    ")) + text
        if number % 10 == 5:
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(special) + text[at:]
        made.append(text)
    return made


def sentencepiece_truth(model: bytes, special: Mapping[str, int]) -> Callable[[str], list[int]]:
    """BOS, and what sentencepiece makes of each stretch between special tokens."""
    from sentencepiece import SentencePieceProcessor

    processor: Any = SentencePieceProcessor(model_proto=model)
    longest = sorted(special, key=len, reverse=True)
    split = re.compile(f"({'|'.join(map(re.escape, longest))})")

    def encode(text: str) -> list[int]:
        ids = [1]
        for number, part in enumerate(split.split(text)):
            ids += [special[part]] if number % 2 else processor.encode(part)
        return ids

    return encode
