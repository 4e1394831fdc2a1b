"""Read an adapter's factors for many experts expert by expert, where they are stored by rank."""

from collections.abc import Mapping

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine.derived import Derived
from weightsmith.plan.model import InputTensor, TensorPlan


def regrouped(lora: Checkpoint, experts: Mapping[str, int]) -> Checkpoint:
    """The adapter with some factors reordered as they are read; itself if `experts` is empty.

    `experts` holds the number of experts by factor name. Such a factor is stored rank by rank, and
    read as ``(experts, rows, rank)``.
    """
    if not experts:
        return lora
    rules = []
    for name, tensor in lora.tensors.items():
        source = InputTensor("lora", tensor.info)
        if name in experts:
            rules.append(TensorPlan.make("regroup@1", {"experts": str(experts[name])}, [source]))
        else:
            rules.append(TensorPlan.make("copy@1", {}, [source]))
    derived = Derived(
        label=lora.label,
        directory=lora.directory,
        rules=rules,
        inputs={"lora": lora},
        sidecars={name: lora.sidecar(name) for name in lora.sidecars},
    )
    derived.origin = lora.origin
    return derived
