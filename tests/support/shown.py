"""The commands that the pages show, and what the pages say comes of them.

    ```sh                          a block of commands, which a shell can run as it stands
    ```text                        directly behind it: lines that must be in what it prints
    <!-- not run: REASON -->       in the line before a block: it is not run, and why
    <!-- ends with: 1 -->          its exit code, if that is not 0
    <!-- goes on -->               it goes on where the blocks before it ended

The blocks of a tutorial always go on; those of any other page begin anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support.paths import ROOT

_BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[0-9a-f]{12,}|\d+(?:[., ]\d+)*")


@dataclass(frozen=True)
class Block:
    """Commands of a page."""

    page: str
    """The page's path in the repository."""
    line: int
    commands: str
    expected: str
    """What the page shows of the output; "" if it shows none."""
    reason: str
    """Why it is not run; "" if it is."""
    code: int
    goes_on: bool

    def __str__(self) -> str:
        """Where it stands, as an editor finds it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages that people read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[Block]:
    """Every block of commands of every page, in order."""
    for path in pages():
        page = path.relative_to(ROOT).as_posix()
        text = path.read_text("utf-8")
        found = [*_BLOCK.finditer(text), None]
        for block, after in pairwise(found):
            if block is None or block[2] != "sh":
                continue
            said = dict(re.findall(r"<!-- (not run|ends with|goes on):? ?(.*) -->", block[1]))
            follows = (
                after is not None
                and after[2] == "text"
                and not text[block.end() : after.start()].strip()
            )
            yield Block(
                page=page,
                line=text.count("\n", 0, block.start(3)) + 1,
                commands=block[3],
                expected=after[3] if follows and after else "",
                reason=said.get("not run", ""),
                code=int(said.get("ends with", 0)),
                goes_on="goes on" in said or page.startswith("docs/tutorials/"),
            )


def lines_missing(expected: str, output: str) -> list[str]:
    """Lines of `expected` that `output` does not have, in their order.

    Numbers are as good as any others, a path before a name too, and an ellipsis stands for all.
    """
    told = iter([_even(line) for line in output.splitlines()])
    missing = []
    for line in expected.splitlines():
        if line.strip() in {"", "…"}:
            continue
        pattern = re.compile(re.escape(_even(line)).replace("…", ".*"))
        seen = next((each for each in told if pattern.fullmatch(each)), None)
        if seen is None:
            missing.append(line)
    return missing


def _even(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())
