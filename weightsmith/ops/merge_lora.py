"""Merge LoRA adapters into a base: target = base with each adapter's change."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint, open_adapter
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.checkpoint.discover import ADAPTER_CONFIG
from weightsmith.codecs.lora_steps import format_steps
from weightsmith.codecs.registry import codec
from weightsmith.engine import run as engine
from weightsmith.engine.bindings import Bindings, Options
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.errors import AdapterDoesNotFit, AdapterEmpty
from weightsmith.formats.adapter import AdapterConfig, parse_adapter_config
from weightsmith.formats.adapter_parts import parse_part
from weightsmith.formats.tensors import SUMMABLE, TORCH_NAMES
from weightsmith.ops.job import Job, carry_out, input_plans, target_apart
from weightsmith.ops.sidecars import merged_sidecars
from weightsmith.ops.sources import open_source
from weightsmith.plan.adapters import HEADS, Adapter, Chain, Merging, add, begin
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out

Rounding = Literal["once", "peft"]
MergedDType = Literal["base", "float16", "bfloat16", "float32"]
_CODES: Final = {name: code for code, name in TORCH_NAMES.items()}


def plan_merge_lora(
    base: str | os.PathLike[str],
    loras: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    rounding: Rounding = "once",
    dtype: MergedDType = "base",
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
) -> Job:
    """Decide everything about a merge, reading headers, sidecars and a few of the adapters' tensors.

    Adapters are applied in the order given, each to the result of the one before.
    Dtypes: ``once`` computes in float32 and rounds at the end; ``peft`` gives the bits of loading
    the base in the result's dtype and calling ``merge_and_unload`` for one adapter after another.
    Raises: AdapterDoesNotFit with every reason; AdapterNotMergeable, AdapterConfigInvalid,
    AdapterEmpty; TargetIsInput; what opening the sources raises.
    """
    ground = open_source(base)
    opened = {
        f"lora-{number}" if len(loras) > 1 else "lora": open_lora(lora)
        for number, lora in enumerate(loras, start=1)
    }
    inputs = {"base": ground, **opened}
    path = target_apart(target, inputs)
    configs = {role: _config(lora) for role, lora in opened.items()}
    merging = _merged(ground, opened, configs, as_peft=rounding == "peft")
    tensors = [_tensor_plan(chain, dtype, rounding) for chain in merging.chains.values()]
    outputs = [tensor.output for tensor in tensors]
    sidecars = merged_sidecars(ground, opened, outputs, tied=None if merging.tied else False)
    notes = [
        note
        for role, lora in opened.items()
        for note in _warnings(role, lora, configs[role], ground)
    ]
    plan = Plan(
        verb="merge-lora",
        inputs=input_plans(inputs),
        shards=lay_out(tensors, max_shard_nbytes),
        sidecars=sidecars.plans,
        dropped=merging.dropped,
        notes=(*notes, *merging.notes, *sidecars.notes),
    )
    return Job(plan, Bindings(inputs, sidecars.contents, path), faults=sidecars.faults)
