"""What of a fine-tune can be put into an adapter that peft loads, and in which form."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS
from weightsmith.checkpoint.tied import OUTPUT_MATRICES
from weightsmith.codecs.low_rank.form import DTYPES
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import InputTensor, TensorPlan

ProductKind = Literal["linear", "transposed", "embedding"]
Method = Literal["whole", "largest"]

PREFIX: Final = "base_model.model."
"""Before every name in peft's files."""
_EMBEDDING: Final = re.compile(r"(.*embed.*|wte|wpe|shared|relative_attention_bias)")
"""The last word but one of the name of a matrix that rows are taken from."""
_PARAMETERS: Final = ("weight", "bias")
"""What modules that peft can save whole call their tensors."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix whose change becomes a product of two factors."""

    base: TensorInfo
    target: TensorInfo
    kind: ProductKind
    rank: int
    method: Method
    """``whole`` where the change has this rank, ``largest`` where it is cut to it."""

    @property
    def module(self) -> str:
        """Its name without the last word."""
        return _module(self.target.name)

    def rules(self) -> Iterator[TensorPlan]:
        """How both factors are made, A first.

        Shapes: as `codecs.lora.steps.Step` has them.
        """
        inputs = (InputTensor("base", self.base), InputTensor("target", self.target))
        # A linear layer has its inputs in columns, so that A is the right factor, turned; the
        # others have them in rows.
        linear = self.kind == "linear"
        sides = {"A": "right" if linear else "left", "B": "left" if linear else "right"}
        names = "lora_embedding_{}" if self.kind == "embedding" else "lora_{}.weight"
        for letter, side in sides.items():
            params = {
                "side": side,
                "rank": str(self.rank),
                "method": self.method,
                "turned": "yes" if letter == "A" else "no",
            }
            name = f"{PREFIX}{self.module}.{names.format(letter)}"
            yield TensorPlan.make("lora-factor@1", params, inputs, name=name)


@dataclass(slots=True)
class Extraction:
    """What goes into an adapter, and what does not."""

    products: list[Product] = field(default_factory=list)
    whole: dict[str, TensorInfo] = field(default_factory=dict)
    """Tensors of the target that are stored as they are, by the names that they have in memory."""
    tied: bool = False
    """Whether input embedding and output layer are one matrix, and stored whole."""
    left: dict[str, str] = field(default_factory=dict)
    """Tensors that the adapter cannot bring about, and why."""

    @property
    def modules(self) -> list[str]:
        """Modules that are stored whole."""
        return sorted({_module(name) for name in self.whole})

    def rules(self) -> list[TensorPlan]:
        """How all tensors of the adapter are made."""
        rules = [rule for product in self.products for rule in product.rules()]
        for name, info in self.whole.items():
            source = InputTensor("target", info)
            rules.append(TensorPlan.cast_or_copy(source, info.dtype, name=PREFIX + name))
        return rules

    def notes(self) -> Iterator[str]:
        """What a person should know of it, as sentences."""
        for method, said in (
            ("whole", "their whole change"),
            ("largest", "the largest part of their change"),
        ):
            found = [each.rank for each in self.products if each.method == method]
            if found:
                ranks = ", ".join(map(str, sorted(set(found))))
                yield f"{len(found)} matrices: {said}, rank {ranks}"
        if self.whole:
            yield f"stored whole, as modules_to_save: {', '.join(self.modules)}"
        yield from (f"left out: {name}, {why}" for name, why in self.left.items())


