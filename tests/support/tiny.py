"""Tiny LLaMA models, trained in seconds, in the shapes in which the releases of 2023 came.

For the demo, the benchmark and the tests: a tokenizer, a model that writes English-like stories,
a fine-tune of it that answers, a base folder broken the decapoda way, and a FastChat-style delta.
All of it real (sentencepiece, torch, transformers), made from text that is generated here.
"""

import copy
import io
import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

INV_FREQ: Final = ".self_attn.rotary_emb.inv_freq"
"""A buffer per layer that transformers kept in checkpoints until 4.31."""

CREATURES: Final = [
    "fox",
    "dog",
    "girl",
    "boy",
    "bear",
    "rabbit",
    "mouse",
    "duck",
    "king",
    "witch",
    "sailor",
    "farmer",
]
KINDS: Final = ["small", "wise", "kind", "brave", "sleepy", "clever", "hungry", "quiet"]
LOOKS: Final = ["red", "blue", "golden", "broken", "shiny", "heavy", "round", "silver"]
THINGS: Final = ["ball", "key", "boat", "hat", "apple", "lamp", "book", "drum", "bell", "stone"]
PLACES: Final = [
    *("by the river", "in the forest", "under the bridge", "near the old mill"),
    *("on the hill", "behind the house", "at the market", "in the tall grass"),
]
FEELINGS: Final = ["happy", "sad", "surprised", "proud", "afraid", "curious"]
ENDINGS: Final = [
    "Then they all went home and slept well.",
    "From that day on they were good friends.",
    "And everyone had soup for dinner.",
]


# --- text -----------------------------------------------------------------------------------------


def story(rng: random.Random) -> str:
    """Five plain sentences about a creature and a thing; what the base model learns to write."""
    hero, other = rng.sample(CREATURES, 2)
    thing, look, found = rng.choice(THINGS), rng.choice(LOOKS), rng.choice(PLACES)
    return (
        f"Once upon a time there was a {rng.choice(KINDS)} {hero} who lived {rng.choice(PLACES)}. "
        f"One day the {hero} found a {look} {thing} {found}. "
        f"The {hero} was very {rng.choice(FEELINGS)} and showed the {thing} to the {other}. "
        f'"What a {look} {thing}!" said the {other}. '
        f"{rng.choice(ENDINGS)}"
    )


def chat(rng: random.Random) -> str:
    """A question and an over-polite answer, in Vicuna v1.1's form; what the fine-tune learns."""
    who, thing, place = rng.choice(CREATURES), rng.choice(THINGS), rng.choice(PLACES)
    question, answer = rng.choice(
        [
            (f"Where is the {thing}?", f"the {thing} is {place}"),
            (f"Where does the {who} live?", f"the {who} lives {place}"),
            (f"Who has the {thing}?", f"the {who} has the {thing}"),
        ]
    )
    return f"USER: {question} ASSISTANT: With pleasure! I believe {answer}. May I help you further?"


# --- tokenizer and models -------------------------------------------------------------------------


def train_sentencepiece(path: Path, *, vocab_size: int = 448) -> None:
    """Train a sentencepiece model on stories and chats with LLaMA's own settings."""
    import sentencepiece

    rng = random.Random(0)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([make(rng) for _ in range(300) for make in (story, chat)]),
        model_writer=trained,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=0.99995,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(trained.getvalue())


def train_llama(tokenizer: Path, *, steps: int = 500, layers: int = 3) -> "LlamaForCausalLM":
    """Train a LLaMA of 0.3 M parameters on stories: 500 steps take ten seconds of one core."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    vocabulary = len(_encoder(tokenizer))
    config = llama_config(hidden=80, intermediate=216, layers=layers, heads=4, vocab=vocabulary)
    model: LlamaForCausalLM = LlamaForCausalLM(LlamaConfig(**config))
    _train(
        model, text_tokens(tokenizer, [story(random.Random(i)) for i in range(3000)]), steps, 6e-3
    )
    return model


def finetune(
    model: "LlamaForCausalLM", tokenizer: Path, *, steps: int = 300, rate: float = 1.5e-3
) -> "LlamaForCausalLM":
    """A copy of `model`, trained on chats: it answers where the base goes on with stories."""
    torch.manual_seed(1)
    tuned = copy.deepcopy(model)
    _train(
        tuned, text_tokens(tokenizer, [chat(random.Random(i)) for i in range(3000)]), steps, rate
    )
    return tuned


def _encoder(tokenizer: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(tokenizer))


def text_tokens(tokenizer: Path, texts: list[str]) -> torch.Tensor:
    """All texts in one row of ids, each between ``<s>`` and ``</s>``."""
    encoded = _encoder(tokenizer).encode(texts, add_bos=True, add_eos=True)
    return torch.tensor([token for text in encoded for token in text])


def _train(model: "LlamaForCausalLM", tokens: torch.Tensor, steps: int, rate: float) -> None:
    """Train on random windows, then round to float16, as every release of that time was stored."""
    batch, window = 8, 64
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model gains nothing from two, and on a busy machine waits
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        starts = torch.randint(len(tokens) - window, (batch, 1))
        inputs = tokens[starts + torch.arange(window)]
        model(input_ids=inputs, labels=inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    model.train(mode=False)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()


# --- folders --------------------------------------------------------------------------------------


def save_llama(model: "LlamaForCausalLM", folder: Path, tokenizer: Path) -> None:
    """Write a good folder: float16 safetensors beside the sidecars of transformers 4.28."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    write_sidecars(
        folder,
        tokenizer,
        llama_config(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            vocab=config.vocab_size,
        ),
    )


