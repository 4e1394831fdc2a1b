"""Deltas of many fine-tunes of one base, one after the other."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from weightsmith.cli.layout import one_line_rows, styled
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.sources import located
from weightsmith.errors import CommandLineInvalid
from weightsmith.ops.make_delta import MadeDelta
from weightsmith.sources.locate import label_of
from weightsmith.units import counted, format_duration, format_percent, format_size


def make_all(
    output: Output,
    make: Callable[..., MadeDelta],
    base: str,
    targets: Sequence[str],
    directory: Path,
    *,
    offline: bool,
) -> None:
    """Make `directory`/NAME for each target; the same line again goes on where it was stopped.

    Raises: CommandLineInvalid, where two targets have one name; as `make`, which ends the rest.
    """
    places = _places(targets, directory)
    ground = located(output, base, offline=offline)
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = [("delta", "target", "size", "share", "in")]
    raw_nbytes = nbytes = 0
    documents = []
    for number, (place, target) in enumerate(places.items(), start=1):
        output.line(f"{number} of {len(places)}: {target}")
        output.kept = partial(_kept, number - 1, len(places))
        started_s = time.monotonic()
        with output.progress() as progress:
            source = located(output, target, offline=offline)
            made = make(ground, source, place, progress=progress)
        elapsed_s = time.monotonic() - started_s
        took = "was there" if made.already_done else format_duration(elapsed_s)
        sizes = (
            format_size(made.target_nbytes),
            format_size(made.nbytes),
            format_percent(made.share),
        )
        rows.append((str(place), *sizes, took))
        raw_nbytes += made.target_nbytes
        nbytes += made.nbytes
        documents.append(
            {
                "delta": str(place),
                "target": label_of(source),
                "already_done": made.already_done,
                "nbytes": made.nbytes,
                "target_nbytes": made.target_nbytes,
                "elapsed_s": round(elapsed_s, 3),
                "fingerprint": made.manifest.fingerprint,
            }
        )
    total = (
        f"{counted(len(places), 'fine-tune')}: {format_size(raw_nbytes)} -> {format_size(nbytes)}"
    )
    page = one_line_rows(
        rows, width=output.width, shrink=(0,), styles=("bold",), right=(1, 2, 3, 4)
    )
    output.result(
        {
            "schema": "weightsmith.make-deltas/1",
            "deltas": documents,
            "target_nbytes": raw_nbytes,
            "nbytes": nbytes,
        },
        human=f"{page}\n\n{styled('done', 'green')}  {total}",
        quiet="\n".join(map(str, places)),
        then=command_line(["weightsmith", "inspect", directory]),
    )


def _kept(done: int, total: int) -> str:
    return f"{done} of {total} deltas are finished, and stay"


def _places(targets: Sequence[str], directory: Path) -> dict[Path, str]:
    """Where each target's delta goes, by the target's own name.

    Raises: CommandLineInvalid.
    """
    places: dict[Path, str] = {}
    for target in targets:
        place = directory / Path(target.partition("@")[0].rstrip("/")).name
        if place in places:
            reason = f"{places[place]} and {target} have one name, {place.name}"
            raise CommandLineInvalid(reason=reason, hint="make their deltas one by one")
        places[place] = target
    return places
