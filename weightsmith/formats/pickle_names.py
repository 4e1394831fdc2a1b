"""The names that a torch pickle may mention, and how each may be used.

Anything else is refused by name. Nothing here is imported: a name stands for itself.
"""

from dataclasses import dataclass
from typing import Final

STORAGE_DTYPES: Final = {
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64",
    "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16",
    "torch.IntStorage": "I32",
    "torch.LongStorage": "I64",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
    "torch.storage.UntypedStorage": "U8",
}
"""Kinds of storage and what their elements are."""

DTYPES: Final = {
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.int8": "I8",
    "torch.int16": "I16",
    "torch.int32": "I32",
    "torch.int64": "I64",
    "torch.uint8": "U8",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
    "torch.bool": "BOOL",
    "torch.complex64": "C64",
    "torch.complex128": "C128",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
}
"""Dtypes, mentioned by tensors of the newer kinds and by some training scripts as a value."""

ORDERED_DICT: Final = "collections.OrderedDict"
SIZE: Final = "torch.Size"
TENSOR_V2: Final = "torch._utils._rebuild_tensor_v2"
TENSOR_V3: Final = "torch._utils._rebuild_tensor_v3"
PARAMETER: Final = "torch._utils._rebuild_parameter"
PARAMETER_WITH_STATE: Final = "torch._utils._rebuild_parameter_with_state"
FROM_TYPE: Final = "torch._tensor._rebuild_from_type_v2"
GETATTR: Final = "__builtin__.getattr"

REBUILDERS: Final = frozenset(
    {ORDERED_DICT, SIZE, TENSOR_V2, TENSOR_V3, PARAMETER, PARAMETER_WITH_STATE, FROM_TYPE, GETATTR}
)
"""Functions whose answer `torch_pickle` knows."""

TENSOR: Final = "torch.Tensor"
WRAPPER: Final = "torch._utils._rebuild_wrapper_subclass"
DTENSOR: Final = "torch.distributed.tensor.DTensor"
SHARDED_TENSOR: Final = "torch.distributed._shard.sharded_tensor.api.ShardedTensor"

VALUES: Final = frozenset({TENSOR, WRAPPER, DTENSOR, SHARDED_TENSOR})
"""Names that occur only as arguments of a tensor's rebuilder, which say what it is to make."""

GROUP: Final = "ProcessGroupState"
"""The one attribute that is ever taken, of `SHARDED_TENSOR`."""


@dataclass(frozen=True, slots=True)
class Use:
    """How an object of a name is made and filled."""

    arguments: int = 0
    """How many it is made from."""
    state: str = ""
    """What fills it: ``"map"``, ``"pair"`` (None and a map), ``"five"`` (so many values), or
    nothing.
    """


_SPECS: Final = "torch.distributed.tensor"
_SHARDS: Final = "torch.distributed._shard"
_DCP: Final = "torch.distributed.checkpoint"

OBJECTS: Final = {
    f"{_SPECS}._dtensor_spec.DTensorSpec": Use(state="map"),
    f"{_SPECS}._dtensor_spec.TensorMeta": Use(arguments=3),
    f"{_SPECS}._dtensor_spec.ShardOrderEntry": Use(arguments=2),
    f"{_SPECS}.placement_types.Shard": Use(state="map"),
    f"{_SPECS}.placement_types.Replicate": Use(state="map"),
    f"{_SPECS}.placement_types._StridedShard": Use(state="map"),
    "torch.distributed.device_mesh.DeviceMesh": Use(state="map"),
    "torch.distributed._mesh_layout._MeshLayout": Use(state="map"),
    "torch.distributed._mesh_layout._FlatLayout": Use(state="map"),
    f"{_SHARDS}.sharded_tensor.shard.Shard": Use(state="pair"),
    f"{_SHARDS}.metadata.ShardMetadata": Use(state="pair"),
    f"{_SHARDS}.sharded_tensor.metadata.ShardedTensorMetadata": Use(state="map"),
    f"{_SHARDS}.sharded_tensor.metadata.TensorProperties": Use(state="five"),
    f"{_SHARDS}.sharding_spec.chunk_sharding_spec.ChunkShardingSpec": Use(state="map"),
    f"{_SHARDS}.sharding_spec.api.EnumerableShardingSpec": Use(state="map"),
    f"{SHARDED_TENSOR}.{GROUP}": Use(state="map"),
    "torch.distributed.remote_device._remote_device": Use(state="map"),
    f"{_DCP}.metadata.Metadata": Use(state="map"),
    f"{_DCP}.metadata.TensorStorageMetadata": Use(state="map"),
    f"{_DCP}.metadata.ChunkStorageMetadata": Use(state="map"),
    f"{_DCP}.metadata.BytesStorageMetadata": Use(),
    f"{_DCP}.metadata.MetadataIndex": Use(state="map"),
    f"{_DCP}.metadata.StorageMeta": Use(state="map"),
    f"{_DCP}.metadata.TensorProperties": Use(state="five"),
    f"{_DCP}.filesystem._StorageInfo": Use(state="map"),
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": Use(state="map"),
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": Use(state="map"),
    "deepspeed.utils.tensor_fragment.fragment_address": Use(state="map"),
    "argparse.Namespace": Use(state="map"),
}
"""Objects that a pickle may make and fill (NEWOBJ and BUILD)."""

MADE: Final = f"{SHARDED_TENSOR}.{GROUP}"
"""In `OBJECTS`, and reached by `GETATTR` alone: no pickle may mention it as a name."""

CALLS: Final = {
    "torch.serialization._get_layout": (1, 1),
    "torch.device": (1, 2),
    f"{_SHARDS}.sharded_tensor.metadata.MEM_FORMAT_ENCODING": (1, 1),
    f"{_DCP}.metadata._MEM_FORMAT_ENCODING": (1, 1),
    "deepspeed.runtime.zero.config.ZeroStageEnum": (1, 1),
    "pathlib.PosixPath": (0, 256),
    "pathlib._local.PosixPath": (0, 256),
}
"""Further functions that a pickle may call (REDUCE), with text or numbers, and how many at least
and at most; the answer is a record of the call. Python 3.13 alone has the second path.
"""

MENTIONED: Final = frozenset(
    {*STORAGE_DTYPES, *DTYPES, *REBUILDERS, *VALUES, *OBJECTS, *CALLS} - {MADE}
)
"""All names that a pickle may mention."""
