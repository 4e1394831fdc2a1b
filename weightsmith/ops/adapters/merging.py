"""Decide how each tensor of a base is changed by one adapter or several."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.layout import ADAPTER_CONFIG
from weightsmith.checkpoint.tied import HEADS, tied_copies, ties_head
from weightsmith.codecs.lora.steps import format_steps
from weightsmith.codecs.low_rank.given import are_products
from weightsmith.errors import AdapterDoesNotFit, AdapterEmpty
from weightsmith.formats.adapter import AdapterConfig, parse_adapter_config
from weightsmith.formats.adapter_parts import parse_part
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.adapters.doubts import doubts, has_same_head
from weightsmith.plan.adapters import add
from weightsmith.plan.merging import Adapter, Merging, begin
from weightsmith.plan.model import InputTensor

TRANSPOSED: Final = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Model types whose layers store their weight as (in, out).

Peft goes by each layer's class, and leaves in the config what was right for the last one.
"""


def merged(
    base: Checkpoint,
    adapters: Mapping[str, Checkpoint],
    weights: Sequence[float],
    *,
    as_peft: bool,
) -> tuple[Merging, list[str]]:
    """How every tensor of the merged model is made, and notes for the user.

    `weights` are factors on the adapters, in their order. `as_peft` rounds after each step, as peft
    does.
    Raises: AdapterDoesNotFit, AdapterEmpty, and what `parse_adapter_config` raises.
    """
    # Comparing a stored output layer with the input embedding reads both, so it is done only where
    # an adapter changes one of them.
    changed = any(map(_changes_vocabulary, adapters.values()))
    copies = tied_copies(base, compare=True) if changed else {}
    infos = {name: info for name, info in _infos(base).items() if name not in copies}
    tied = bool(copies) or ties_head(base)
    merging = begin(infos, tied=tied, head=next(iter(copies), ""), config=base.config)
    notes = []
    for (role, lora), weight in zip(adapters.items(), weights, strict=True):
        config = _adapter_config(lora, base)
        if not lora.tensors:
            raise AdapterEmpty(adapter=lora.label)
        same_head = merging.tied is not None and has_same_head(lora)
        adapter = Adapter(role, config, _infos(lora), weight, same_head=same_head)
        add(merging, adapter, as_peft=as_peft)
        if problems := [*merging.problems, *merging.uneven]:
            raise AdapterDoesNotFit(
                adapter=lora.label,
                base=base.label,
                count=len(problems),
                context=problems,
            )
        notes += [f"{role} {note}" for note in doubts(lora, config, base)]
    for name, kept in copies.items():
        if merging.head:  # a classifier takes the output layer's place
            continue
        chain = merging.chains[kept]
        merging.chains.setdefault(name, replace(chain, output=replace(chain.output, name=name)))
    return merging, [*notes, *merging.notes]


def touched(merging: Merging, names: Collection[str]) -> bool:
    """Whether adapters change or replace any of these tensors."""
    return any(
        chain.steps or chain.start.role != "base"
        for name, chain in merging.chains.items()
        if name in names
    )


def factors_of(
    base: Checkpoint, adapter: Checkpoint
) -> tuple[dict[str, tuple[InputTensor, ...]], dict[str, str]]:
    """The factors that an adapter adds to tensors of the base, and the steps that combine them,
    both by tensor name.

    Tensors that the adapter changes in another way than by adding products are left out.
    Raises: as `merged`.
    """
    merging, _ = merged(base, {"adapter": adapter}, [1.0], as_peft=False)
    # Peft stores the base's embedding beside a product for it; those tensors are no products.
    chains = {
        name: chain
        for name, chain in merging.chains.items()
        if are_products(chain.steps, [each.info for each in chain.inputs])
    }
    factors = {name: chain.inputs for name, chain in chains.items()}
    return factors, {name: format_steps(chain.steps) for name, chain in chains.items()}


def _changes_vocabulary(lora: Checkpoint) -> bool:
    """Whether an adapter changes the input embedding or the output layer."""
    return any(parse_part(n).tensor.endswith((*INPUT_EMBEDDINGS, *HEADS)) for n in lora.tensors)


def _adapter_config(lora: Checkpoint, base: Checkpoint) -> AdapterConfig:
    """An adapter's settings, with `fan_in_fan_out` set by the base's model type.

    Peft corrects that setting by the class of each layer, and only warns of it.
    Raises: as `parse_adapter_config`.
    """
    raw, file = lora.read_sidecar(ADAPTER_CONFIG), lora.directory / ADAPTER_CONFIG
    config = parse_adapter_config(raw, file, lora.label)
    if "model_type" not in base.config or "auto_map" in base.config:  # its layers are not known
        return config
    return replace(config, fan_in_fan_out=base.config["model_type"] in TRANSPOSED)


def _infos(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    return {name: tensor.info for name, tensor in checkpoint.tensors.items()}
