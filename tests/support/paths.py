"""Where things lie in the repository."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = ROOT / "tests"
VECTORS: Final = TESTS / "vectors"
"""Inputs and results of the original tools; never written to."""
