"""The peak memory of a Python program, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
HAS_PEAK = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="no /proc to ask for the peak"
)
_TELL = """
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def peak_nbytes(program: str, *arguments: object) -> int:
    """Peak resident bytes of a program that prints nothing, given these as ``sys.argv[1:]``."""
    argv = [sys.executable, "-c", program + _TELL, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return int(done.stdout)
