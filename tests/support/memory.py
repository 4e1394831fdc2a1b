"""What takes memory: a Python program, measured in a process of its own, and the page cache."""

import ctypes
import gc
import mmap
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


def cached_nbytes(path: Path) -> int:
    """How much of a file the page cache holds.

    Source: Linux mincore(2).
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        held = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))
        code = ctypes.CDLL(None).mincore(start, ctypes.c_size_t(len(mapped)), held)
        gc.collect()  # the map cannot be closed while something of ctypes looks at it
    assert code == 0
    return sum(each & 1 for each in held) * mmap.PAGESIZE
