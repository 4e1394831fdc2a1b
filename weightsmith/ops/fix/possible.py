"""What a folder without its manifest may be: a copy of a source, or an output made of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, read_manifest
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.errors import WeightsmithError
from weightsmith.hub.resolve import is_hub_source
from weightsmith.ops import convert
from weightsmith.ops.convert import plan_convert
from weightsmith.ops.fix.truth import (
    NOWHERE,
    Reach,
    Truth,
    Where,
    copy_of,
    is_delta,
    made_by,
    plan_chain,
)
from weightsmith.ops.make_delta import plan_make_delta
from weightsmith.plan.align import NewRows
from weightsmith.sources import sums
from weightsmith.sources.locate import LocatedChain, label_of
from weightsmith.sources.recognise import recognise

_SUMS: Final[tuple[sums.DTypeChoice, ...]] = ("delta", "float16", "bfloat16", "float32")
_CASTS: Final[tuple[convert.DTypeChoice, ...]] = ("keep", "float16", "bfloat16", "float32")
"""What a command may have been asked for, the usual first."""
_FILES_OF_EXACT: Final = "delta*.safetensors*"
"""How the files of an exact delta are named, and of no other."""


def possible_truths(
    folder: Path, source: Where, here: Manifest | None, base: Where | None, reach: Reach
) -> Iterator[Truth]:
    """All that a folder may be of which the manifest is lost, if `source` is a copy of it or what
    it was made from: by each command, in each dtype. A delta of a target and a `base` is made whole
    beside it; its settings are those that a damaged manifest (`here`) states.

    Raises: as `open_truth`; where nothing of a manifest is left, for what the first command makes
    of the source.
    """
    where = reach.locate(source)
    plans = [partial(plan_convert, where, NOWHERE, dtype=dtype) for dtype in _CASTS]
    if isinstance(where, LocatedChain):
        plans = [*(partial(plan_chain, where, dtype) for dtype in _SUMS), *plans]
    else:
        found = recognise(where)
        directory = Path(where)
        if directory.is_dir() and (manifest := sound_manifest(directory)) is not None:
            yield replace(copy_of(found, where, manifest), manifest=manifest)
            if is_delta(found):
                return
        if base is not None and any(folder.glob(_FILES_OF_EXACT)):
            yield from _deltas(folder, reach.locate(base), where, here, reach)
            return
    seen: set[str] = set()
    for number, plan in enumerate(plans):
        try:
            job = plan()
        except WeightsmithError:
            if number == 0 and here is None:
                raise
            continue
        if job.plan.digest not in seen:
            yield made_by(job, where)
        seen.add(job.plan.digest)
    if base is not None and not isinstance(where, LocatedChain):
        yield from _deltas(folder, reach.locate(base), where, here, reach)


def _deltas(
    folder: Path, base: Where, target: Where, here: Manifest | None, reach: Reach
) -> Iterator[Truth]:
    """The deltas between two models that a folder may be, made whole, as copies."""
    base_id, new_rows = _settings(here)
    plan = partial(plan_make_delta, base, target, base_id=base_id)
    kinds = [partial(plan, codec="exact"), partial(plan, codec="exact", portable=True)]
    if not any(folder.glob(_FILES_OF_EXACT)):
        kinds = [partial(plan, codec="add", new_rows=new_rows)]
    for number, kind in enumerate(kinds):
        made = reach.room / f"delta-{number}"
        kind(made).run(reach.options, reach.progress)
        manifest = sound_manifest(made)
        if manifest is not None:
            label = f"{label_of(base)} and {label_of(target)}"
            copy = copy_of(recognise(made), made, manifest)
            yield replace(copy, label=label, manifest=manifest)


def _settings(here: Manifest | None) -> tuple[str, NewRows]:
    """Name of the base and policy of new rows, as far as a damaged manifest states them."""
    document = (here and here.delta) or {}
    base = document.get("base")
    base_id = base.get("id") if isinstance(base, dict) else ""
    known = isinstance(base_id, str) and is_hub_source(base_id)
    return str(base_id) if known else "", "mean" if document.get("new_rows") == "mean" else "zero"


def sound_manifest(directory: Path) -> Manifest | None:
    """The manifest of a finished output, if it is as it was written and says its own digest."""
    try:
        manifest = read_manifest(directory)
        raw = fs.read_small(directory / MANIFEST, LIMIT_NBYTES)
    except WeightsmithError:
        return None
    is_sound = manifest is not None and manifest.own_digest and manifest.is_of(raw)
    return manifest if is_sound else None
