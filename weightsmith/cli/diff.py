"""``weightsmith diff``."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from weightsmith import fs
from weightsmith.cli.diff_page.render import Made, render_page
from weightsmith.cli.diff_text import render_diff
from weightsmith.cli.options import (
    OUTPUT,
    SOURCE,
    Command,
    offline_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import WORKERS
from weightsmith.cli.sources import located
from weightsmith.engine.options import Options
from weightsmith.errors import TargetUnwritable
from weightsmith.ops import diff as ops


class PagePath(click.ParamType[Path]):
    """The path of an HTML page; no other ending is taken, so that no weight file is overwritten."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, after checking what can be checked before writing to it."""
        path = Path(value)
        if path.suffix.lower() not in {".html", ".htm"}:
            self.fail(f"{value!r} is not a page: give it a name that ends in .html", param, ctx)
        if path.is_dir() or not path.parent.is_dir():
            reason = "it is a directory" if path.is_dir() else f"there is no {path.parent}"
            self.fail(f"cannot write {value!r}: {reason}", param, ctx)
        return path


@click.command(
    "diff",
    cls=Command,
    examples=[
        "weightsmith diff ./llama-7b ./vicuna-7b-v1.1",
        "weightsmith diff ./llama-7b ./vicuna-7b-v1.1 --html diff.html",
    ],
    docs="how-to/diff",
)
@click.argument("a", type=SOURCE)
@click.argument("b", type=SOURCE)
@option(
    "--html",
    group=OUTPUT,
    type=PagePath(),
    metavar="FILE",
    help="Write a page with a heat map of layers and modules, and all tensors.",
)
@WORKERS
@offline_option
@output_options
@click.pass_obj
def command(output: Output, a: str, b: str, html: Path | None, workers: int, offline: bool) -> int:
    """Compare two models, tensor by tensor.

    Only tensors are compared, however they are spread over files. Exit code 0 if all are the same,
    bit for bit, and 1 if not.
    """
    before, after = (located(output, source, offline=offline) for source in (a, b))
    with output.progress() as progress:
        found = ops.diff(
            before,
            after,
            fingerprints=html is not None,
            options=Options(workers=workers),
            progress=progress,
        )
    document: dict[str, Any] = {"schema": "weightsmith.diff/1"}
    if output.json:
        document |= found.to_document()
    if html is not None:
        command = ["weightsmith", "diff", a, b, "--html", str(html)]
        made = Made(shlex.join(command), str(Path.cwd()), datetime.now(UTC))
        try:
            fs.write_durably(html, render_page(found, made).encode())
        except OSError as error:
            hint = "choose another place: --html FILE"
            raise TargetUnwritable(where=html, reason=error.strerror, hint=hint) from error
        document["html"] = str(html)
    output.result(
        document,
        human=render_diff(found, width=output.width, everything=output.verbose > 0),
        quiet="same" if found.equal else "different",
    )
    if html is not None:
        output.line(f"written: {html}")
    return 0 if found.equal else 1
