"""Merge LoRA adapters into a base: target = base with each adapter's change."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.layout import ADAPTER_CONFIG
from weightsmith.checkpoint.tied import HEADS, OUTPUT_MATRICES, same_bytes, tied_copies, ties_head
from weightsmith.codecs.lora_steps import format_steps
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.errors import AdapterDoesNotFit, AdapterEmpty
from weightsmith.formats.adapter import AdapterConfig, parse_adapter_config
from weightsmith.formats.adapter_parts import parse_part
from weightsmith.formats.tensors import DTYPES, TensorInfo
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.merged_sidecars import merged_sidecars
from weightsmith.plan.adapters import Adapter, Chain, Merging, add, begin
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.model import Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.recognise import open_lora, open_model

Rounding = Literal["once", "peft"]
MergedDType = Literal["base", "float16", "bfloat16", "float32"]
_QUANTISED: Final = re.compile(r"(-unsloth)?-bnb-4bit$")
"""The end of the name of a base that was quantised for training, and is otherwise the same."""
_TRANSPOSED: Final = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Model types whose layers store their weight as (in, out).

Peft goes by each layer's class, and leaves in the config what was right for the last one.
"""


def plan_merge_lora(
    base: str | os.PathLike[str],
    loras: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    rounding: Rounding = "once",
    dtype: MergedDType = "base",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide everything about a merge, reading headers, sidecars and few of the adapters' tensors.

    Adapters are applied in the order given, each to the result of the one before.
    Dtypes: ``once`` computes in float32 and rounds at the end; ``peft`` gives the bits of loading
    the base in the result's dtype and calling ``merge_and_unload`` for one adapter after another.
    A named `dtype` leaves a quantiser's statistics as they are, and but for `dtype_all` what the
    architecture keeps in float32 on purpose.
    Raises: AdapterDoesNotFit with every reason; AdapterNotMergeable, AdapterConfigInvalid,
    AdapterEmpty; TargetIsInput; what opening the sources raises.
    """
    ground = open_model(base, offline=offline, progress=progress)
    given = [loras] if isinstance(loras, str | os.PathLike) else loras
    adapters = {
        f"lora-{number}" if len(given) > 1 else "lora": open_lora(
            lora, offline=offline, progress=progress
        )
        for number, lora in enumerate(given, start=1)
    }
    inputs = {"base": ground, **adapters}
    path = target_apart(target, inputs)
    merging, notes = _merged(ground, adapters, as_peft=rounding == "peft")
    merged = [chain.output for chain in merging.chains.values()]
    casting = plan_casting(ground.config, merged, DTYPES.get(dtype, ""), everything=dtype_all)
    tensors = [_tensor_plan(chain, casting, rounding) for chain in merging.chains.values()]
    outputs = [tensor.output for tensor in tensors]
    sidecars = merged_sidecars(ground, adapters, outputs, parted=merging.parted)
    plan = Plan(
        verb="merge-lora",
        inputs=input_plans(inputs),
        shards=lay_out(tensors, max_shard_nbytes),
        sidecars=sidecars.plans,
        dropped=merging.dropped,
        notes=(*notes, *casting.notes, *sidecars.notes),
    )
    return Job(plan, Bindings(inputs, sidecars.contents, path), faults=sidecars.faults)


def merge_lora(
    base: str | os.PathLike[str],
    loras: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    rounding: Rounding = "once",
    dtype: MergedDType = "base",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write the base with the adapters merged into it to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_merge_lora`.
    Memory: a few spans of 2 MiB and the factors of one layer a worker, beside torch itself.
    Raises: as `plan_merge_lora` and `Job.run`.
    """
    job = plan_merge_lora(
        base,
        loras,
        target,
        rounding=rounding,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=max_shard_nbytes,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def _merged(
    base: Checkpoint, adapters: Mapping[str, Checkpoint], *, as_peft: bool
) -> tuple[Merging, list[str]]:
    """What is made of every tensor, and what the user should know of it.

    Raises: AdapterDoesNotFit, AdapterEmpty, and what `parse_adapter_config` raises.
    """
    # Read only where it matters: an output layer that is stored though it is the input embedding.
    changed = any(map(_changes_vocabulary, adapters.values()))
    copies = tied_copies(base, compare=True) if changed else {}
    infos = {name: info for name, info in _infos(base).items() if name not in copies}
    merging = begin(infos, tied=bool(copies) or ties_head(base), head=next(iter(copies), ""))
    notes = []
    for role, lora in adapters.items():
        config = _adapter_config(lora, base)
        if not lora.tensors:
            raise AdapterEmpty(adapter=lora.label)
        same_head = merging.tied is not None and _has_same_head(lora)
        add(merging, Adapter(role, config, _infos(lora), same_head=same_head), as_peft=as_peft)
        if problems := [*merging.problems, *merging.uneven]:
            raise AdapterDoesNotFit(
                adapter=lora.label,
                base=base.label,
                count=len(problems),
                context=[*_quantised(base), *problems],
            )
        notes += [f"{role} {note}" for note in _doubts(lora, config, base)]
    for name, kept in copies.items():
        chain = merging.chains[kept]
        merging.chains.setdefault(name, replace(chain, output=replace(chain.output, name=name)))
    return merging, [*notes, *merging.notes]


def _changes_vocabulary(lora: Checkpoint) -> bool:
    """Whether an adapter changes the input embedding or the output layer."""
    return any(parse_part(n).tensor.endswith((*INPUT_EMBEDDINGS, *HEADS)) for n in lora.tensors)


def _adapter_config(lora: Checkpoint, base: Checkpoint) -> AdapterConfig:
    """An adapter's settings, what peft corrects by the base's layers corrected by its model type.

    Raises: as `parse_adapter_config`.
    """
    raw, file = lora.read_sidecar(ADAPTER_CONFIG), lora.directory / ADAPTER_CONFIG
    config = parse_adapter_config(raw, file, lora.label)
    if "model_type" not in base.config or "auto_map" in base.config:  # layers of its own code
        return config
    return replace(config, fan_in_fan_out=base.config["model_type"] in _TRANSPOSED)


def _tensor_plan(chain: Chain, casting: Casting, rounding: Rounding) -> TensorPlan:
    """The rule for one tensor; without a step it is copied, or cast where it has another dtype."""
    name, out = chain.output.name, casting.dtype_of(chain.output)
    if not chain.steps:
        return TensorPlan.cast_or_copy(chain.start, out, name=name)
    params = {"dtype": out, "rounding": rounding, "steps": format_steps(chain.steps)}
    return TensorPlan.make("lora@1", params, (chain.start, *chain.inputs), name=name)


def _infos(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    return {name: tensor.info for name, tensor in checkpoint.tensors.items()}


# --- what only the adapters' values tell ----------------------------------------------------------


def _has_same_head(lora: Checkpoint) -> bool:
    """Whether the adapter stores input embedding and output layer, both whole and equal."""
    whole = ("whole", "base_layer")
    wholes = {part.tensor: n for n in lora.tensors if (part := parse_part(n)).kind in whole}
    pair = [
        next((name for tensor, name in wholes.items() if tensor.endswith(names)), None)
        for names in (INPUT_EMBEDDINGS, OUTPUT_MATRICES)
    ]
    left, right = pair
    return left is not None and right is not None and same_bytes(lora, left, right)


def _doubts(lora: Checkpoint, config: AdapterConfig, base: Checkpoint) -> Iterator[str]:
    """Signs that the adapter does nothing, or was made for another base."""
    if _is_zero(lora):
        yield "is all zero: merging it changes nothing"
    theirs = _last_word(config.base)
    ours = {_last_word(name) for name in (base.label, str(base.config.get("_name_or_path", "")))}
    # In the hub's cache the directory is named after a commit, and its grandparent after the model.
    ours |= {_last_word(part.replace("--", "/")) for part in base.directory.resolve().parts}
    if theirs and theirs not in ours:
        yield f"says that it was trained on {config.base}; is {base.label} the same model?"


def _last_word(name: str) -> str:
    """What is left of a name that owners, paths, revisions and quantisers make different."""
    return _QUANTISED.sub("", name.partition("@")[0].rstrip("/").rpartition("/")[2].lower())


def _is_zero(lora: Checkpoint) -> bool:
    """Whether a factor of every product is zero, and there is nothing else."""
    products: dict[str, list[str]] = {}
    for name in lora.tensors:
        part = parse_part(name)
        if part.kind not in {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"}:
            return False
        products.setdefault(part.tensor, []).append(name)
    return all(any(_is_zero_tensor(lora, name) for name in names) for names in products.values())


def _is_zero_tensor(lora: Checkpoint, name: str) -> bool:
    return not lora.read_small(name).strip(b"\0")


def _quantised(base: Checkpoint) -> list[str]:
    """Why nothing may fit, where the base is no model of floats."""
    if "quantization_config" in base.config:
        return ["the base is quantised: merge onto the model that it was made from"]
    return []
