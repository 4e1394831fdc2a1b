"""Every tensor of a SOURCE, one at a time, as an inference engine loads them: iterate.py SOURCE."""

import sys

from weightsmith import open_checkpoint

with open_checkpoint(sys.argv[1]) as checkpoint:
    for _name, tensor in checkpoint.iter_tensors(framework="np"):
        tensor.flat[:1]
