"""Hold what a shard became against what its plan says it must be, and say whose fault it is."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import DeltaInvalid, WrongBase
from weightsmith.plan.model import InputTensor, ShardPlan, TensorPlan


def require_expected(
    shard: ShardPlan,
    digests: Mapping[str, str],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
) -> None:
    """Compare the digests of a shard's tensors with the planned ones, where there are any.

    Raises: WrongBase, DeltaInvalid.
    """
    wrong = [t for t in shard.tensors if t.digest and digests[t.output.name] != t.digest]
    if wrong:
        raise_fault(wrong, inputs, buffers)


def raise_fault(
    wrong: Sequence[TensorPlan], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> NoReturn:
    """Say whose fault it is that tensors do not have their planned digests.

    Only now the inputs are digested: a right output proves them right.
    Raises: WrongBase, if an input is not what it must be; else DeltaInvalid.
    """
    require_inputs_of(wrong, inputs, buffers)
    raise DeltaInvalid(
        name=f"tensor {wrong[0].output.name}",
        reason="it decodes to other bytes than it should",
        context=[tensor.output.name for tensor in wrong],
    )


def require_inputs_of(
    tensors: Sequence[TensorPlan], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> None:
    """As `require_inputs`, of all that these are made from and whose digest is known."""
    suspects = {each.info.name: each for tensor in tensors for each in tensor.inputs if each.digest}
    require_inputs(list(suspects.values()), inputs, buffers)


def require_inputs(
    tensors: Sequence[InputTensor],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
    *,
    hint: str | None = None,
) -> None:
    """Raises: WrongBase, with `hint`, if one of these has another digest than the plan names."""
    for role, checkpoint in inputs.items():
        own = {each.info.name: each for each in tensors if each.role == role and each.digest}
        infos = [each.info for each in own.values()]
        found = digest_tensors(infos, checkpoint.read_into, buffers, lambda _: None)
        differing = [name for name, each in own.items() if found[name] != each.digest]
        if differing:
            raise WrongBase(
                base=checkpoint.label, count=len(differing), context=differing, hint=hint
            )
