"""Hold what a shard became against what its plan says it must be, and say whose fault it is."""

from collections.abc import Mapping, Sequence

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import DeltaInvalid, WrongBase
from weightsmith.plan.model import InputTensor, ShardPlan


def require_expected(
    shard: ShardPlan,
    digests: Mapping[str, str],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
) -> None:
    """Compare the digests of a shard's tensors with the planned ones, where there are any.

    Only if one differs, the inputs are digested: a right output proves them right.
    Raises: WrongBase, if an input is not what it must be; else DeltaInvalid.
    """
    wrong = [t for t in shard.tensors if t.digest and digests[t.output.name] != t.digest]
    if not wrong:
        return
    suspects = {each.info.name: each for tensor in wrong for each in tensor.inputs if each.digest}
    require_inputs(list(suspects.values()), inputs, buffers)
    raise DeltaInvalid(
        name=f"tensor {wrong[0].output.name}",
        reason="it decodes to other bytes than it should",
        context=[tensor.output.name for tensor in wrong],
    )


def require_inputs(
    tensors: Sequence[InputTensor], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> None:
    """Raises: WrongBase, if one of these has another digest than the plan names."""
    for role, checkpoint in inputs.items():
        own = {each.info.name: each for each in tensors if each.role == role and each.digest}
        infos = [each.info for each in own.values()]
        found = digest_tensors(infos, checkpoint.read_into, buffers, lambda _: None)
        differing = [name for name, each in own.items() if found[name] != each.digest]
        if differing:
            raise WrongBase(base=checkpoint.label, count=len(differing), context=differing)
