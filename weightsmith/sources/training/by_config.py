"""Hold what training left against the config beside it: its names, and its shapes, in which parts
that are missing show.
"""

from collections.abc import Mapping
from typing import Any, Final

from weightsmith.catalogue.architectures import Expected, expected_tensors
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.tied import OUTPUT_MATRICES
from weightsmith.errors import NamesNotConfig, ShapesNotConfig

_FEW: Final = 20
"""Of how many tensors one has to have a name that the config promises."""
_SOME: Final = 3
_BODY: Final = "model."
"""Before all names of the architectures that are known, but the head's."""


def require_named(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Refuse tensors of which next to none has a name that the config promises: nobody can load
    them by it. A model that was saved without its head lacks a word before its names.

    Raises: NamesNotConfig.
    """
    expected = _expected(config)
    if expected is None:
        return
    tensors = checkpoint.tensors.items()
    names = [name for name, each in tensors if not is_buffer(name, each.info.shape)]
    fits = sum(name in expected.shapes or f"{_BODY}{name}" in expected.shapes for name in names)
    if _FEW * fits < len(names):
        raise NamesNotConfig(
            source=checkpoint.label,
            count=len(names),
            context=[
                *(f"it has {name}" for name in names[:: max(len(names) // _SOME, 1)][:_SOME]),
                *(f"its config promises {name}" for name in [*expected.shapes][:_SOME]),
            ],
        )


def _expected(config: Mapping[str, Any]) -> Expected | None:
    try:
        return expected_tensors(config)
    except ValueError:  # a number is missing
        return None


def check_by_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know of how the tensors differ from what the config promises.

    Nothing, where the architecture is not known.
    Raises: ShapesNotConfig, where a shape is another; but a vocabulary may have grown.
    """
    expected = _expected(config)
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
