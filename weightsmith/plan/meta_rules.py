"""Read Meta's own layout of LLaMA as Hugging Face's: a rule for every tensor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from weightsmith.catalogue.architectures import expected_tensors
from weightsmith.errors import MetaFilesDoNotFit, PartsDoNotFit
from weightsmith.formats.meta_params import Params
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import InputTensor, TensorPlan

Axis = Literal["rows", "columns", "embedding", "same"]
"""How the files share a tensor: its rows, its columns, either, or each has all of it."""

EMBEDDINGS: Final = "model.embed_tokens.weight"
HEAD: Final = "lm_head.weight"
_GATE: Final = "model.layers.0.mlp.gate_proj.weight"
_Table = Mapping[str, tuple[str, Axis]]
_FIRST: Final[_Table] = {"tok_embeddings.weight": (EMBEDDINGS, "embedding")}
_LAST: Final[_Table] = {
    "norm.weight": ("model.norm.weight", "same"),
    "output.weight": (HEAD, "rows"),
}
_LAYER: Final[_Table] = {
    "attention_norm": ("input_layernorm", "same"),
    "attention.wq": ("self_attn.q_proj", "rows"),
    "attention.wk": ("self_attn.k_proj", "rows"),
    "attention.wv": ("self_attn.v_proj", "rows"),
    "attention.wo": ("self_attn.o_proj", "columns"),
    "ffn_norm": ("post_attention_layernorm", "same"),
    "feed_forward.w1": ("mlp.gate_proj", "rows"),
    "feed_forward.w3": ("mlp.up_proj", "rows"),
    "feed_forward.w2": ("mlp.down_proj", "columns"),
}
_ROTATED: Final = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
"""Matrices whose rows stand in another order, head by head."""
_BUFFERS: Final = re.compile(r"rope\.freqs|layers\.\d+\.attention\.inner_attention\.rope\.freqs")
"""Values computed from ``params.json``, which Meta saved with the first LLaMA."""


@dataclass(frozen=True, slots=True)
class MetaRules:
    """How Meta's tensors become Hugging Face's, and what only their shapes tell."""

    tensors: tuple[TensorPlan, ...]
    """In the model's order; the inputs' roles are the names of the files."""
    dropped: tuple[str, ...]
    vocab_size: int
    intermediate_size: int


def plan_meta(
    params: Params, files: Mapping[str, Mapping[str, TensorInfo]], source: str
) -> MetaRules:
    """A rule for every tensor, from the tables of Meta's files in the order of their numbers.

    The embedding's rows or columns are shared by its shape, which Llama 3 changed.
    Raises: MetaFilesDoNotFit, with every problem.
    """
    held = {name for tensors in files.values() for name in tensors}
    if params.n_layers > len(held):
        problem = f"{len(held)} tensors are too few for {params.n_layers} layers"
        raise MetaFilesDoNotFit(source=source, count=1, context=[problem])
    table = _table(params.n_layers)
    dropped = sorted(name for name in held if _BUFFERS.fullmatch(name))
    problems = [f"no place for {name}" for name in sorted(held - table.keys() - {*dropped})]
    tensors: list[TensorPlan] = []
    for theirs, (ours, axis) in table.items():
        lacking = [file for file, tensors_of in files.items() if theirs not in tensors_of]
        if theirs == "output.weight" and len(lacking) == len(files):
            continue  # a model with tied embeddings may leave it out
        if lacking:
            problems.append(f"{theirs} is not in {', '.join(lacking)}")
            continue
        parts = tuple(InputTensor(file, each[theirs]) for file, each in files.items())
        try:
            tensors.append(_rule(ours, axis, parts, params))
        except PartsDoNotFit as error:
            problems.append(str(error))
    shapes = {tensor.output.name: tensor.output.shape for tensor in tensors}
    rules = MetaRules(
        tensors=tuple(tensors),
        dropped=tuple(dropped),
        vocab_size=shapes.get(EMBEDDINGS, (0,))[0],
        intermediate_size=shapes.get(_GATE, (0,))[0],
    )
    problems = problems or _misshapen(shapes, params, rules)
    if problems:
        raise MetaFilesDoNotFit(source=source, count=len(problems), context=problems)
    return rules


def sizes(params: Params, rules: MetaRules) -> dict[str, Any]:
    """The part of ``config.json`` that says which shapes the tensors have."""
    return {
        "model_type": "llama",
        "hidden_size": params.dim,
        "intermediate_size": rules.intermediate_size,
        "num_attention_heads": params.n_heads,
        "num_hidden_layers": params.n_layers,
        "num_key_value_heads": params.n_kv_heads,
        "vocab_size": rules.vocab_size,
    }


def _table(layers: int) -> _Table:
    """Meta's name to Hugging Face's and how the files share it, in the model's order."""
    per_layer = {
        f"layers.{number}.{theirs}.weight": (f"model.layers.{number}.{ours}.weight", axis)
        for number in range(layers)
        for theirs, (ours, axis) in _LAYER.items()
    }
    return {**_FIRST, **per_layer, **_LAST}


def _rule(ours: str, axis: Axis, parts: tuple[InputTensor, ...], params: Params) -> TensorPlan:
    if ours != HEAD and len({each.info.shape for each in parts}) > 1:
        # Only the output's rows are ever shared out unequally, by tools that grew the vocabulary.
        raise PartsDoNotFit(name=ours, reason="the files share it unequally")
    if axis == "embedding":
        axis = "rows" if parts[0].info.shape[1:] == (params.dim,) else "columns"
    rotated = ours.endswith(_ROTATED)
    settings: dict[str, str] = {}
    if axis == "same" or (len(parts) == 1 and not rotated):
        rule, parts = "copy@1", parts[:1]
    else:
        rule, settings["axis"] = "join@1", axis
    if rotated:
        settings["head_rows"] = str(params.head_rows)
    return TensorPlan.make(rule, settings, parts, name=ours)


def _misshapen(
    shapes: Mapping[str, tuple[int, ...]], params: Params, rules: MetaRules
) -> list[str]:
    """Where joint shapes are not those that the sizes of the model ask for."""
    known = expected_tensors(sizes(params, rules))
    expected = known.shapes if known else {}
    return [
        f"{name} is {list(shape)} in all, params.json makes it {list(expected[name])}"
        for name, shape in shapes.items()
        if name in expected and shape != expected[name]
    ]
