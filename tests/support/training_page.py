"""The table in docs/how-to/training-outputs.md: every case and what becomes of it.

python -m tests.support.training_page     write it anew
"""

from collections.abc import Callable
from typing import Final

from tests.support.paths import ROOT
from tests.support.training_cases import CASES, LEFT, Case, Outcome, outcome_of
from weightsmith.cli.flags import as_flags

PAGE: Final = ROOT / "docs" / "how-to" / "training-outputs.md"
_BEGIN: Final = "| What was left | Options | What becomes of it |\n| --- | --- | --- |\n"


def render(page: str, outcome: Callable[[Case], Outcome]) -> str:
    """The page with its table made anew."""
    start = page.index(_BEGIN)
    rest = page[start:].partition("\n\n")[2]
    rows = "".join(_row(case, outcome(case)) for case in CASES)
    return f"{page[:start]}{_BEGIN}{rows}\n{rest}" if rest else f"{page[:start]}{_BEGIN}{rows}"


def _row(case: Case, outcome: Outcome) -> str:
    options = " ".join(f"`--{key} {value}`" for key, value in case.options.items())
    if outcome.error is not None:
        words = as_flags(str(outcome.error)).replace(f"{LEFT}/", "").replace("|", "\\|")
        became = f"exit {outcome.error.exit_code}: `{words} [{outcome.error.reference}]`"
    else:
        tied = f"; {', '.join(case.tied)} once, as the config ties it" if case.tied else ""
        became = f"the oracle's bits{tied}"
    return f"| {case.what} | {options} | {became} |\n"


def main() -> None:
    """Run all cases and write the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), outcome_of), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
