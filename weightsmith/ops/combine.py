"""Sum models: ``0.5*A + 0.5*B``, ``A + 0.7*(B - C)``."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, Literal

from weightsmith.catalogue.load import alias
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.renamed import named_like
from weightsmith.checkpoint.tied import tied_copies, ties_embeddings
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.errors import ExpressionInvalid, ModelsDoNotCombine
from weightsmith.formats.tensors import DTYPES, SUMMABLE, TensorInfo
from weightsmith.hub.resolve import is_hub_source
from weightsmith.ops.job import Job, input_plans, recorded, target_apart
from weightsmith.ops.sidecars import choose_sidecars
from weightsmith.plan.casts import plan_casting
from weightsmith.plan.expression import parse_expression
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.kinds import AdditiveDelta, TrainingOutput, require_model
from weightsmith.sources.recognise import recognise
from weightsmith.sources.training.by_config import require_named
from weightsmith.units import counted

CombinedDType = Literal["keep", "float16", "bfloat16", "float32"]
Terms = str | Sequence[tuple[float, str | os.PathLike[str]]]
"""An expression, or factors and sources."""

_DIVIDED: Final = re.compile(r"(.+)/(0*[1-9]\d*)")
"""A source and a number that it was meant to be divided by, or the path of a numbered folder."""
_EVEN: Final = 1e-6
"""How far from 1 the factors of an average may sum to: binary numbers have no 0.1."""


@recorded("combine")
def plan_combine(
    terms: Terms,
    target: str | os.PathLike[str],
    *,
    dtype: CombinedDType = "keep",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    all_sidecars: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide how to write a sum of models, reading headers and sidecars.

    `terms` is an expression, as `parse_expression` reads it, or pairs of factor and source. Config
    and tokenizer are the first model's, and so are tensors of integers.
    Dtypes: products and sums in float32, rounded once into the models' own dtype, or into `dtype`
    as `plan_convert` has it.
    Raises: ExpressionInvalid; ModelsDoNotCombine; TargetIsInput; what opening a source raises.
    """
    factors, models, deltas = _opened(terms, offline=offline, progress=progress)
    path = target_apart(target, models)
    first = next(iter(models.values()))
    tied = {role: _tied(model) for role, model in models.items()}
    infos = {role: _infos(model, tied[role]) for role, model in models.items()}
    problems = list(_misfits(models, infos))
    if problems:
        raise ModelsDoNotCombine(count=len(problems), context=problems)
    own = next(iter(infos.values()))
    wanted = DTYPES.get(dtype, "")
    casting = plan_casting(first.config, list(own.values()), wanted, everything=dtype_all)
    plans = []
    for name, info in own.items():
        parts = [InputTensor(role, infos[role][name]) for role in models]
        if info.dtype in SUMMABLE:
            settings = {
                "factors": " ".join(map(repr, factors)),
                "dtype": casting.dtype_of(info),
            }
            plans.append(TensorPlan.make("linear@1", settings, parts))
        else:
            plans.append(TensorPlan.make("copy@1", {}, parts[:1]))
    sidecars = choose_sidecars(
        models, [each.output for each in plans], repair=repair, all_sidecars=all_sidecars
    )
    plan = Plan(
        verb="combine",
        inputs=input_plans(models),
        shards=lay_out(plans, max_shard_nbytes),
        sidecars=sidecars.plans,
        dropped=tuple(n for n, t in first.tensors.items() if is_buffer(n, t.info.shape)),
        notes=(
            *_said(factors, models, deltas, own),
            *(f"{name} is not written: the config ties it" for name in next(iter(tied.values()))),
            *casting.notes,
            *sidecars.notes,
        ),
        repairs=sidecars.repairs,
    )
    return Job(plan, Bindings(models, sidecars.contents, path), faults=sidecars.faults)


