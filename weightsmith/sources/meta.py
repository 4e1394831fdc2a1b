"""Open a folder in Meta's own layout of LLaMA as if it were Hugging Face's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content, inside
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import PARAMS
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.checkpoint.sidecars import matches
from weightsmith.checkpoint.tied import same_bytes
from weightsmith.engine.derived import Derived
from weightsmith.errors import ShardMissing
from weightsmith.formats.meta_params import parse_params
from weightsmith.formats.tensors import TORCH_NAMES
from weightsmith.plan.meta_rules import EMBEDDINGS, HEAD, plan_meta, sizes
from weightsmith.repair.contents import MODEL
from weightsmith.repair.meta_sidecars import MetaFacts, meta_sidecars
from weightsmith.units import counted

_LIMIT_NBYTES: Final = 64_000_000
_PAPERS: Final = ("LICENSE*", "USE_POLICY*", "NOTICE*", "README*")
"""What lies beside Meta's files and belongs to the model."""


def open_meta(directory: Path, names: Sequence[str], label: str) -> Checkpoint:
    """Meta's ``params.json`` and ``consolidated.NN.pth`` as a checkpoint of Hugging Face tensors.

    Every tensor is joined and permuted as it is read; config and tokenizer files are made from what
    is there. Reads headers, the small files, and the first bytes of the embeddings.
    Raises: ShardMissing, ParamsInvalid, MetaFilesDoNotFit, and what opening the files raises.
    """
    params_raw = fs.read_small(directory / PARAMS, _LIMIT_NBYTES)
    params = parse_params(params_raw, directory / PARAMS)
    _require_all_numbers(directory, names)
    parts = {name: open_weight_file(directory, name) for name in names}
    tables = {name: {n: t.info for n, t in part.tensors.items()} for name, part in parts.items()}
    rules = plan_meta(params, tables, label)
    bare = Derived(label=label, directory=directory, rules=rules.tensors, inputs=parts, sidecars={})
    tied = _is_tied(bare)
    tokenizer = find_tokenizer(directory)
    facts = MetaFacts(
        params=params,
        params_raw=params_raw,
        sizes=sizes(params, rules),
        tied=tied,
        dtype=TORCH_NAMES.get(bare.common_dtype, "float32"),
        tokenizer=fs.read_small(tokenizer, _LIMIT_NBYTES) if tokenizer else None,
    )
    made, notes = meta_sidecars(facts)
    mode = Content.of_file(directory / PARAMS).mode
    if tokenizer:
        mode &= Content.of_file(tokenizer).mode
    sidecars = {name: Content(raw, mode=mode) for name, raw in made.items()}
    there, folders = list_directory(directory, hidden=True)
    for name in there:
        if matches(name, _PAPERS):
            sidecars[name] = Content.of_file(inside(directory, name))
    read = {*names, *sidecars, PARAMS, MODEL}
    left = [*(name for name in there if name not in read), *(f"{name}/" for name in folders)]
    return Derived(
        label=label,
        directory=directory,
        rules=[rule for rule in rules.tensors if not (tied and rule.output.name == HEAD)],
        inputs=parts,
        sidecars=sidecars,
        notes=(
            f"Meta's layout in {counted(len(names), 'file')}, read as Hugging Face's",
            *notes,
            *([f"not used: {', '.join(left)}"] if left else []),
        ),
    )


def _require_all_numbers(directory: Path, names: Sequence[str]) -> None:
    """Refuse a gap in the numbers; that the last files are missing shows in the shapes.

    Raises: ShardMissing.
    """
    wanted = [f"consolidated.{number:02d}.pth" for number in range(len(names))]
    missing = sorted({*wanted} - {*names})
    if missing:
        index = f"the numbering in {directory}"
        raise ShardMissing(index=index, count=len(missing), context=missing)


def _is_tied(model: Checkpoint) -> bool:
    """Whether the output matrix is left out or has the embedding's bytes; unequal ones differ
    within the first span.
    """
    return HEAD not in model.tensors or same_bytes(model, HEAD, EMBEDDINGS)


def find_tokenizer(directory: Path) -> Path | None:
    """``tokenizer.model`` of the folder, or, as Meta ships it, of the one above."""
    places = (directory / MODEL, Path(directory.resolve().parent, MODEL))
    return next((place for place in places if place.is_file()), None)
