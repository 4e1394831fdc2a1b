"""Tell how a model is quantised, by its config and by its tensors, which must agree."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.quantised import quantiser_tensors
from weightsmith.errors import QuantisationInvalid, QuantisationUnknown
from weightsmith.formats.tensors import DTYPES, TensorInfo
from weightsmith.plan.quantised import methods
from weightsmith.plan.quantised.weights import Layout, Quantised, ReadSmall

KEYS: Final = ("quantization_config", "compression_config")
"""Where configs keep it: compressed-tensors had a name of its own before version 0.7."""
_FINDERS: Final[Mapping[str, Callable[[Layout], str]]] = {
    "awq": methods.awq,
    "bitsandbytes": methods.bitsandbytes,
    "bitsandbytes_4bit": methods.bitsandbytes,
    "bitsandbytes_8bit": methods.bitsandbytes,
    "compressed-tensors": methods.compressed_tensors,
    "fp8": methods.fp8,
    "gptq": methods.gptq,
    "mxfp4": methods.mxfp4,
    "torchao": methods.torchao,
}
_NARROW: Final = frozenset({"F8_E4M3", "F8_E5M2", "I8", "U8", "I32", "F4"})


def quantisation_settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a config says of quantisation; None where it says nothing.

    Raises: QuantisationInvalid, if it says two things, or nothing that can be read.
    """
    parts = (config, config.get("text_config"))
    found = [
        part[key]
        for part in parts
        if isinstance(part, dict)
        for key in KEYS
        if part.get(key) is not None
    ]
    if not found:
        return None
    first = found[0]
    if not isinstance(first, dict) or not all(each == first for each in found):
        reason = f"{' and '.join(KEYS)} contradict each other, or hold no object"
        raise QuantisationInvalid(name="config.json", reason=reason)
    return first


def find_quantised(
    label: str, config: Mapping[str, Any], infos: Iterable[TensorInfo], read: ReadSmall
) -> Quantised | None:
    """The quantised weights of a model; None where all of them are floats.

    Raises: QuantisationInvalid for parts that are missing or of another shape or dtype than is due,
    and a config that does not say what the tensors are; QuantisationUnknown.
    """
    by_name = {info.name: info for info in infos}
    settings = quantisation_settings(config)
    method = _method(settings, by_name)
    if method is None:
        return None
    finder = _FINDERS.get(method)
    if finder is None:
        reason = "its layout is not known"
        raise QuantisationUnknown(source=label, method=method, reason=reason)
    dtype = DTYPES.get(str(config.get("dtype", config.get("torch_dtype"))), "BF16")
    layout = Layout(settings or {}, by_name, read, dtype)
    try:
        width = finder(layout)
    except methods.Unknown as unknown:
        raise QuantisationUnknown(source=label, method=method, reason=str(unknown)) from unknown
    parts = {part for weight in layout.found for part in weight.parts}
    statistics = quantiser_tensors(by_name.values(), quantised=True) - parts
    for info in by_name.values():
        if is_buffer(info.name, info.shape) or info.name in parts:
            continue
        if info.dtype in _NARROW and len(info.shape) > 1:
            reason = f"it is {info}, which is no part of what {method} leaves"
            raise QuantisationInvalid(name=info.name, reason=reason)
    for weight in layout.found:
        if weight.name in by_name and weight.name not in parts:
            reason = f"it is there beside {weight.parts[0]}"
            raise QuantisationInvalid(name=weight.name, reason=reason)
    if not layout.found:
        return None
    return Quantised(method, width, tuple(layout.found), statistics)


def _method(settings: Mapping[str, Any] | None, infos: Mapping[str, TensorInfo]) -> str | None:
    """The method's name; None where nothing is quantised."""
    if settings is None:
        return "bitsandbytes" if any(methods.BNB_STATE in name for name in infos) else None
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        return "bitsandbytes"
    return str(method)
