"""Which input files are still read, so that each can be dropped as soon as it is read no more."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import InputChanged
from weightsmith.plan.model import ShardPlan, TensorPlan

File = tuple[str, str]
"""Role and file name."""


def files_of(tensor: TensorPlan, inputs: Mapping[str, Checkpoint]) -> frozenset[File]:
    """The input files that a tensor is made from; none for a tensor without bytes."""
    if not tensor.output.nbytes:
        return frozenset()
    return frozenset(
        (each.role, file)
        for each in tensor.inputs
        for file in inputs[each.role].files_of(each.info.name)
    )


class Countdown:
    """Counts, by input file, the tensors that are still to be made from it."""

    def __init__(self, shards: Sequence[ShardPlan], inputs: Mapping[str, Checkpoint]) -> None:
        """Count for `shards`; files that none of them reads are released at once."""
        self._inputs = inputs
        self._lock = threading.Lock()
        self._left = Counter(
            file for shard in shards for each in shard.tensors for file in files_of(each, inputs)
        )
        for role, checkpoint in inputs.items():
            for file in checkpoint.files:
                if (role, file.name) not in self._left:
                    checkpoint.release(file.name)

    def begin(self, tensor: TensorPlan) -> None:
        """A tensor is about to be made: its files can be on their way."""
        for role, name in files_of(tensor, self._inputs):
            self._inputs[role].expect(name)

    def finish(self, tensor: TensorPlan) -> None:
        """A tensor is made: files that no other wants are released."""
        with self._lock:
            files = files_of(tensor, self._inputs)
            self._left -= Counter(files)  # what comes to nothing is left out
            done = [file for file in files if file not in self._left]
        for role, name in done:
            self._inputs[role].release(name)


def require_unchanged(
    inputs: Mapping[str, Checkpoint], still_gives: Callable[[Collection[File]], bool]
) -> None:
    """Hold the input files against what they were when they were opened.

    A new mode or a further name changes a file's time of change as writing and setting back the
    time of modification does. Where only that differs, and the header is what was planned with,
    `still_gives` is asked whether these files still give what was made of them, and the run goes on
    if they do.
    Raises: InputChanged, if an input file was written to while the run read it.
    """
    for checkpoint in inputs.values():
        for path in checkpoint.changed_files():
            raise InputChanged(file=path)
    touched = [(role, file) for role, each in inputs.items() for file in each.touched_files()]
    if touched and not still_gives([(role, file.name) for role, file in touched]):
        role, file = touched[0]
        raise InputChanged(file=inputs[role].directory / file.name)
    for role, file in touched:
        inputs[role].accept(file)


def streamed_nbytes(
    shards: Sequence[ShardPlan], inputs: Mapping[str, Checkpoint], *, but: Collection[str] = ()
) -> int:
    """The most disk that input files take at a time, each from its first tensor to its last; those
    of the roles `but` are not counted.
    """
    reads = [files_of(each, inputs) for shard in shards for each in shard.tensors]
    last = {file: number for number, files in enumerate(reads) for file in files}
    held: set[File] = set()
    most = 0
    for number, files in enumerate(reads):
        held |= files
        most = max(
            most, sum(inputs[role].disk_nbytes(name) for role, name in held if role not in but)
        )
        held = {file for file in held if last[file] > number}
    return most
