"""The support matrix in docs/how-to/merge-lora.md: what is made of every merge vector.

python -m tests.support.merge_matrix     write it anew
"""

from typing import Final

from tests.support.merge_cases import CASES, MergeCase
from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "how-to" / "merge-lora.md"

_BEGIN: Final = "<!-- made by tests.support.merge_matrix.py -->\n"
_END: Final = "<!-- end -->\n"
_HEAD: Final = "| Adapter | Of, or onto | Result |\n| --- | --- | --- |\n"


def render() -> str:
    """The matrix with the marks around it."""
    return f"{_BEGIN}{_HEAD}{''.join(map(_row, CASES))}{_END}"


def _row(case: MergeCase) -> str:
    words = {"equal": "equal to peft", "formula": "by formula", "refused": "refused"}
    why = f": {case.why}" if case.why else ""
    if case.outcome == "refused":
        why = f": `{case.why}`"
    return f"| {case.kind} | {case.family} | {words[case.outcome]}{why} |\n"


def write() -> None:
    """Replace what stands between the marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(before + render() + after, encoding="utf-8")


if __name__ == "__main__":
    write()
