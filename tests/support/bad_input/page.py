"""docs/reference/bad-input.md: every case and what it prints.

python -m tests.support.bad_input.page     write it anew
"""

from collections.abc import Callable
from typing import Final

from tests.support.bad_input.answers import Answer, answer
from tests.support.bad_input.case import Case
from tests.support.bad_input.cases import KINDS
from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "bad-input.md"

_INTRODUCTION: Final = """\
# Bad input

What `weightsmith apply-delta --base base --delta delta --target target` says when something is
wrong with what it is given.
In every case the inputs stay as they are and nothing gets the target's name.
Nothing is written at all, but where the last column says so.
`weightsmith help exit-codes` and `weightsmith help REFERENCE` explain more; `-v` shows what "and N
more" leaves out.
"""
_HEAD: Final = "| What | Exit | What it prints |\n| --- | ---: | --- |\n"


def render(answer_of: Callable[[Case], Answer]) -> str:
    """The page, from the answers that the cases got."""
    parts = [_INTRODUCTION]
    for kind in KINDS:
        rows = "".join(_row(case, answer_of(case)) for case in kind)
        parts.append(f"## {kind.title}\n\n{_HEAD}{rows}")
    return "\n".join(parts)


def _row(case: Case, given: Answer) -> str:
    lines = [_code(line) for line in given.last_words.splitlines()]
    if case.shows_late:
        lines.append("Finished shards are kept for the next run.")
    return f"| {case.what} | {given.human.code} | {'<br>'.join(lines)} |\n"


def _code(line: str) -> str:
    """A line as it is printed, in a cell of a table."""
    text = line.strip().replace("|", "\\|")
    return f"`{text}`"


def main() -> None:
    """Run all cases and write the page."""
    PAGE.write_text(render(answer), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
