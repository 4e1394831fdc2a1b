"""Write a ghost of a large model, or plan one: ``python -m tests.bench.ghosts write|plan ...``.

    write DIR NAME ...        ghosts of these names, below DIR
    plan inspect DIR
    plan convert DIR
    plan dequantize DIR
    plan apply-delta BASE DELTA
    plan make-delta BASE TARGET

Planning is all that a dry run does but for printing; it needs no room for what would be written.
"""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

NOWHERE: Final = Path("/nonexistent/target")


def write(work: Path, names: Collection[str]) -> None:
    """Ghosts of these names, those that are not there."""
    from tests.support.ghosts import Ghost, dense_405b, experts_671b, write_ghost

    makers: dict[str, Callable[[], Ghost]] = {
        "405b": dense_405b,
        "671b": lambda: experts_671b(dtype="BF16"),
        "671b-fp8": experts_671b,
    }
    for name in names:
        if not (work / name).exists():
            ghost = makers[name.removesuffix("-delta")]()
            write_ghost(work / name, ghost, delta=name.endswith("-delta"))


def plan(verb: str, *folders: Path) -> int:
    """How many tensors there are to plan; their plan is made, and so is its digest."""
    from weightsmith.ops.apply_delta import plan_apply_delta
    from weightsmith.ops.convert import plan_convert
    from weightsmith.ops.inspect import inspect
    from weightsmith.ops.make_delta import plan_make_delta

    if verb == "inspect":
        return inspect(folders[0]).tensors
    planned: dict[str, Callable[[], object]] = {
        "convert": lambda: plan_convert(folders[0], NOWHERE),
        "dequantize": lambda: plan_convert(folders[0], NOWHERE, dequantize=True),
        "apply-delta": lambda: plan_apply_delta(folders[0], folders[1], target=NOWHERE),
        "make-delta": lambda: plan_make_delta(folders[0], folders[1], NOWHERE),
    }
    job = planned[verb]()
    found = job.plan  # type: ignore[attr-defined]  # a Job, or one with more to it
    return len(found.tensors) if found.digest else 0


def main() -> None:
    """Do what the command line says."""
    import gc

    gc.set_threshold(100_000, 50, 100)  # as the command does
    match sys.argv[1:]:
        case ["write", work, *names]:
            write(Path(work), names)
        case ["plan", verb, *folders]:
            print(plan(verb, *map(Path, folders)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
