"""Pair the tensors of adapters with those of a base: what each output tensor is made of."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS
from weightsmith.checkpoint.tied import HEADS
from weightsmith.codecs.lora.steps import Step, grown_rows
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.adapter_parts import parse_part
from weightsmith.formats.adapter_settings import AdapterKind
from weightsmith.formats.tensors import SUMMABLE, TensorInfo
from weightsmith.plan.adapter_experts import expert_modules, expert_steps, is_parameter
from weightsmith.plan.adapter_heads import find_head, is_value_head
from weightsmith.plan.adapter_kinds import adalora, ia3, loha, lokr, oft, vblora, vera
from weightsmith.plan.adapter_names import Names
from weightsmith.plan.adapter_steps import Change, Found, bias, product, token_rows
from weightsmith.plan.adapter_ties import parted
from weightsmith.plan.merging import Adapter, Chain, Merging
from weightsmith.plan.model import InputTensor
from weightsmith.units import counted

_TWICE: Final = ("whole", "lora_magnitude_vector")
"""What peft itself may save under two names: as what was trained, and with the layer as it is."""
_FINDERS: Final[
    Mapping[AdapterKind, tuple[Callable[[TensorInfo, Change, AdapterConfig], Found], ...]]
] = {
    "LORA": (product, bias, token_rows),
    "ADALORA": (adalora,),
    "LOHA": (loha,),
    "LOKR": (lokr,),
    "IA3": (ia3,),
    "OFT": (oft,),
    "VERA": (vera,),
    "VBLORA": (vblora,),
}
"""What looks for steps that change a tensor, by kind; in the order in which they are done."""
_SHARED: Final = {"vera_lambda_d": ("vera_A", "vera_B"), "vblora_logits_A": ("vblora_vector_bank",)}
"""What a layer's change takes besides, of the tensors that all layers share."""


def add(merging: Merging, adapter: Adapter, *, as_peft: bool) -> None:
    """Put an adapter behind what is there; each tensor of it finds its place or is a problem.

    Where the output layer is tied to the input embedding and the adapter changes one of them, the
    two part, for so it was trained. With `as_peft` a product for either changes both, as in peft.
    """
    names = Names(merging.holds, merging.family.renamed if merging.family else {})
    named = _by_name(merging, adapter)
    experts = expert_modules(named, adapter.config, merging.family)
    _add_head(merging, adapter, named, names)
    changes = _placed(merging, adapter, named, names)
    for target, change in parted(merging, adapter, changes, as_peft=as_peft):
        changed = _changed(merging, merging.chains[target], change, adapter)
        if isinstance(changed, str):
            merging.problems.append(changed)
        else:
            merging.chains[target] = changed
    _add_experts(merging, adapter, experts, names)
    merging.notes += names.notes(adapter.role)


def _by_name(merging: Merging, adapter: Adapter) -> dict[str, Change]:
    """The adapter's tensors by the name that it has for the tensor that they change."""
    named: dict[str, Change] = {}
    copies = 0
    # The plain name first: the same tensor may follow as `modules_to_save`, and is left then.
    for name, info in sorted(adapter.tensors.items(), key=lambda each: len(each[0])):
        part = parse_part(name)
        if part.kind == "original":
            copies += 1
            continue
        parts = named.setdefault(part.tensor, Change(part.module, {})).parts
        if part.kind not in parts:
            parts[part.kind] = info
        elif part.kind in _TWICE:
            copies += 1
        else:
            merging.problems.append(f"{part.kind} of {part.tensor} is there twice, once as {name}")
    if copies:
        merging.notes.append(
            f"{adapter.role} holds {counted(copies, 'tensor')} twice: second copies are not used"
        )
    return named


def _add_head(merging: Merging, adapter: Adapter, named: dict[str, Change], names: Names) -> None:
    """Take heads that the base lacks out of `named`: a classifier takes the place of the output
    layer, a value head is no part of a plain model.
    """
    values = [name for name, change in named.items() if is_value_head(name, change.parts)]
    if values:
        merging.notes.append(
            f"{adapter.role} holds a value head ({', '.join(values)}), which is no part of a plain "
            "model: left out"
        )
    wholes = {
        name: change.parts["whole"]
        for name, change in named.items()
        if change.parts.keys() == {"whole"} and name not in values and not names.find(name)
    }
    head, tensors = find_head(wholes, adapter.role, adapter.config.task_type)
    for name in (*values, *tensors):
        named.pop(name)
    if head is None:
        return
    outputs = [name for name in merging.chains if name.endswith(HEADS)]
    at = [*outputs, *(n for n in merging.chains if n.endswith(INPUT_EMBEDDINGS)), *merging.chains]
    dtype = merging.chains[at[0]].output.dtype
    for name in outputs:
        del merging.chains[name]
    merging.vocabulary -= set(outputs)
    merging.tied, merging.head = None, head
    for name, info in tensors.items():
        output = TensorInfo(name, dtype, info.shape)
        merging.chains[name] = Chain(output, InputTensor(adapter.role, info))
    left = f" in place of {', '.join(outputs)}" if outputs else ""
    merging.notes.append(
        f"{adapter.role} brings a head, {', '.join(tensors)}{left}: {counted(head.labels, 'label')}"
    )


