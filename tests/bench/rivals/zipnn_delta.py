"""zipnn's delta of safetensors files: their XOR with the base's files of the same names.

    python zipnn_delta.py compress|decompress BASE FOLDER OUT DTYPE

At the end it waits for the disk, as weightsmith does.
"""

import os
import sys
from pathlib import Path

from zipnn import ZipNN

if __name__ == "__main__":
    way, bases, folder, made, dtype = sys.argv[1:]
    Path(made).mkdir()
    codec = ZipNN(bytearray_dtype=dtype, delta_compressed_type="byte")
    for path in sorted(Path(folder).glob("*.safetensors")):
        base = (Path(bases) / path.name).read_bytes()
        coded = getattr(codec, way)(path.read_bytes(), delta_second_data=base)
        (Path(made) / path.name).write_bytes(coded)
    os.sync()