def candidates(
    base: Mapping[str, TensorInfo],
    target: Mapping[str, TensorInfo],
    changed: Iterable[str],
    *,
    tied: Iterable[str] = (),
    transposed: bool = False,
) -> tuple[dict[str, ProductKind], Extraction]:
    """Matrices whose change may be a product, and what is decided of all else.

    `changed` are names that both have, `tied` those of input embedding and output layer where they
    are one matrix, and `transposed` says that linear layers store theirs as (in, out).
    """
    kinds: dict[str, ProductKind] = {}
    out = Extraction()
    tied = tuple(tied)
    for name in changed:
        info = target[name]
        module, _, leaf = name.rpartition(".")
        if base[name].shape != info.shape:
            out.left[name] = f"it is {info} in the target, and {base[name]} in the base"
        elif {base[name].dtype, info.dtype} - DTYPES:
            out.left[name] = f"it is {info.dtype}, which no factors change"
        elif name in tied:
            out.whole |= dict.fromkeys(tied, info)
            out.tied = True
        elif leaf == "weight" and len(info.shape) == 2:
            kinds[name] = _kind(module, transposed=transposed)
        elif leaf in _PARAMETERS and len(info.shape) == 1:
            out.whole[name] = info
        else:
            out.left[name] = "peft has no adapter for a tensor of its kind"
    for name in target.keys() - base.keys():
        out.left[name] = "the base does not have it"
    for name in base.keys() - target.keys():
        out.left[name] = "the target does not have it"
    return kinds, out


def settle(
    out: Extraction,
    kinds: Mapping[str, ProductKind],
    ranks: Mapping[str, int],
    base: Mapping[str, TensorInfo],
    target: Mapping[str, TensorInfo],
    most: int | None,
) -> list[str]:
    """Decide for each matrix, by the rank of its change (0, where it has none) and the `most` that
    was asked for; returns those for which there is no answer without one.

    An embedding or output layer without an answer is stored whole. What is stored whole takes its
    module along, and cannot be beside a product.
    """
    open_questions = []
    for name, kind in kinds.items():
        rank, info = ranks[name], target[name]
        limit = min(info.shape)
        if rank and (most is None or rank <= most):
            out.products.append(Product(base[name], info, kind, rank, "whole"))
        elif most is not None:
            out.products.append(Product(base[name], info, kind, min(most, limit), "largest"))
        elif kind == "embedding" or name.endswith((*INPUT_EMBEDDINGS, *OUTPUT_MATRICES)):
            out.whole[name] = info
        else:
            open_questions.append(name)
    with_product = {each.module for each in out.products}
    for name in [name for name in out.whole if _module(name) in with_product]:
        del out.whole[name]
        out.left[name] = "its module has a product, beside which peft stores nothing whole"
    for module in out.modules:
        names = (f"{module}.{leaf}" for leaf in _PARAMETERS)
        out.whole |= {name: target[name] for name in names if name in target}
    return open_questions


def adapter_config(
    out: Extraction, *, base: str, revision: str, names: Iterable[str], config: Mapping[str, Any]
) -> bytes:
    """The ``adapter_config.json`` of an extraction; `names` are all of the target's tensors, and
    `config` is its own.

    Source: peft 0.21 ``LoraConfig``.
    """
    ranks = Counter(each.rank for each in out.products)
    usual = ranks.most_common(1)[0][0]
    others = {each.module: each.rank for each in out.products if each.rank != usual}
    modules = [each.module for each in out.products]
    architectures = config.get("architectures") or [""]
    causal = str(architectures[0]).endswith(("ForCausalLM", "LMHeadModel"))
    document = {
        "alpha_pattern": others,
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": any(each.kind == "transposed" for each in out.products),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "modules_to_save": out.modules or None,
        "peft_type": "LORA",
        "r": usual,
        "rank_pattern": others,
        "revision": revision or None,
        "target_modules": _targets(modules, names),
        "task_type": "CAUSAL_LM" if causal else None,
        "use_dora": False,
        "use_rslora": False,
    }
    if out.tied:
        document["ensure_weight_tying"] = True
    return (json.dumps(document, indent=2) + "\n").encode()


def _targets(modules: Sequence[str], names: Iterable[str]) -> list[str]:
    """What peft is to look for: last words of modules, where all modules with these words are
    meant, or else the modules' whole names.
    """
    last = sorted({_leaf(module) for module in modules})
    matched = {_module(name) for name in names if _leaf(_module(name)) in last}
    return last if matched == set(modules) else sorted(modules)


def _kind(module: str, *, transposed: bool) -> ProductKind:
    if _EMBEDDING.fullmatch(_leaf(module)):
        return "embedding"
    return "transposed" if transposed and _leaf(module) != "lm_head" else "linear"


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
