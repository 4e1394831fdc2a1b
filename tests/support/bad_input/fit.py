"""Sides that do not belong together, and options that contradict them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from tests.support.bad_input.case import (
    ARGS,
    HIDDEN,
    VOCAB,
    WEIGHTS,
    Cases,
    config,
    weights,
    write_base,
    write_delta,
    write_pair,
    write_sparse,
)
from tests.support.folders import save, write_model
from tests.support.paths import VECTORS

FIT: Final = Cases("Base and delta")
EMBEDDINGS: Final = "model.embed_tokens.weight"


@FIT.add("Names that do not fit: a delta of another architecture", 7, "tensors-do-not-fit")
def names_that_do_not_fit(folder: Path) -> Sequence[str]:
    write_base(folder)
    renamed = {name.replace("model.", "transformer."): t for name, t in weights(norm=0).items()}
    write_model(folder / "delta", renamed, config=config())
    return ARGS


@FIT.add("Shapes that do not fit: a delta of another size", 7, "tensors-do-not-fit")
def shapes_that_do_not_fit(folder: Path) -> Sequence[str]:
    write_base(folder)
    write_model(folder / "delta", weights(norm=0, hidden=HIDDEN + 1), config=config())
    return ARGS


@FIT.add("A base with more vocabulary rows than the delta", 7, "tensors-do-not-fit")
def a_base_with_more_rows(folder: Path) -> Sequence[str]:
    write_base(folder, rows=VOCAB + 1)
    write_delta(folder)
    return ARGS


@FIT.add("A delta that FSDP or ZeRO saved in four parts", 7, "tensors-do-not-fit")
def a_quarter_of_the_elements(folder: Path) -> Sequence[str]:
    for name, shape in (("base", (64001, 4096)), ("delta", (65537024,))):
        (folder / name).mkdir()
        write_sparse(folder / name / WEIGHTS, {EMBEDDINGS: ("F16", 2, shape)})
    return ARGS


@FIT.add("A delta that ZeRO-3 saved without its elements", 6, "no-parameters")
def none_of_the_elements(folder: Path) -> Sequence[str]:
    write_base(folder)
    empty = {name: tensor[:0].reshape(-1) for name, tensor in weights(norm=0).items()}
    write_model(folder / "delta", empty, config=config())
    return ARGS


@FIT.add("A delta whose file holds no tensor at all", 6, "no-tensors")
def a_delta_of_nothing(folder: Path) -> Sequence[str]:
    write_base(folder)
    write_model(folder / "delta", {}, config=config())
    return ARGS


@FIT.add("Base and delta the wrong way round", 7, "inputs-swapped")
def swapped(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return ("--base", "delta", "--delta", "base", *ARGS[4:])


@FIT.add("Two models", 7, "model-given-as-delta")
def two_models(folder: Path) -> Sequence[str]:
    write_base(folder)
    write_base(folder, "delta")
    return ARGS


@FIT.add("A model in Meta's own layout given as delta", 7, "model-given-as-delta")
def a_meta_model_as_delta(folder: Path) -> Sequence[str]:
    write_base(folder)
    shutil.copytree(VECTORS / "meta_llama1_2shards" / "meta" / "13B", folder / "delta")
    return ARGS


@FIT.add("Two deltas", 7, "delta-given-as-base")
def two_deltas(folder: Path) -> Sequence[str]:
    write_delta(folder, "base")
    write_delta(folder)
    return ARGS


@FIT.add("The same folder as base and delta", 2, "base-is-delta")
def base_is_delta(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return ("--base", "base", "--delta", "./base/../base", *ARGS[4:])


@FIT.add("Vocabulary rows that the base lacks, of no known release", 7, "rows-undecided")
def rows_undecided(folder: Path) -> Sequence[str]:
    write_base(folder)
    write_delta(folder, rows=VOCAB + 1)
    return ARGS


@FIT.add("An option that contradicts a known release", 7, "catalogue-contradicted")
def catalogue_contradicted(folder: Path) -> Sequence[str]:
    write_base(folder)
    write_delta(folder, "vicuna-7b-delta-v0", rows=VOCAB + 1)
    delta = ("--delta", "vicuna-7b-delta-v0")
    return ("--base", "base", *delta, *ARGS[4:], "--new-rows", "mean")


@FIT.add("A pattern for whole tensors that fits none", 2, "pattern-unused")
def a_pattern_that_fits_none(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*ARGS, "--whole", "mm_projector.*")


def _of_dtype(folder: Path, side: str, dtype: torch.dtype) -> Sequence[str]:
    """A sound pair, but for the dtype of two tensors of one side."""
    write_pair(folder)
    tensors = weights(norm=float(side == "base"))
    names = ("lm_head.weight", "model.layers.0.mlp.up_proj.weight")
    save(folder / side / WEIGHTS, tensors | {name: tensors[name].to(dtype) for name in names})
    return ARGS


@FIT.add("A quantised base: integers where the delta has floats", 7, "dtype-not-summable")
def integers_in_the_base(folder: Path) -> Sequence[str]:
    return _of_dtype(folder, "base", torch.int8)


@FIT.add("A delta of truth values", 7, "dtype-not-summable")
def truth_values_in_the_delta(folder: Path) -> Sequence[str]:
    return _of_dtype(folder, "delta", torch.bool)


@FIT.add("A base in 8-bit floats", 7, "dtype-not-summable")
def a_base_in_8_bits(folder: Path) -> Sequence[str]:
    return _of_dtype(folder, "base", torch.float8_e4m3fn)


@FIT.add("A norm of 200 GB", 7, "tensors-do-not-fit")
def a_norm_of_200_gb(folder: Path) -> Sequence[str]:
    write_pair(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights().items()}
    shapes["model.norm.weight"] = (100_000_000_000,)
    path = folder / "base" / WEIGHTS
    write_sparse(path, {name: ("F16", 2, shape) for name, shape in shapes.items()})
    return ARGS


@FIT.add("A tensor's name with a terminal's escapes", 7, "tensors-do-not-fit")
def a_hostile_tensor_name(folder: Path) -> Sequence[str]:
    write_base(folder)
    hostile = {"\x1b[2J\x1b]0;owned\x07\nerror: forged\u202e": torch.zeros(2)}
    write_model(folder / "delta", weights(norm=0) | hostile, config=config())
    return ARGS


@FIT.add("A delta with NaN and infinity in it", 6, "not-finite", shows_late=True)
def a_delta_without_numbers(folder: Path) -> Sequence[str]:
    write_base(folder)
    spoilt = weights(norm=0)
    spoilt["lm_head.weight"][0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    write_model(folder / "delta", spoilt, config=config())
    return ARGS
