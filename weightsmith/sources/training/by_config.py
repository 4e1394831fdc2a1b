"""Hold what training left against the config beside it: parts that are missing show in shapes."""

from collections.abc import Mapping
from typing import Any

from weightsmith.catalogue.architectures import expected_tensors
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.tied import OUTPUT_MATRICES
from weightsmith.errors import ShapesNotConfig


def check_by_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know of how the tensors differ from what the config promises.

    Nothing, where the architecture is not known.
    Raises: ShapesNotConfig, where a shape is another; but a vocabulary may have grown.
    """
    try:
        expected = expected_tensors(config)
    except ValueError:
        return ()
    if expected is None:
        return ()
    notes: list[str] = []
    wrong: list[str] = []
    rows: set[tuple[int, int]] = set()
    for name, shape in expected.shapes.items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None or tensor.info.shape == shape:
            continue
        found = tensor.info.shape
        grown = len(found) == 2 and found[1:] == shape[1:] and found[0] > shape[0]
        if grown and name.endswith((*INPUT_EMBEDDINGS, *OUTPUT_MATRICES)):
            rows.add((found[0], shape[0]))
        else:
            wrong.append(f"{name} is {list(found)}, the config makes it {list(shape)}")
    if wrong:
        raise ShapesNotConfig(source=checkpoint.label, count=len(wrong), context=wrong)
    notes += [f"its vocabulary has {has} rows, {said} by its config" for has, said in sorted(rows)]
    missing = [name for name in expected.shapes if name not in checkpoint.tensors]
    if missing:
        total = len(expected.shapes)
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        notes.append(f"{len(missing)} of the {total} tensors of its config are not there: {some}")
    return tuple(notes)
