"""A push to the hub as a person reads it: before the delta is made, before it is sent, after."""

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.output import Output
from weightsmith.errors import ConfirmationNeeded, OptionMeaningless
from weightsmith.ops.make_delta import MadeDelta
from weightsmith.ops.push import (
    DEFAULT_REVISION,
    Push,
    Pushed,
    PushPlan,
    Wish,
    carry_out_push,
    prepare_push,
)
from weightsmith.units import counted, format_size


def require_meaning(output: Output, wish: Wish, *, asks: bool) -> None:
    """Refuse at once what would have to be refused when the delta is made.

    Raises: OptionMeaningless; ConfirmationNeeded.
    """
    others = {"--public": wish.public, "--create-pr": wish.create_pr}
    others["--revision"] = wish.revision != DEFAULT_REVISION
    given = [option for option, is_given in others.items() if is_given]
    if not wish.repo_id and given:
        reason = "without --hub-repo-id nothing is pushed"
        raise OptionMeaningless(options=", ".join(given), reason=reason)
    if wish.repo_id and asks and not output.can_ask:
        raise ConfirmationNeeded(question=f"push the delta to {wish.repo_id}?")


def show_push_plan(output: Output, plan: PushPlan) -> None:
    """Where a delta that is still to be made will go, and as what."""
    rows = [*_place(plan), ("files", ", ".join(output.shown(plan.names)))]
    rows += [("note", note) for note in plan.connection.notes]
    _page(output, rows)
    for note in plan.notes:
        output.warning(note)


def run_push(output: Output, plan: PushPlan, made: MadeDelta, *, yes: bool) -> Pushed | None:
    """Show what would go up, ask, and send it; None if the answer is no."""
    output.kept = lambda: f"{made.target} is finished, and stays"
    output.line(output.kept())
    push = prepare_push(plan, made)
    show_push(output, push)
    if not output.confirm(_question(push), yes=yes):
        output.line("nothing was pushed")
        return None
    with output.progress() as progress:
        return carry_out_push(push, progress)


def show_push(output: Output, push: Push) -> None:
    """Every file that would go up, what it would meet there, and the card in full."""
    sizes = push.commit.sizes
    rows = [*_place(push.plan), ("files", f"{len(sizes)}, {format_size(push.nbytes)}")]
    for what, names in (
        ("replaces", push.replaced),
        ("deletes", push.commit.deleted),
        ("leaves", push.others),
    ):
        if names:
            rows.append((what, ", ".join(output.shown(names))))
    _page(output, rows)
    files = [(name, format_size(size)) for name, size in sizes.items()]
    output.line(table(files, width=output.width, right=(1,)))
    output.line()
    output.line(heading("its model card"))
    for line in push.card.splitlines():
        output.line(f"  {line}".rstrip())
    output.line()


def _question(push: Push) -> str:
    """What a person has to agree to."""
    whose = "private" if push.plan.private else "public"
    count = counted(len(push.commit.files), "file")
    return f"push {count}, {format_size(push.nbytes)}, to {push.plan.wish.repo_id} ({whose})?"


def pushed_line(pushed: Pushed) -> str:
    """Where it is now."""
    where = pushed.pull_request or f"{pushed.url} at {pushed.commit[:12]}"
    what = "offered" if pushed.pull_request else "pushed"
    return f"{styled(what, 'green')}  {where}, every hash compared"


def _place(plan: PushPlan) -> list[tuple[str, str]]:
    wish, there = plan.wish, plan.destination.listing
    whose = "private" if plan.private else "public"
    is_new = "a new one, " if there is None else ""
    branch = wish.revision
    if plan.destination.new_branch:
        branch += ", a new branch"
    elif there is not None:
        branch += f", now {there.commit[:12]}"
    if wish.create_pr:
        branch += ", by a pull request"
    return [("repository", f"{wish.repo_id}, {is_new}{whose}"), ("revision", branch)]


def _page(output: Output, rows: list[tuple[str, str]]) -> None:
    output.plan(heading("push"))
    output.plan(table(rows, width=output.width))
    output.plan()