def combine(
    terms: Terms,
    target: str | os.PathLike[str],
    *,
    dtype: CombinedDType = "keep",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    all_sidecars: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write a sum of models to the directory `target`, whole or not at all.

    The arguments before `options` are those of `plan_combine`.
    Memory: a few spans of 2 MiB a model and worker; it does not depend on the models.
    Raises: as `plan_combine` and `Job.run`.
    """
    job = plan_combine(
        terms,
        target,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=max_shard_nbytes,
        repair=repair,
        all_sidecars=all_sidecars,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def _opened(
    terms: Terms, *, offline: bool, progress: Progress
) -> tuple[list[float], dict[str, Checkpoint], list[str]]:
    """The factors; the models by role, under the first one's names; and the roles of those that are
    additive deltas.

    Raises: as `read_terms`, `open_model` and `require_named`.
    """
    if isinstance(terms, str):
        terms = read_terms(terms)
    factors = [factor for factor, _ in terms]
    models: dict[str, Checkpoint] = {}
    deltas: list[str] = []
    for number, (_, source) in enumerate(terms, start=1):
        role = f"model-{number}"
        found = recognise(source, offline=offline, progress=progress)
        model = require_model(found)
        if isinstance(found, TrainingOutput):
            require_named(model, model.config)
        if models:
            model = named_like(model, models["model-1"].tensors)
        models[role] = model
        if isinstance(found, AdditiveDelta):
            deltas.append(role)
    return factors, models, deltas


def read_terms(text: str) -> list[tuple[float, str]]:
    """The factors and sources of an expression, before any of them is looked for.

    Raises: ExpressionInvalid, also for a division: for ``A/2`` where nothing of that name is here,
    and A alone is a path, an alias or a hub id.
    """
    terms = parse_expression(text)
    for term in terms:
        if (match := _DIVIDED.fullmatch(term.source)) and not os.path.lexists(term.source):
            divided, number = match.groups()
            known = os.path.lexists(divided) or alias(divided.partition("@")[0]) is not None
            if known or is_hub_source(divided):
                where, instead = f"at {term.source!r}", f"{1 / int(number):g}*{divided}"
                reason = f"nothing has that name, and there is no division: write {instead}"
                raise ExpressionInvalid(expression=text, where=where, reason=reason)
    return [(term.factor, term.source) for term in terms]


def _tied(model: Checkpoint) -> Mapping[str, str]:
    """Output matrices that are the input embedding once more, where the config says so."""
    return tied_copies(model, compare=True) if ties_embeddings(model.config) is True else {}


def _infos(model: Checkpoint, tied: Mapping[str, str]) -> dict[str, TensorInfo]:
    """The tensors of the sum: without buffers, and without second copies of tied matrices."""
    return {
        name: tensor.info
        for name, tensor in model.tensors.items()
        if name not in tied and not is_buffer(name, tensor.info.shape)
    }


def _misfits(
    models: Mapping[str, Checkpoint], infos: Mapping[str, Mapping[str, TensorInfo]]
) -> Iterator[str]:
    """Why the models cannot be summed, a sentence for each reason."""
    for model in models.values():
        if "quantization_config" in model.config:
            yield f"{model.label} is quantised: sums of packed weights mean nothing"
    (first, own), *others = infos.items()
    for role, theirs in others:
        a, b = models[first].label, models[role].label
        yield from (f"{name} is in {a} and not in {b}" for name in own if name not in theirs)
        yield from (f"{name} is in {b} and not in {a}" for name in theirs if name not in own)
        for name in own.keys() & theirs.keys():
            if (own[name].dtype, own[name].shape) != (theirs[name].dtype, theirs[name].shape):
                yield f"{name} is {own[name]} in {a} and {theirs[name]} in {b}"


def _said(
    factors: Sequence[float],
    models: Mapping[str, Checkpoint],
    deltas: Collection[str],
    own: Mapping[str, TensorInfo],
) -> Iterator[str]:
    """The sum as it was understood, and what in it is not a sum."""
    terms = (f"{factor:g} x {m.label}" for factor, m in zip(factors, models.values(), strict=True))
    yield " + ".join(terms)
    for role in deltas:
        yield f"{models[role].label} is a delta, summed as the difference that it holds"
    total = sum(factor for factor, role in zip(factors, models, strict=True) if role not in deltas)
    if abs(total - 1) > _EVEN:
        of_models = " of models" if deltas else ""
        yield f"the factors{of_models} sum to {total:g}, not to 1: the weights change in size"
    integers = [name for name, info in own.items() if info.dtype not in SUMMABLE]
    if integers:
        label = next(iter(models.values())).label
        count = counted(len(integers), "tensor")
        yield f"not summed but taken from {label}, for they hold no floats: {count}"