def _placed(
    merging: Merging, adapter: Adapter, named: dict[str, Change], names: Names
) -> dict[str, Change]:
    """The changes by the base's tensors that they are for."""
    changes: dict[str, Change] = {}
    shared = named.pop("", Change("", {})).parts
    unused = {info.name for info in shared.values()}
    for name, change in named.items():
        target = names.place(name)
        if target is None:
            merging.problems += [
                f"no {name} in the base for {info.name}" for info in change.parts.values()
            ]
            continue
        change.is_parameter = is_parameter(change.module, adapter.config)
        for kind, others in _SHARED.items():
            if kind in change.parts:
                change.parts |= {other: shared[other] for other in others if other in shared}
                unused -= {info.name for info in change.parts.values()}
        if target in changes:
            merging.problems.append(f"{name} and {changes[target].module} are both {target}")
        changes[target] = change
        scales = change.parts.get("ia3_l")
        biased = names.place(f"{change.module}.bias") if scales is not None else None
        if scales is not None and scales.shape[1:] == (1,) and biased:
            changes[biased] = Change(change.module, {"ia3_l": scales})
    merging.problems += [f"no layer of the adapter takes {name}" for name in sorted(unused)]
    return changes


def _add_experts(
    merging: Merging, adapter: Adapter, modules: dict[str, list[Change]], names: Names
) -> None:
    """Put what is done to experts behind what is there."""
    if modules and merging.family is None:
        first = next(iter(modules))
        merging.problems.append(
            f"{first} holds all experts of a layer as one, and how models of type "
            f"{merging.model_type or 'unknown'} store them is not known"
        )
        return
    if merging.family is None:
        return
    infos = {name: chain.output for name, chain in merging.chains.items()}
    for found in expert_steps(modules, adapter.config, merging.family, names, infos):
        if isinstance(found, str):
            merging.problems.append(found)
            continue
        if found.experts:
            grouped = merging.grouped.setdefault(adapter.role, {})
            grouped[found.b.name] = found.experts.count
        chain = replace(merging.chains[found.target], experts=found.experts)
        behind = _behind(merging, chain, found.step, (found.a, found.b), adapter)
        if isinstance(behind, str):
            merging.problems.append(behind)
        else:
            merging.chains[found.target] = behind


def _changed(merging: Merging, chain: Chain, change: Change, adapter: Adapter) -> Chain | str:
    """The chain with one adapter's change behind it, or why that cannot be."""
    stored = change.parts.get("base_layer") or change.parts.get("whole")
    grows = chain.output.name in merging.vocabulary
    if stored is not None:
        same = stored.dtype == chain.output.dtype or {stored.dtype, chain.output.dtype} <= SUMMABLE
        if stored.shape[int(grows) :] != chain.output.shape[int(grows) :] or not same:
            return f"{chain.output.name} is {chain.output} in the base, not {stored}"
        if adapter.weight != 1 and "whole" in change.parts:
            return f"{chain.output.name} is replaced as a whole, which cannot be weighted"
        output = replace(chain.output, shape=stored.shape)
        chain = Chain(output, InputTensor(adapter.role, stored))
    used: set[str] = {info.name for info in (stored,) if info is not None}
    factors = [info for info in change.parts.values() if info is not stored]
    # From here on everything has rows, by which the finders tell whether shapes fit.
    if factors and (odd := [info for info in (chain.output, *factors) if not info.shape]):
        return f"{odd[0].name} is {odd[0]}, a single number, where rows are due"
    if factors and not chain.output.numel:
        return f"{chain.output.name} is {chain.output}, and has no elements to change"
    for find in _FINDERS[adapter.config.kind]:
        found = find(chain.output, change, adapter.config)
        if isinstance(found, str):
            return found
        if found is None:
            continue
        step, infos = found
        used |= {info.name for info in infos}
        behind = _behind(merging, chain, step, infos, adapter)
        if isinstance(behind, str):
            return behind
        chain = behind
    if left := {info.name for info in change.parts.values()} - used:
        return f"{adapter.config.kind} adapters have no {', '.join(sorted(left))}"
    return chain


def _behind(
    merging: Merging, chain: Chain, step: Step, infos: tuple[TensorInfo, ...], adapter: Adapter
) -> Chain | str:
    """The chain with a step behind it, or why that cannot be."""
    if adapter.weight != 1:
        if step.dora or not (step.is_sum or step.kind == "bias"):
            what = "DoRA" if step.dora else step.kind
            return f"{chain.output.name}: {what} is no sum, and cannot be weighted"
        step = step.weighted(adapter.weight)
    for info in (chain.start.info, *infos):
        if info.dtype not in SUMMABLE:
            return f"{info.name} is {info.dtype}, which is no float that can be added to"
    rows = chain.output.shape[0]
    grown = max(rows, grown_rows(step))
    grows = chain.output.name in merging.vocabulary
    if grown > rows and not (grows and set(step.rows).issuperset(range(rows, grown))):
        return f"{chain.output.name} has {rows} rows, and the adapter not all that it lacks"
    return replace(
        chain,
        output=replace(chain.output, shape=(grown, *chain.output.shape[1:])),
        steps=(*chain.steps, step),
        inputs=(*chain.inputs, *(InputTensor(adapter.role, info) for info in infos)),
    )
