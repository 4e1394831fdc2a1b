"""Show a plan and its outcome, for a person or as JSON, for all commands that write a model."""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layers import positions
from weightsmith.checkpoint.sidecars import CONFIG
from weightsmith.cli.checks_view import Smoked, checks_page
from weightsmith.cli.layout import counted_files, heading, stacked, styled, table
from weightsmith.cli.output import Output, command_line
from weightsmith.engine.run import Outcome
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.job import Job, require_room
from weightsmith.ops.verify.published_sum import SumReport
from weightsmith.plan.needs import Needs
from weightsmith.units import counted, format_duration, format_memory, format_size

_LARGE_NBYTES: Final = 1_000_000_000
"""If an output file is larger, the plan says that an interruption loses it."""


def show_plan(output: Output, job: Job, needs: Needs) -> None:
    """Print what will be written, from what, and how much disk and memory it takes."""
    plan = job.plan
    rows = [_source_row(role, source) for role, source in job.bindings.inputs.items()]
    outputs = [tensor.output for tensor in plan.tensors]
    shards = f"safetensors, {counted(len(plan.shards), 'shard')}"
    ours = {"make-delta": "delta", "extract-lora": "adapter"}.get(plan.verb, "target")
    rows.append((ours, str(job.bindings.target), *_size(outputs), shards))
    if plan.makes_files:  # their tensors are not known before they are decoded
        rows = [
            (role, name, count.replace("tensor", "file"), size)
            for role, name, count, size, *_ in rows
        ]
    output.plan(heading(plan.verb))
    output.plan(stacked(rows, at=2, width=output.width, right=(2, 3)))
    output.plan()
    output.plan(table(_detail_rows(output, job, needs), width=output.width))
    if output.verbose:
        output.plan()
        output.plan(table(_file_rows(job, output.verbose > 1), width=output.width, right=(1, 2)))
    if job.faults:
        count = counted(len(job.faults), "known fault")
        output.warning(f"{count} of tokenizer and config files will stay", job.faults)
    output.plan()


def _file_rows(job: Job, tensors: bool) -> list[tuple[str, ...]]:
    """Rows on each output file; with `tensors`, also on each tensor and how it is made."""
    rows: list[tuple[str, ...]] = []
    for shard in job.plan.shards:
        rows.append((shard.name, counted(len(shard.tensors), "tensor"), format_size(shard.nbytes)))
        if tensors:
            rows += [
                (f"  {each.output.name}", str(each.output), "", each.rule.told())
                for each in shard.tensors
            ]
    return rows


def told(job: Job, needs: Needs) -> dict[str, Any]:
    """What a person sees of a plan, as JSON values."""
    return {
        "target": str(job.bindings.target),
        "inputs": {
            role: {
                "source": source.label,
                "tensors": len(source.tensors),
                "nbytes": source.nbytes,
                "files": len(source.files),
                "notes": list(source.notes),
            }
            for role, source in job.bindings.inputs.items()
        },
        "rules": _rules(job),
        "notes": list(job.plan.notes),
        "repairs": list(job.plan.repairs),
        "faults": list(job.faults),
        "needs": {
            "disk_nbytes": needs.disk_nbytes,
            "disk_is_at_most": needs.is_at_most,
            "disk_free_nbytes": needs.disk_free_nbytes,
            "streamed_nbytes": needs.streamed_nbytes,
            "fetched_nbytes": needs.fetched_nbytes,
            "memory_nbytes": needs.memory_nbytes,
            "memory_free_nbytes": needs.memory_free_nbytes,
        },
        "checked": list(job.checked),
        "files_finished": job.finished_count(),
        "plan_digest": job.plan.digest,
    }


def plan_document(job: Job, needs: Needs) -> dict[str, Any]:
    """The same with the complete frozen plan."""
    return {**told(job, needs), "plan": job.plan.to_document()}


def show_dry_run(
    output: Output, job: Job, needs: Needs, more: Mapping[str, Any] | None = None
) -> None:
    """Print the result of a dry run; `more` is added to its document.

    Raises: DownloadTooLarge, DiskTooSmall, MemoryTooSmall, as the run would.
    """
    # The complete plan of a large model has hundreds of megabytes, which only programs want.
    document = plan_document(job, needs) if output.json else {}
    output.result(
        {"schema": "weightsmith.plan/1", **document, **(more or {})},
        human="dry run: nothing was written",
        quiet=str(job.bindings.target),
    )
    require_room(needs)


def show_outcome(
    output: Output,
    outcome: Outcome,
    sums: SumReport | None = None,
    smoked: Smoked | None = None,
    *,
    elapsed_s: float,
    verified: str,
    planned: Mapping[str, Any],
    cure: str = "",
) -> None:
    """Print the result of a run; its document has what was `planned` (see `told`).

    `cure`: the command against faults of tokenizer and config that remain; the hint, if given.
    """
    manifest = outcome.manifest
    nbytes = sum(file.size for file in manifest.files.values())
    if outcome.already_done:
        headline = "already done: every digest holds"
    else:
        kept = f", {outcome.kept} kept from before" if outcome.kept else ""
        headline = f"{format_size(nbytes)} in {format_duration(elapsed_s)}{kept}, {verified}"
    if sums is not None:
        show_sums(output, sums)
    human = f"{styled('done', 'green')}  {outcome.target}\n      {headline}"
    if smoked is not None:
        human += f"\n\n{checks_page(smoked.checks, output)}"
    output.result(
        {
            **planned,
            "schema": f"weightsmith.{manifest.verb}/1",
            "target": str(outcome.target),
            "already_done": outcome.already_done,
            "shards_kept": outcome.kept,
            "nbytes": nbytes,
            "elapsed_s": round(elapsed_s, 3),
            "verified": verified,
            "fingerprint": manifest.fingerprint,
            "plan_digest": manifest.plan,
            "files": list(manifest.files),
            "sidecars": list(manifest.sidecars),
            "dropped": list(manifest.dropped),
            **({"doubts": list(outcome.doubts)} if outcome.doubts else {}),
            **({"sums": sums.to_document()} if sums else {}),
            **(smoked.to_document() if smoked else {}),
        },
        human=human,
        quiet=str(outcome.target),
        then=cure or _next(outcome, smoked),
    )


