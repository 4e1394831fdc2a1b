"""Where a model is to run."""

import importlib.util
from typing import Literal

from weightsmith.errors import NoCuda, PackageMissing

Device = Literal["auto", "cpu", "cuda"]


def choose_device(device: Device, *, low_cpu_mem: bool = False) -> str:
    """Where torch is to run the model: ``"cpu"`` or ``"cuda"``.

    Raises: NoCuda; PackageMissing, if that takes accelerate and it is not installed.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise NoCuda
    where = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if (low_cpu_mem or where == "cuda") and importlib.util.find_spec("accelerate") is None:
        wish = "`low_cpu_mem`" if low_cpu_mem else "a smoke test on a GPU"
        raise PackageMissing(wish=wish, package="accelerate")
    return where
