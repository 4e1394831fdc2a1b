"""The picture at the top of the README: real runs, line by line, as an SVG that plays itself.

    python -m tests.demo.recording        writes docs/pictures/recording.svg

The commands run on the tiny models of the scenes, their hub on loopback; nothing is edited but for
the paths of the folder that they run in. Each command has the screen for itself, as after
``clear``, so that the picture is no taller than one of them; the last one stays.
"""

import os
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Final

from tests.support.hub.client import usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT
from tests.support.scenes import Cast, hub_alone
from weightsmith.cli.layout import RESET, STYLES

COMMANDS: Final = (
    "weightsmith apply-delta --base llama-7b --delta lmsys/vicuna-7b-delta-v1.1 --low-cpu-mem",
    "weightsmith verify ./vicuna-7b-v1.1 --smoke",
)
PICTURE: Final = ROOT / "docs" / "pictures" / "recording.svg"
_COLOURS: Final = {
    "bold": "font-weight='700'", "dim": "fill='#8b949e'", "red": "fill='#ff7b72'",
    "green": "fill='#3fb950'", "yellow": "fill='#d29922'", "cyan": "fill='#56d4dd'",
}  # fmt: skip
_CODES: Final = re.compile("(" + "|".join(map(re.escape, [*STYLES.values(), RESET])) + ")")
_LINE: Final = 17
_WIDTH: Final = 740
_COLUMNS: Final = 80
_STYLE: Final = """<style>
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #e6edf3;
  white-space: pre; opacity: 0; animation: show .01s forwards }
@keyframes show { to { opacity: 1 } }
.gone { animation: hide .01s forwards }
@keyframes hide { to { visibility: hidden } }
@media (prefers-reduced-motion: reduce) { text { animation: none; opacity: 1 }
  .gone { animation: none; visibility: hidden } }
</style>"""

Screen = list[tuple[float, str]]
"""What one command says: lines, and the second at which each appears."""


def main() -> None:
    """Run the commands and draw what they say."""
    screens: list[Screen] = []
    with tempfile.TemporaryDirectory() as temporary, Hub() as hub:
        folder = Path(temporary).resolve()
        (trained := folder / "cast").mkdir()
        cast = Cast.trained(trained)
        (here := folder / "here").mkdir()
        hub_alone(cast, here, hub)
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = usual_env(hub) | {
            "HF_HOME": str(folder / "hf"),
            "PATH": beside,
            "COLUMNS": str(_COLUMNS),
        }
        env |= {"FORCE_COLOR": "1", "HF_HUB_DISABLE_XET": "1"}
        env.pop("NO_COLOR", None)
        at = 0.4
        for command in COMMANDS:
            lines: Screen = [(at, f"{STYLES['green']}${RESET} {command}")]
            done = subprocess.run(
                ["bash", "-c", f"{command} 2>&1"],
                cwd=here,
                env=env,
                capture_output=True,
                text=True,
                check=True,
            )
            at += 1.2
            for line in done.stdout.replace(f"{here}/", "./").splitlines():
                for row in _rows(line.rpartition("\r")[2]):
                    lines.append((at, row))
                at += 0.12
            at += 2.5
            screens.append(lines)
    PICTURE.write_text(drawn(screens), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


def _rows(line: str) -> list[str]:
    """A line as a terminal breaks it: what a model wrote can be longer than its columns."""
    if _CODES.search(line):
        return [line]  # our own lines, which fit
    return [line[at : at + _COLUMNS] for at in range(0, max(len(line), 1), _COLUMNS)]


def drawn(screens: list[Screen]) -> str:
    """One screen after the other; where motion is not wanted, the last, all of it at once."""
    height = _LINE * max(map(len, screens)) + 44
    said = escape("; ".join(COMMANDS))
    dots = "".join(f"<circle cx='{x}' cy='16' r='5' fill='#484f58'/>" for x in (18, 36, 54))
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}'",
        f" width='{_WIDTH}' role='img' aria-label='{said}'>",
        _STYLE,
        f"<rect width='{_WIDTH}' height='{height}' rx='8' fill='#0d1117'/>",
        dots,
    ]
    for screen, following in zip(screens, [*screens[1:], None], strict=True):
        gone = f" class='gone' style='animation-delay:{following[0][0]:.2f}s'" if following else ""
        parts.append(f"<g{gone}>")
        for row, (at, line) in enumerate(screen):
            parts.append(
                f"<text x='14' y='{44 + _LINE * row}' xml:space='preserve'"
                f" style='animation-delay:{at:.2f}s'>{spans(line)}</text>"
            )
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def spans(line: str) -> str:
    """A line with its styles as spans."""
    names = {code: name for name, code in STYLES.items()}
    style, parts = "", []
    for part in _CODES.split(line):
        if part == RESET or part in names:
            style = _COLOURS[names[part]] if part in names else ""
        elif part:
            parts.append(f"<tspan {style}>{escape(part)}</tspan>" if style else escape(part))
    return "".join(parts)


if __name__ == "__main__":
    main()
