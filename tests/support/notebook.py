"""The program of a Jupyter notebook, as its cells run one after the other in one process."""

import json
from pathlib import Path

_SHELL = "import subprocess\n"


def program_of(notebook: Path) -> str:
    """Its code cells as one program: ``!`` lines run in a shell, ``%pip`` lines are left out."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for source in sources for line in source.splitlines()]
    return _SHELL + "\n".join(_plain(line) for line in lines if not line.startswith("%pip "))


def _plain(line: str) -> str:
    if line.startswith("!"):
        return f"subprocess.run({line[1:]!r}, shell=True, check=True)"
    return line
