"""A tensor of a checkpoint that is read when its values are asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightsmith.errors import DtypeUnknownHere, PackageMissing
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import torch

    from weightsmith.checkpoint.checkpoint import Checkpoint

_NUMPY: Final = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C64": "complex64",
}
"""NumPy's own names for the dtypes that it has."""
_ML_DTYPES: Final = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
"""What the package ml_dtypes adds to NumPy."""
_TORCH: Final = _NUMPY | _ML_DTYPES
"""torch's names for the dtypes, which are the same."""


@dataclass(frozen=True, slots=True, repr=False)
class LazyTensor:
    """One tensor of a checkpoint: its dtype and shape now, its values when they are asked for.

    Memory: `torch` and `numpy` read the whole tensor, once each time.
    """

    checkpoint: "Checkpoint"
    info: TensorInfo

    @property
    def name(self) -> str:
        """``"model.layers.0.mlp.up_proj.weight"``."""
        return self.info.name

    @property
    def dtype(self) -> str:
        """The format's code: ``"BF16"``."""
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return self.info.shape

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.info.nbytes

    def __repr__(self) -> str:
        """``model.norm.weight: BF16 [4096]``."""
        return f"{self.name}: {self.dtype} {list(self.shape)}"

    def numpy(self) -> "np.ndarray[Any, np.dtype[Any]]":
        """The values as a NumPy array of the same dtype.

        Raises: PackageMissing, for BF16 and floats of 8 bits without the package ml_dtypes;
        DtypeUnknownHere, for what neither has; what reading raises.
        """
        import numpy as np

        if self.dtype in _NUMPY:
            dtype = np.dtype(_NUMPY[self.dtype])
        elif self.dtype in _ML_DTYPES:
            try:
                import ml_dtypes
            except ImportError as error:
                raise PackageMissing(wish=f"{self.dtype} in NumPy", package="ml_dtypes") from error
            dtype = np.dtype(getattr(ml_dtypes, _ML_DTYPES[self.dtype]))
        else:
            raise DtypeUnknownHere(name=self.name, dtype=self.dtype, where="NumPy")
        return np.frombuffer(self.checkpoint.read_whole(self.name), dtype).reshape(self.shape)

    def torch(self) -> "torch.Tensor":
        """The values as a torch tensor of the same dtype.

        What lies in a safetensors file of this machine is read by the library of that name, which
        maps it into memory.
        Raises: PackageMissing, without torch; DtypeUnknownHere; what reading raises.
        """
        try:
            import torch
        except ImportError as error:
            raise PackageMissing(wish="a tensor of torch", package="torch") from error
        dtype = getattr(torch, _TORCH.get(self.dtype, ""), None)
        if dtype is None:
            raise DtypeUnknownHere(name=self.name, dtype=self.dtype, where="torch")
        if (path := self.checkpoint.safetensors_file(self.name)) is not None:
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                if self.name in file.keys():  # noqa: SIM118  (it is no mapping)
                    tensor: torch.Tensor = file.get_tensor(self.name)
                    return tensor
        if not self.nbytes:  # torch refuses an empty buffer
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(self.checkpoint.read_whole(self.name), dtype=dtype).reshape(
            self.shape
        )
