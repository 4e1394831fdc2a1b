"""Write what is made from the code: pages and man pages; with ``--check`` say what is stale."""

import json
import os
import sys
from pathlib import Path

import click
import figures
from charts import charts
from man_page import manual

from weightsmith.catalogue import page, repairs
from weightsmith.cli.help_topics import errors_markdown, exit_codes_markdown
from weightsmith.cli.main import COMMANDS, group

DOCS = Path(__file__).parent
MEASURED = ("../README.md", "explanation/performance.md", "tutorials/thirty-fine-tunes.md")
"""Pages that say what the benchmark found."""

_JSON = """\
`--json` prints one document on stdout and nothing else.
Its `schema` is `weightsmith.apply-delta/1` or the like, and what a field means never changes.
`warnings` are those of the run.
`next` is what to do next, where there is something: a command line, which people get as a hint.
A run that fails prints another document, on stderr: `schema`, `code`, `reference`, `message`,
`context`, `hint`, `warnings`.
"""


def commands_markdown(root: click.Context) -> str:
    """Every command's help, as a terminal of 80 columns shows it."""
    parts = ["# Commands\n", _JSON]
    for name in COMMANDS:
        command = group.get_command(root, name)
        if command is None:
            raise LookupError(name)
        with command.context_class(command, info_name=name, parent=root) as context:
            parts.append(f"## {name}\n\n```text\n{click.unstyle(context.get_help())}\n```\n")
    return "\n".join(parts)


def generated() -> dict[str, str]:
    """Every generated file by its path from docs/."""
    found = json.loads((DOCS / "pictures" / "benchmark.json").read_text(encoding="utf-8"))
    pieces = figures.pieces(found)
    measured = {name: (DOCS / name).read_text(encoding="utf-8") for name in MEASURED}
    os.environ["COLUMNS"] = "80"
    with group.make_context("weightsmith", [], resilient_parsing=True) as root:
        commands = commands_markdown(root)
        man_pages = manual(group, root)
    return {
        "reference/catalogue.md": page.render(),
        "reference/commands.md": commands,
        "reference/errors.md": errors_markdown(),
        "reference/exit-codes.md": exit_codes_markdown(),
        "reference/repairs.md": repairs.render(),
        **{f"man/{name}": text for name, text in man_pages.items()},
        **{f"pictures/{name}": text for name, text in charts(found).items()},
        **{name: figures.filled(page, pieces) for name, page in measured.items()},
    }


def main() -> int:
    """Write or check; the number of stale files is the exit code."""
    stale = 0
    for name, content in generated().items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        if "--check" in sys.argv[1:]:
            stale += 1
            print(f"docs/{name} is stale: make docs", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
            print(f"docs/{name}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
