"""Extract a LoRA adapter that, merged into a base, comes as close as it can to a fine-tune."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from weightsmith.checkpoint.renamed import named_like
from weightsmith.checkpoint.tied import HEADS, tied_copies, ties_head
from weightsmith.codecs.low_rank.extract import ranks_of
from weightsmith.codecs.low_rank.form import MAX_RANK
from weightsmith.codecs.measure import Measure, combine
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Outcome
from weightsmith.errors import BaseIsTarget, NothingToExtract, RankNotFound, RankTooLarge
from weightsmith.ops.adapters.compare import changes_of, infos_of, left_by
from weightsmith.ops.adapters.merging import TRANSPOSED
from weightsmith.ops.job import Job, carry_out, input_plans, target_apart
from weightsmith.plan.extraction import adapter_config, candidates, settle
from weightsmith.plan.model import Plan, ShardPlan, SidecarPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.locate import label_of
from weightsmith.sources.recognise import open_model

Rank = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Left:
    """How far one tensor still is from the target after the adapter is merged into the base."""

    name: str
    rank: int
    """Rank of its factors; 0 if the tensor is stored whole or not at all."""
    change: Measure
    """How the target differs from the base."""
    left: Measure
    """How the target differs from the base with the adapter merged."""

    @property
    def error(self) -> float:
        """L2 norm of what is left, divided by the L2 norm of the change."""
        if not self.change.change_squares:
            return 0.0
        return math.sqrt(self.left.change_squares / self.change.change_squares)

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "rank": self.rank,
            "error": self.error,
            "changed": self.change.to_document(),
            "left": self.left.to_document(),
        }


@dataclass(frozen=True, slots=True, repr=False)
class ExtractedLora(Outcome):
    """What extracting an adapter did; `target` is the adapter's directory."""

    tensors: tuple[Left, ...]
    """All tensors that both models have and that changed, the largest error first."""

    @property
    def left(self) -> Measure:
        """How the target differs from the base with the adapter, over all tensors that changed."""
        return combine(each.left for each in self.tensors)


@dataclass(frozen=True, slots=True)
class ExtractJob(Job):
    """The planned extraction of an adapter."""

    base: str | os.PathLike[str] = ""
    changes: Mapping[str, Measure] = field(default_factory=dict)
    """How the target's tensors differ from the base's, by name, for those that do."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """The rank of each tensor that gets factors, by name."""

    def run(self, options: Options | None = None, progress: Progress = SILENCE) -> ExtractedLora:
        """Write the adapter, whole or not at all; then merge it in memory to measure how much of
        the change it misses.

        Raises: as `Job.run`.
        """
        from weightsmith.codecs.low_rank.one_thread import one_thread

        options = options or Options()
        with one_thread():
            outcome = carry_out(self, options, progress)
        return ExtractedLora(
            target=outcome.target,
            manifest=outcome.manifest,
            kept=outcome.kept,
            already_done=outcome.already_done,
            doubts=outcome.doubts,
            tensors=self._left(options, progress),
        )

    def _left(self, options: Options, progress: Progress) -> tuple[Left, ...]:
        """The error that the finished adapter leaves in each tensor, the largest first."""
        target = self.bindings.inputs["target"]
        found = left_by(self.base, self.bindings.target, target, self.changes, options, progress)
        left = [Left(n, self.ranks.get(n, 0), self.changes[n], each) for n, each in found.items()]
        return tuple(sorted(left, key=lambda each: -each.error))


def plan_extract_lora(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    *,
    rank: Rank = "auto",
    offline: bool = False,
    progress: Progress = SILENCE,
) -> ExtractJob:
    """Decide which changes of a fine-tune go into an adapter, and by which rank; both models are
    read, and little of them twice.

    With `rank` ``auto`` each matrix gets the rank that its change has; every change must be of low
    rank then, except those of embedding and output layer, which may be stored whole. With a number,
    a change of a higher rank is cut to the nearest one of that rank.
    Memory: a few spans of 2 MiB a worker.
    Raises: NothingToExtract, RankNotFound, RankTooLarge; BaseIsTarget, TargetIsInput; what opening
    the sources raises.
    """
    if rank != "auto" and not 1 <= rank <= MAX_RANK:
        raise RankTooLarge(rank=rank, most=MAX_RANK)
    inputs = {
        "base": open_model(base, offline=offline, progress=progress),
        "target": open_model(target, offline=offline, progress=progress),
    }
    wanted = inputs["target"]
    ground = inputs["base"] = named_like(inputs["base"], wanted.tensors)
    if ground.directory.samefile(wanted.directory):
        raise BaseIsTarget(source=label_of(base))
    path = target_apart(adapter, inputs)
    ours, theirs = infos_of(ground), infos_of(wanted)
    changes = changes_of(ground, wanted, Options(), progress)
    kinds, found = candidates(
        ours,
        theirs,
        changes,
        tied=_tied(wanted),
        transposed=wanted.config.get("model_type") in TRANSPOSED,
    )
    progress.begin("looking for ranks", sum(theirs[name].nbytes for name in kinds))
    sides = (ground.read_into, wanted.read_into)
    pairs = (
        (ours[name], theirs[name], (partial(sides[0], name), partial(sides[1], name)))
        for name in kinds
    )
    ranks = {}
    for name, found_rank in zip(kinds, ranks_of(pairs), strict=True):
        ranks[name] = found_rank
        progress.advance(theirs[name].nbytes)
    unclear = settle(found, kinds, ranks, ours, theirs, None if rank == "auto" else rank)
    if unclear:
        raise RankNotFound(count=len(unclear), total=len(kinds), context=unclear)
    if not found.products:
        raise NothingToExtract(
            target=wanted.label,
            base=ground.label,
            context=[f"{name}: {why}" for name, why in found.left.items()],
        )
    repo, _, revision = ground.origin.partition("@")
    config = adapter_config(
        found, base=repo or ground.label, revision=revision, names=theirs, config=wanted.config
    )
    contents = {ADAPTER_CONFIG: Content(config)}
    plan = Plan(
        verb="extract-lora",
        inputs=input_plans(inputs),
        shards=(ShardPlan(ADAPTER_WEIGHTS[0], tuple(found.rules())),),
        sidecars=(SidecarPlan(ADAPTER_CONFIG, "target", len(config), bytes_digest(config)),),
        notes=tuple(found.notes()),
    )
    return ExtractJob(
        plan,
        Bindings(inputs, contents, path),
        base=base,
        changes=changes,
        ranks={each.target.name: each.rank for each in found.products},
    )


def extract_lora(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    *,
    rank: Rank = "auto",
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> ExtractedLora:
    """Extract an adapter from a fine-tune and write it to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_extract_lora`.
    Memory: the factors of one matrix a worker, and some blocks of rows; it does not depend on the
    model.
    Raises: as `plan_extract_lora` and `ExtractJob.run`.
    """
    job = plan_extract_lora(base, target, adapter, rank=rank, offline=offline, progress=progress)
    return job.run(options, progress)


def _tied(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of input embedding and output layer if they are one matrix in memory; else empty."""
    embeddings = [name for name in checkpoint.tensors if name.endswith(INPUT_EMBEDDINGS)]
    copies = tied_copies(checkpoint, compare=True)
    heads = [*copies] or [HEADS[0]] * ties_head(checkpoint)
    return (*embeddings, *heads) if embeddings and heads else ()