def _next(outcome: Outcome, smoked: Smoked | None) -> str:
    """The command that usually follows: a smoke test of the model, or else a look at it."""
    may_talk = CONFIG[0] in outcome.manifest.sidecars and find_spec("transformers") is not None
    if smoked is None and may_talk:
        return command_line(["weightsmith", "verify", outcome.target, "--smoke"])
    return command_line(["weightsmith", "inspect", outcome.target])


def show_sums(output: Output, sums: SumReport) -> None:
    """Print the sum of all weights beside the published one, with a warning if none agrees."""
    rows = []
    if sums.published is not None:
        note = f"by {sums.release}, within {sums.published.tolerance:g}"
        rows.append(("published", f"{sums.published.value:.4f}", note))
    with_buffers = "with inv_freq, which transformers counted before 4.32"
    rows += [
        ("float32", f"{sums.float32 + sums.inv_freq:.4f}", with_buffers),
        ("float64", f"{sums.float64 + sums.inv_freq:.4f}", with_buffers),
        ("float64", f"{sums.float64:.4f}", "without"),
    ]
    output.line(heading("sum of all weights"))
    output.line(table(rows, width=output.width, right=(1,)))
    if sums.published is not None and not sums.agrees:
        output.warning(f"no sum agrees with the published {sums.published.value}")


def _source_row(role: str, source: Checkpoint) -> tuple[str, ...]:
    files = counted_files(file.name for file in source.files)
    return (role, source.label, *_size(t.info for t in source.tensors.values()), files)


def _size(infos: Iterable[TensorInfo]) -> tuple[str, str, str]:
    """Tensor count, bytes, and dtypes with the most common first."""
    found = list(infos)
    held = Counter[str]()
    for info in found:
        held[info.dtype] += info.nbytes
    dtypes = " ".join(dtype for dtype, _ in held.most_common(3))
    return counted(len(found), "tensor"), format_size(sum(held.values())), dtypes


def _detail_rows(output: Output, job: Job, needs: Needs) -> list[tuple[str, str]]:
    plan = job.plan
    rows = [
        ("" if number else "how", rule) for number, rule in enumerate(output.shown(_rules(job)))
    ]
    if plan.dropped:
        names = sorted({place.kind for place in positions(plan.dropped).values()})
        rows.append(
            (
                "dropped",
                f"{counted(len(plan.dropped), 'buffer')} that no loader reads: {', '.join(names)}",
            )
        )
    by_role: dict[str, list[str]] = {}
    for sidecar in plan.sidecars:
        changed = "".join(f" ({change})" for change in sidecar.changes)
        by_role.setdefault(sidecar.role, []).append(sidecar.name + changed)
    for role, names in by_role.items():
        # A numbered role takes no article: "from model-2".
        whose = role if role[-1].isdigit() else f"the {role}"
        rows.append(("files", f"from {whose}: {', '.join(names)}"))
    if plan.repairs:
        rows.append(("repairs", ", ".join(plan.repairs)))
    rows += [("note", output.brief(note)) for note in plan.notes]
    for role, source in job.bindings.inputs.items():
        rows += [("note", f"{role}: {output.brief(note)}") for note in source.notes]
    rows += [("checked", finding) for finding in job.checked]
    memory = format_memory(needs.memory_nbytes)
    if needs.memory_free_nbytes is not None:
        memory += f" of {format_memory(needs.memory_free_nbytes)} available"
    disk = f"{format_size(needs.disk_nbytes)}{_of_free(needs.disk_free_nbytes)}"
    disk = f"at most {disk}" if needs.is_at_most else disk
    if needs.streamed_nbytes:
        disk += f"; {format_size(needs.streamed_nbytes)} of it for inputs while they stream"
    fetched = format_size(needs.fetched_nbytes)
    if needs.cache is not None:
        rows.append(("cache", f"{fetched}{_of_free(needs.cache_free_nbytes)}"))
    elif needs.fetched_nbytes:
        disk += f"; {fetched} of it for inputs, which stay in the hub's cache"
    rows += [("disk", disk), ("memory", memory)]
    total, done = len(job.plan.shards), job.finished_count()
    if done:
        rows.append(("staged", f"continuing: {done} of {total} files are finished"))
    largest = max((shard.nbytes for shard in job.plan.shards), default=0)
    if largest > _LARGE_NBYTES:
        lost = f"up to {format_size(largest)}, the file that is being written"
        rows.append(("kept", f"finished files; an interruption loses {lost}"))
    return rows


def _rules(job: Job) -> list[str]:
    """The rules of the plan with the number of tensors each: ``17 copied bit for bit``."""
    counts = Counter(each.rule.told() for each in job.plan.tensors)
    return [f"{count} {rule}" for rule, count in counts.most_common()]


def _of_free(nbytes: int | None) -> str:
    return "" if nbytes is None else f" of {format_size(nbytes)} free"
