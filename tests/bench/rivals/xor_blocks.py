"""XOR two folders' files of the same names in blocks of 4 KiB, as Open-Assistant's script does.

    python xor_blocks.py OUT PAYLOAD BASE

A stand-in for ``xor_codec.py``, with its algorithm and none of its text: file after file, block
after block, the base's padded with zeros or cut to the payload's length. At the end it waits for
the disk, as weightsmith does.
"""

import os
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 4096


def combine(payload: BinaryIO, base: BinaryIO, out: BinaryIO) -> None:
    while block := payload.read(BLOCK):
        left = np.frombuffer(block, np.uint8)
        right = np.frombuffer(base.read(len(block)), np.uint8)
        if len(right) < len(left):
            right = np.pad(right, (0, len(left) - len(right)))
        out.write(np.bitwise_xor(left, right).tobytes())


def main() -> None:
    made, payloads, bases = map(Path, sys.argv[1:])
    made.mkdir()
    for path in sorted(payloads.iterdir()):
        with (
            path.open("rb") as payload,
            (bases / path.name).open("rb") as base,
            (made / path.name).open("wb") as out,
        ):
            combine(payload, base, out)
    os.sync()


if __name__ == "__main__":
    main()
