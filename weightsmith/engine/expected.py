"""Hold what a shard became against what its plan says it must be, and say whose fault it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine.file_outputs import require_published
from weightsmith.engine.output import require_same
from weightsmith.engine.shard import MadeOfWorks, read_back
from weightsmith.engine.spans import Advance, Buffers, digest_tensors
from weightsmith.errors import DecodedWrong, DeltaInvalid, WrongBase, printable
from weightsmith.plan.model import InputTensor, RestoredPlan, ShardPlan, TensorPlan


def require_file(
    file: fs.Readable,
    shard: ShardPlan,
    digests: Mapping[str, str],
    own: Buffers,
    advance: Advance,
) -> None:
    """Compare a file with the hashes that its release, or an exact delta, gives for it.

    `digests` are those that its tensors must have, where they are known: if they do, it was
    written right, from the right base.
    Raises: VerificationFailed; DeltaInvalid, for a file of an exact delta; else DecodedWrong.
    """
    try:
        require_published(file, shard, own, advance)
    except DecodedWrong as error:
        if digests:
            found = read_back(file.path, shard, [own], lambda _: None)
            require_same(file.path, found, digests)
        if isinstance(shard, RestoredPlan):
            reason = "every tensor comes out right, and the file's sha256 is another"
            raise DeltaInvalid(name=f"the record of {shard.name}", reason=reason) from error
        raise


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

    Only now the inputs are digested: a right output proves them right. Of a chain, those of one
    link after the other are, from the last to the first, until one has the right ones.
    Raises: WrongBase, if an input is not what it must be; else DeltaInvalid, for the link at fault.
    """
    # No recursion: a chain may have hundreds of links.
    while (below := _differing(wrong, inputs, buffers)) is not None:
        checkpoint, names = below
        rules = []
        if isinstance(checkpoint, MadeOfWorks):
            rules = [checkpoint.made_by(name).tensor for name in names]
            inputs = checkpoint.made_from
        if not rules or not all(rule.digest for rule in rules):
            raise wrong_base(checkpoint, names)
        wrong = rules
    delta = inputs.get("delta")
    raise DeltaInvalid(
        name=f"tensor {wrong[0].output.name}",
        reason="it decodes to other bytes than it should",
        context=[tensor.output.name for tensor in wrong],
        hint=f"get {delta.label} again" if delta is not None else None,
    )


@contextmanager
def blamed(
    tensors: Sequence[TensorPlan], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> Iterator[None]:
    """Where one of these cannot be decoded, say whose fault that is: put onto another base, a sound
    payload looks damaged.

    Raises: as `raise_fault`, for an input that is not what it must be; else what was raised.
    """
    try:
        yield
    except DeltaInvalid as error:
        named = error.values.get("name")
        wrong = [
            tensor
            for tensor in tensors
            if any(printable(f"tensor {each.info.name}") == named for each in tensor.inputs)
        ]
        if _differing(wrong, inputs, buffers) is not None:
            raise_fault(wrong, inputs, buffers)
        raise


def require_inputs_of(
    tensors: Sequence[TensorPlan], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> None:
    """Hold all that these are made from, and whose digest is known, against it.

    Raises: WrongBase, if one has another.
    """
    if (found := _differing(tensors, inputs, buffers)) is not None:
        raise wrong_base(*found)


def require_inputs(
    tensors: Sequence[InputTensor],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
) -> None:
    """Raises: WrongBase, if one of these has another digest than the plan names."""
    if (found := _first_differing(tensors, inputs, buffers)) is not None:
        raise wrong_base(*found)


def _differing(
    tensors: Sequence[TensorPlan], inputs: Mapping[str, Checkpoint], buffers: Sequence[Buffers]
) -> tuple[Checkpoint, list[str]] | None:
    """As `_first_differing`, of all that these are made from."""
    suspects = {each.info.name: each for tensor in tensors for each in tensor.inputs if each.digest}
    return _first_differing(list(suspects.values()), inputs, buffers)


def _first_differing(
    tensors: Sequence[InputTensor],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
) -> tuple[Checkpoint, list[str]] | None:
    """The first input of which tensors have another digest than they must, and their names."""
    for role, checkpoint in inputs.items():
        own = {each.info.name: each for each in tensors if each.role == role and each.digest}
        infos = [each.info for each in own.values()]
        found = digest_tensors(infos, checkpoint.read_into, buffers, lambda _: None)
        differing = [name for name, each in own.items() if found[name] != each.digest]
        if differing:
            return checkpoint, differing
    return None


def wrong_base(base: Checkpoint, problems: Sequence[str]) -> WrongBase:
    """The error for a base in which these tensors are others; its hint names the right one."""
    hint = f"it was made from this one: `base={base.wanted}`" if base.wanted else None
    return WrongBase(base=base.label, count=len(problems), context=problems, hint=hint)
