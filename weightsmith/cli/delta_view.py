"""A delta as a person and as a program read of it: before it is made, and after."""

from collections.abc import Mapping
from typing import Any

from weightsmith.cli.layout import heading, one_line_rows, styled, table
from weightsmith.cli.output import Output
from weightsmith.cli.push_view import pushed_line
from weightsmith.ops.deltas.additive import Loss
from weightsmith.ops.deltas.estimate import estimate
from weightsmith.ops.make_delta import DeltaJob, MadeDelta
from weightsmith.ops.push import Pushed
from weightsmith.units import format_duration, format_percent, format_size


def show_estimate(output: Output, job: DeltaJob) -> dict[str, Any]:
    """Say what an exact delta would come to, from a sample; the same as JSON values."""
    rules = (rule for shard in job.plan.shards for rule in shard.tensors)
    found = estimate(rules, job.bindings.inputs, coded=job.plan.delta.coded)
    size = format_size(found.nbytes)
    size += f" ± {format_size(found.error_nbytes)}" if found.error_nbytes else ""
    changed = format_percent(found.changed)
    changed += f" ± {format_percent(found.error_changed)}" if found.error_changed else ""
    rows = [
        ("size", f"about {size}, {format_percent(found.share)} of the target"),
        ("changed", f"{changed} of the weights"),
        ("sampled", f"{format_size(found.read_nbytes)} of the target's weights"),
        ("note", "where the change is a merged LoRA, the delta is smaller than that"),
    ]
    output.plan(table(rows, width=output.width))
    output.plan()
    return {"estimate": found.to_document()}


def show_made(
    output: Output,
    made: MadeDelta,
    pushed: Pushed | None,
    elapsed_s: float,
    planned: Mapping[str, Any],
    then: str,
) -> None:
    """The last lines of a run, and its document, with what was `planned` (`plan_view.told`) and
    what to do `then`.
    """
    said = "already done: every digest holds"
    if not made.already_done:
        said = f"in {format_duration(elapsed_s)}"
        said += f", {made.kept} kept from before" if made.kept else ""
        said += ", read back, decoded and compared" if made.loss is None else ", read back"
    if made.loss is not None:
        _show_loss(output, made.loss)
    size = f"{format_size(made.nbytes)}, {format_percent(made.share)} of the target"
    lines = [f"{styled('done', 'green')}  {made.target}", f"      {size}, {said}"]
    lines += [f"      {made.low_rank}"] if made.low_rank else []
    lines += [pushed_line(pushed)] if pushed is not None else []
    output.result(
        {
            **planned,
            "schema": "weightsmith.make-delta/1",
            "delta": str(made.target),
            "already_done": made.already_done,
            "files_kept": made.kept,
            "nbytes": made.nbytes,
            "target_nbytes": made.target_nbytes,
            "elapsed_s": round(elapsed_s, 3),
            "fingerprint": made.manifest.fingerprint,
            "files": list(made.manifest.files),
            "sidecars": list(made.manifest.sidecars),
            "low_rank": made.low_rank,
            "loss": None if made.loss is None else _loss_document(made.loss),
            "pushed": None if pushed is None else pushed.to_document(),
        },
        human="\n".join(lines),
        quiet=str(made.target),
        then=then,
    )


def _show_loss(output: Output, loss: Loss) -> None:
    """What adding the delta will not give back, the worst tensors first."""
    if not loss.tensors:
        return
    worst = sorted(loss.tensors.items(), key=lambda each: -each[1].share)[:5]
    output.line(heading("what this delta will not restore"))
    rows = [("", "of the weights", "off by up to")]
    rows += [
        (name, format_percent(each.share), f"{each.largest:.2g}")
        for name, each in [("all", loss.whole), *worst]
    ]
    output.line(one_line_rows(rows, width=output.width, shrink=(0,), right=(1, 2)))
    output.sentence("an exact delta restores every bit, and is smaller: --codec exact")


def _loss_document(loss: Loss) -> dict[str, object]:
    return {
        **loss.whole.to_document(),
        "tensors": {name: each.to_document() for name, each in loss.tensors.items()},
    }