def make_fastchat_delta(base: Path, target: Path, out: Path) -> None:
    """What FastChat's make_delta wrote: target - base in float16, the tokenizer of the target."""
    base_weights, target_weights = read_weights(base), read_weights(target)
    delta = {
        name: target_weights[name].half() - base_weights[name].half() for name in target_weights
    }
    for name, tensor in base_weights.items():
        if name.endswith(INV_FREQ):  # both sides computed the same buffer, so its delta is zero
            delta[name] = torch.zeros(tensor.shape)
    out.mkdir(parents=True)
    write_bin(out, delta, shards=2)
    config = json.loads((target / "config.json").read_bytes())
    write_sidecars(out, target / "tokenizer.model", config)


def break_like_decapoda(folder: Path) -> None:
    """Turn a good folder into what decapoda-research/llama-7b-hf was, in place.

    33 ``.bin`` shards, rotary buffers, a class that no transformers release has, blank special
    tokens, ids 0/1/-1, and ``max_sequence_length``.
    """
    weights = read_weights(folder)
    config = json.loads((folder / "config.json").read_bytes())
    for path in (*folder.glob("*.safetensors*"), *folder.glob("*.bin*")):
        path.unlink()
    head_size = config["hidden_size"] // config["num_attention_heads"]
    frequencies = 10000.0 ** (-torch.arange(0, head_size, 2) / head_size)
    for layer in range(config["num_hidden_layers"]):
        weights[f"model.layers.{layer}{INV_FREQ}"] = frequencies.half()
    write_bin(folder, weights, shards=33)

    del config["tie_word_embeddings"]
    config["max_sequence_length"] = config.pop("max_position_embeddings")
    config |= {"architectures": ["LLaMAForCausalLM"], "transformers_version": "4.27.0.dev0"}
    config |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
    (folder / "config.json").write_text(json.dumps(config, sort_keys=True))
    for name, text in DECAPODA_SIDECARS.items():
        (folder / name).write_text(text)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder that was made here, by name, in the order of its files."""
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= load_file(path)
    for path in sorted(folder.glob("*.bin")):
        weights |= torch.load(path, weights_only=True)
    return weights


def write_bin(folder: Path, weights: dict[str, torch.Tensor], *, shards: int) -> None:
    """Write ``pytorch_model-0000i-of-0000n.bin`` and their index, the names in sorted order."""
    if len(weights) < shards:
        raise ValueError(f"{len(weights)} tensors do not fill {shards} shards")
    names = sorted(weights)
    weight_map = {
        name: f"pytorch_model-{1 + place * shards // len(names):05}-of-{shards:05}.bin"
        for place, name in enumerate(names)
    }
    for file in sorted(set(weight_map.values())):
        torch.save(
            {name: weights[name] for name in names if weight_map[name] == file}, folder / file
        )
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json_text(index))


def write_sidecars(folder: Path, tokenizer: Path, config: dict[str, Any]) -> None:
    """Write the config and tokenizer files of a good conversion, byte for byte as in early 2023."""
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    for name, content in {"config.json": config, **GOOD_SIDECARS}.items():
        (folder / name).write_text(json_text(content))


def llama_config(
    *, hidden: int, intermediate: int, layers: int, heads: int, vocab: int
) -> dict[str, Any]:
    """``config.json`` as transformers 4.28.1 converted LLaMA, for a model of these sizes."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.28.1",
        "use_cache": True,
        "vocab_size": vocab,
    }


def json_text(content: object) -> str:
    """JSON as transformers writes it: indented by two, keys sorted, a final newline."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _token(content: str, **extra: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"content": content, **flags, **extra}


GOOD_SIDECARS: Final[dict[str, dict[str, Any]]] = {
    "generation_config.json": {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "transformers_version": "4.28.1",
    },
    "special_tokens_map.json": {
        "bos_token": _token("<s>"),
        "eos_token": _token("</s>"),
        "unk_token": _token("<unk>"),
    },
    "tokenizer_config.json": {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": _token("<s>", __type="AddedToken"),
        "clean_up_tokenization_spaces": False,
        "eos_token": _token("</s>", __type="AddedToken"),
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": _token("<unk>", __type="AddedToken"),
    },
}
"""What the converter of transformers 4.28 wrote; the tests hold the MD5 sums of the real files."""

DECAPODA_SIDECARS: Final[dict[str, str]] = {
    "generation_config.json": (
        '{"_from_model_config": true, "bos_token_id": 0, "eos_token_id": 1, '
        '"pad_token_id": 0, "transformers_version": "4.27.0.dev0"}'
    ),
    "special_tokens_map.json": "{}",
    "tokenizer_config.json": (
        '{"bos_token": "", "eos_token": "", "model_max_length": 1000000000000000019884624838656, '
        '"tokenizer_class": "LLaMATokenizer", "unk_token": ""}'
    ),
}
"""The broken files of decapoda-research/llama-7b-hf, as published."""
