"""Plan an exact delta: which tensor of the base each tensor of the target is coded against."""

from collections.abc import Mapping

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.codecs.exact.codec import params_of, serves_as_base
from weightsmith.plan.model import InputTensor, ShardPlan, TensorPlan


def plan_files(
    base: Checkpoint, target: Checkpoint, factors: Mapping[str, tuple[InputTensor, ...]]
) -> tuple[ShardPlan, ...]:
    """One file of the delta for each weight file of the target, in their order.

    A tensor is coded against the base's of the same name; without one, against that of a tensor
    that it is tied to. Buffers of the base are left: the same base without them, as today's tools
    write it, must do too. `factors` are those of an adapter that may have been merged into the
    base's tensors, by their names.
    """
    infos = {name: tensor.info for name, tensor in base.tensors.items()}
    bases = {name: info for name, info in infos.items() if not is_buffer(name, info.shape)}
    tied = {each.place: bases[name] for name, each in target.tensors.items() if name in bases}
    shards: dict[str, list[TensorPlan]] = {}
    if not target.rules:  # of a derived target, no tensor lies in a file
        shards = {file.name: [] for file in target.files}
    for name, tensor in target.tensors.items():
        known = bases.get(name) or tied.get(tensor.place)
        inputs = [InputTensor("target", tensor.info)]
        if known is not None and serves_as_base(known, tensor.info):
            inputs.insert(0, InputTensor("base", known))
            inputs += factors.get(known.name, ())
        rule = TensorPlan(tensor.info, "exact@1", params_of(tensor.info), tuple(inputs))
        shards.setdefault(tensor.file, []).append(rule)
    return tuple(
        ShardPlan(f"delta-{number:05d}-of-{len(shards):05d}.safetensors", tuple(tensors))
        for number, tensors in enumerate(shards.values(), start=1)
    )
