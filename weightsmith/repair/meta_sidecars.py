"""Config and tokenizer files for a model in Meta's own layout, which has neither."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.catalogue.load import load_bases
from weightsmith.catalogue.schema import Base
from weightsmith.errors import WeightsmithError
from weightsmith.formats.meta_params import Params
from weightsmith.formats.sentencepiece_model import is_tiktoken
from weightsmith.formats.tiktoken_ranks import parse_tiktoken
from weightsmith.repair.contents import CONFIG, GENERATION, MODEL, SETTINGS
from weightsmith.repair.detect import diagnose, mend
from weightsmith.repair.faults import format_object
from weightsmith.repair.tiktoken import (
    BEGIN,
    END,
    END_OF_MESSAGE,
    END_OF_TURN,
    special_tokens,
    tokenizer_files,
)

_LLAMA_1_CONTEXT: Final = 2048
_LLAMA_2_CONTEXT: Final = 4096
_CODE_LLAMA_CONTEXT: Final = 16384
_LLAMA_3_CONTEXT: Final = 8192
_STRETCHED_CONTEXT: Final = 131072
_LLAMA_3_ROWS: Final = 128_000
_UNSTRETCHED_THETA: Final = 10000.0
_SETTINGS: Final = {"clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizer"}
"""Tokenizer settings that conversions always had, and that a repair would not add."""


@dataclass(frozen=True, slots=True)
class MetaFacts:
    """A model in Meta's layout: its ``params.json``, and what its files tell beside that."""

    params: Params
    params_raw: bytes
    sizes: Mapping[str, Any]
    """The part of ``config.json`` that says which shapes the tensors have."""
    tied: bool
    """Whether the output matrix is the input embedding."""
    dtype: str
    """Of the weights, as configs spell it."""
    tokenizer: bytes | None
    """``tokenizer.model``."""

    @property
    def is_llama_3(self) -> bool:
        """Llama 3 and later: another vocabulary and another kind of tokenizer."""
        if self.tokenizer is not None:
            return is_tiktoken(self.tokenizer)
        return self.params.scaled_rope or self.sizes["vocab_size"] > _LLAMA_3_ROWS


def meta_sidecars(facts: MetaFacts) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files beside the weights, by name, and what the user should know of them."""
    context, notes = _context(facts)
    tokenizer: dict[str, bytes] = {}
    if facts.is_llama_3:
        first = _LLAMA_3_ROWS
        special = special_tokens(scaled_rope=facts.params.scaled_rope)
        if facts.tokenizer is not None:
            tokens = parse_tiktoken(facts.tokenizer, MODEL)
            first = len(tokens)
            tokenizer = tokenizer_files(tokens, special, context)
        ids = {text: first + place for place, text in enumerate(special)}
        ends = [ids[text] for text in (END, END_OF_MESSAGE, END_OF_TURN) if text in ids]
        named = {"bos_token_id": ids[BEGIN], "eos_token_id": ids[END]}
        generation = {"bos_token_id": ids[BEGIN], "eos_token_id": ends}
        notes.append("generation ends where the base or the instruct model would")
    else:
        named = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        generation = dict(named)
        if facts.tokenizer is not None:
            tokenizer = {MODEL: facts.tokenizer, SETTINGS: format_object(_SETTINGS)}
    if facts.tokenizer is None:
        notes.append(f"no {MODEL} in the folder or one above: no tokenizer is written")
    files = {
        CONFIG: format_object(dict(sorted({**_config(facts, context), **named}.items()))),
        GENERATION: format_object({"_from_model_config": True, **generation}),
        **tokenizer,
    }
    return _mended(files, facts, notes)


def known_base(params_raw: bytes) -> Base | None:
    """The base of the catalogue whose ``params.json`` this is, byte for byte."""
    for base in load_bases():
        for group in base.checksums:
            digest = hashlib.new(group.algorithm, params_raw).hexdigest()
            if group.of == "meta" and group.files.get("params.json") == digest:
                return base
    return None


def _context(facts: MetaFacts) -> tuple[int, list[str]]:
    """How many positions the model was trained for, and notes on how that was decided.

    None of Meta's files states it.
    """
    params = facts.params
    if params.scaled_rope:
        return _STRETCHED_CONTEXT, []
    if facts.is_llama_3:
        return _LLAMA_3_CONTEXT, []
    if params.rope_theta > _UNSTRETCHED_THETA:
        return _CODE_LLAMA_CONTEXT, []
    base = known_base(facts.params_raw)
    if base is not None:
        return base.max_position_embeddings, [f"params.json is that of {base.name}"]
    if params.says_kv_heads:
        return _LLAMA_2_CONTEXT, []
    alike = [each for each in load_bases() if _is_of_size(facts, each)]
    if len({each.max_position_embeddings for each in alike}) == 1:
        note = f"sizes and norm_eps are those of {' and '.join(each.name for each in alike)}"
        return alike[0].max_position_embeddings, [note]
    note = (
        f"params.json does not tell LLaMA 1 from Llama 2: max_position_embeddings is"
        f" {_LLAMA_1_CONTEXT}, for Llama 2 set it to {_LLAMA_2_CONTEXT}"
    )
    return _LLAMA_1_CONTEXT, [note]


def _is_of_size(facts: MetaFacts, base: Base) -> bool:
    """Whether ``params.json`` and the shapes agree with what the catalogue states of a base."""
    theirs = {key: getattr(base, key, said) for key, said in facts.sizes.items()}
    return theirs == facts.sizes and base.rms_norm_eps == facts.params.norm_eps


def _config(facts: MetaFacts, context: int) -> dict[str, Any]:
    """``config.json`` without the token ids, as transformers 4 spells it; 5 reads that too."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": context,
        "mlp_bias": False,
        "rms_norm_eps": facts.params.norm_eps,
        "rope_scaling": None,
        "rope_theta": facts.params.rope_theta,
        "tie_word_embeddings": facts.tied,
        "torch_dtype": facts.dtype,
        "use_cache": True,
        **facts.sizes,
    }
    if facts.params.scaled_rope:
        # Llama 3.2's small models, which stretch more, are also those that tie their embeddings.
        config["rope_scaling"] = {
            "factor": 32.0 if facts.tied else 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": _LLAMA_3_CONTEXT,
            "rope_type": "llama3",
        }
    return config


def _mended(
    files: dict[str, bytes], facts: MetaFacts, notes: list[str]
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files with the tokenizer's own made from ``tokenizer.model``, as a repair would."""
    if MODEL in files:
        try:
            diagnosis = diagnose(files, embedding_rows=facts.sizes["vocab_size"])
            repair = mend(diagnosis)
        except WeightsmithError as error:
            # The weights are right all the same; a note tells the user.
            notes.append(str(error))
        else:
            files = {**files, **repair.changed}
            notes += diagnosis.unchecked
            left = (fault for fault in diagnosis.faults if fault not in repair.faults)
            notes += [f"{fault.file}: {fault.evidence}" for fault in left]
    return files, tuple(notes)
