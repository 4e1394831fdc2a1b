"""The table of codecs: an id in a plan to the class that does it, imported on first use."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final, cast

from weightsmith.codecs.base import Codec

_CODECS: Final = {
    "add@1": "weightsmith.codecs.add:Add",
    "cast@1": "weightsmith.codecs.cast:Cast",
    "copy@1": "weightsmith.codecs.copy:Copy",
    "dequantize-awq@1": "weightsmith.codecs.quantised.packed:DequantizeAwq",
    "dequantize-blocks@1": "weightsmith.codecs.quantised.blocks:DequantizeBlocks",
    "dequantize-codebook@1": "weightsmith.codecs.quantised.codebook:DequantizeCodebook",
    "dequantize-gptq@1": "weightsmith.codecs.quantised.packed:DequantizeGptq",
    "dequantize-mxfp4@1": "weightsmith.codecs.quantised.mxfp4:DequantizeMxfp4",
    "dequantize-words@1": "weightsmith.codecs.quantised.packed:DequantizeWords",
    "disk-delta@1": "weightsmith.codecs.disk_delta:DiskDelta",
    "exact@1": "weightsmith.codecs.exact.codec:Exact",
    "join@1": "weightsmith.codecs.join:Join",
    "keystream-file@1": "weightsmith.codecs.keystream_file:KeystreamFile",
    "linear@1": "weightsmith.codecs.linear:Linear",
    "lora@1": "weightsmith.codecs.lora.codec:Lora",
    "lora-factor@1": "weightsmith.codecs.low_rank.extract:LoraFactor",
    "low-rank@1": "weightsmith.codecs.low_rank.codec:LowRank",
    "regroup@1": "weightsmith.codecs.regroup:Regroup",
    "subtract@1": "weightsmith.codecs.add:Subtract",
    "xor-file@1": "weightsmith.codecs.xor_file:XorFile",
}
"""An id carries the codec's version, so that a plan made by another version is not run by this
one.
"""


def codec(codec_id: str, params: Mapping[str, str]) -> Codec:
    """The codec of a plan's tensor, with its settings.

    Raises: KeyError, if this version of weightsmith does not know the id.
    """
    return _codec(codec_id, tuple(sorted(params.items())))


@cache
def _codec(codec_id: str, params: tuple[tuple[str, str], ...]) -> Codec:
    module, name = _CODECS[codec_id].split(":")
    return cast("Codec", getattr(import_module(module), name)(**dict(params)))
