"""Where each method of quantisation keeps its weights.

Source: transformers 5.23 ``quantizers`` and ``integrations``; the libraries that wrote the files.
"""

import json
import math
from collections.abc import Sequence
from typing import TypeGuard

from weightsmith.errors import QuantisationInvalid
from weightsmith.formats.tensors import DTYPES, TensorInfo
from weightsmith.plan.quantised.weights import FLOATS, Layout, Weight, require_shape

BNB_STATE = ".quant_state.bitsandbytes__"
"""What follows a weight's name in that of the tensor that says how its four bits are to be read."""
_BNB_INT8 = "7.874015718698502e-3"
"""1/127, as bitsandbytes has it."""
_EXPONENTS = ("U8", "F8_E8M0")
_FP8 = ("F8_E4M3", "F8_E5M2")


class Unknown(Exception):
    """A variant that cannot be undone; its text says which."""


def bitsandbytes(layout: Layout) -> str:
    """Four bits by a table (nf4, fp4), or eight bits by rows."""
    widths = set()
    states = [name for name in layout.infos if BNB_STATE in name]
    for name in states:
        _four_bits(layout, name)
        widths.add("4 bit")
    stated = {name.partition(BNB_STATE)[0] for name in states}
    for name in layout.ends(".absmax"):
        if name not in stated:
            raise QuantisationInvalid(name=name, reason=f"{name}.quant_state is missing")
    for layer in layout.ends(".SCB"):
        weight = layout.part(f"{layer}.weight", f"{layer}.SCB", ["I8"])
        scale = layout.part(f"{layer}.SCB", weight.name, ["F32"])
        require_shape(scale, weight.shape[:1], why=f"for {weight.name} {list(weight.shape)}")
        form = f"{layer}.weight_format"
        beside = [form] if form in layout.infos else []
        if beside and layout.read(form).strip(b"\0"):
            raise Unknown(f"{form} says that rows are not in order")
        params = _by_rows(weight) | {"factor": _BNB_INT8}
        _add(layout, weight.name, "dequantize-blocks@1", params, (weight, scale), beside)
        widths.add("8 bit")
    return " and ".join(sorted(widths)) or "unknown"


def _four_bits(layout: Layout, name: str) -> None:
    weight_name = name.partition(BNB_STATE)[0]
    try:
        state = json.loads(layout.read(name))
        shape = tuple(int(each) for each in state["shape"])
        block = int(state["blocksize"])
        kept = DTYPES[state["dtype"]]
        nested = int(state["nested_blocksize"]) if "nested_blocksize" in state else 0
        offset = repr(float(state["nested_offset"])) if nested else ""
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = f"its state is not what bitsandbytes writes: {error!r}"
        raise QuantisationInvalid(name=name, reason=reason) from error
    if kept not in FLOATS or not math.isfinite(float(offset or 0)):
        reason = f"by its state, weights were {state['dtype']} and sizes have an offset of {offset}"
        raise QuantisationInvalid(name=name, reason=reason)
    weight = layout.part(weight_name, name)
    count = math.prod(shape)
    if min(shape, default=0) < 1 or block < 1 or weight.nbytes != -(-count // 2):
        reason = f"it has {weight.nbytes} bytes, and {list(shape)} is due by its state"
        raise QuantisationInvalid(name=weight_name, reason=reason)
    sizes = layout.part(f"{weight_name}.absmax", weight_name, ["U8"] if nested else ["F32"])
    blocks = -(-count // block)
    require_shape(sizes, (blocks,), (blocks, 1), why=f"for blocks of {block}")
    table = layout.part(f"{weight_name}.quant_map", weight_name, ["F32"])
    require_shape(table, (16,), why="for 4 bits")
    inputs = [weight, sizes, table]
    params = {"shape": ",".join(map(str, shape)), "block": str(block), "kept": kept}
    if nested:
        larger = layout.part(f"{weight_name}.nested_absmax", weight_name, ["F32"])
        require_shape(larger, (-(-blocks // nested),), why=f"for blocks of {nested}")
        bytewise = layout.part(f"{weight_name}.nested_quant_map", weight_name, ["F32"])
        require_shape(bytewise, (256,), why="for bytes")
        inputs += [larger, bytewise]
        params |= {"nested_block": str(nested), "offset": offset}
    _add(layout, weight_name, "dequantize-codebook@1", params, tuple(inputs), [name])


def fp8(layout: Layout) -> str:
    """Eight bits, with one scale a block, or one for all of a weight."""
    size = layout.settings.get("weight_block_size")
    if size is not None and not _is_pair(size):
        reason = f"weight_block_size is {size!r}, not two numbers"
        raise QuantisationInvalid(name="quantization_config", reason=reason)
    for weight in _wide(layout, _FP8):
        scale = layout.part(f"{weight.name}_scale_inv", weight.name, (*FLOATS, *_EXPONENTS))
        if size is None:
            require_shape(scale, (), (1,), why="without blocks")
            params = _whole(weight)
        else:
            down, across = -(-weight.shape[-2] // size[0]), -(-weight.shape[-1] // size[1])
            due = (*weight.shape[:-2], down, across)
            require_shape(scale, due, why=f"for blocks of {size} of {list(weight.shape)}")
            params = {"rows": str(size[0]), "columns": str(size[1])}
        _add(layout, weight.name, "dequantize-blocks@1", params, (weight, scale))
    return "8 bit"


def compressed_tensors(layout: Layout) -> str:
    """Eight bits of floats or integers, or integers packed into words; symmetric."""
    widths = set()
    stated = layout.settings.get("config_groups")
    groups = list(stated.values()) if isinstance(stated, dict) else []
    if not all(isinstance(group, dict) for group in groups):
        reason = "its config_groups hold what is no group"
        raise QuantisationInvalid(name="quantization_config", reason=reason)
    weights = [group.get("weights") for group in groups]
    schemes = [each for each in weights if isinstance(each, dict)]
    for suffix in ("_zero_point", "_g_idx", "_global_scale"):
        if odd := layout.ends(f".weight{suffix}"):
            raise Unknown(f"{odd[0]} has a weight{suffix}")
    for layer in layout.ends(".weight_packed"):
        _words(layout, layer, schemes)
        widths.add("4 bit" if layout.found[-1].params["bits"] == "4" else "8 bit")
    for weight in _wide(layout, (*_FP8, "I8")):
        scale = layout.part(f"{weight.name}_scale", weight.name, FLOATS)
        params = _scheme(weight, scale, schemes) | {"rounding": scale.dtype}
        _add(layout, weight.name, "dequantize-blocks@1", params, (weight, scale))
        widths.add("8 bit")
    return " and ".join(sorted(widths)) or "unknown"


def _words(layout: Layout, layer: str, schemes: Sequence[dict[str, object]]) -> None:
    words = layout.part(f"{layer}.weight_packed", layer, ["I32"])
    scale = layout.part(f"{layer}.weight_scale", words.name, FLOATS)
    shaped = layout.part(f"{layer}.weight_shape", words.name, ["I64", "I32"])
    raw, wide = layout.read(shaped.name), 8 if shaped.dtype == "I64" else 4
    shape = [int.from_bytes(raw[i : i + wide], "little") for i in range(0, len(raw), wide)]
    named = [each.get("num_bits") for each in schemes] or [4]
    bits = [each for each in (4, 8) if each in named]
    if not all(each in bits for each in named):
        raise Unknown(f"weights are packed with {', '.join(sorted(set(map(str, named))))} bits")
    if len(shape) != 2 or not all(shape) or len(words.shape) != 2:
        raise QuantisationInvalid(name=shaped.name, reason=f"it says {shape}, which is no matrix")
    fitting = [b for b in bits if words.shape == (shape[0], -(-shape[1] * b // 32))]
    if not fitting:
        reason = f"it is {list(words.shape)}, which is not {shape} with {bits} bits"
        raise QuantisationInvalid(name=words.name, reason=reason)
    groups = scale.shape[1] if len(scale.shape) == 2 else 0
    if scale.shape[:1] != (shape[0],) or not groups or shape[1] % groups:
        reason = f"it is {list(scale.shape)}, which are no groups of {shape}"
        raise QuantisationInvalid(name=scale.name, reason=reason)
    params = {"bits": str(fitting[0]), "columns": str(shape[1])}
    inputs = (words, scale)
    _add(layout, f"{layer}.weight", "dequantize-words@1", params, inputs, [shaped.name])


def _scheme(
    weight: TensorInfo, scale: TensorInfo, schemes: Sequence[dict[str, object]]
) -> dict[str, str]:
    """The blocks that a scale is for."""
    out, into = weight.shape[-2:]
    if scale.numel == 1:
        return _whole(weight)
    if scale.shape in {(out, 1), (out,)}:
        return _by_rows(weight)
    for each in schemes:
        size = each.get("block_structure")
        if _is_pair(size):
            due = (-(-out // size[0]), -(-into // size[1]))
            if scale.shape == due:
                return {"rows": str(size[0]), "columns": str(size[1])}
        group = each.get("group_size")
        if type(group) is int and group > 0 and scale.shape == (out, -(-into // group)):
            return {"rows": "1", "columns": str(group)}
    reason = f"it is {list(scale.shape)}, which fits no scheme for {list(weight.shape)}"
    raise QuantisationInvalid(name=scale.name, reason=reason)


def gptq(layout: Layout) -> str:
    """Words along the inputs, scaled by groups of inputs."""
    bits = layout.settings.get("bits")
    if type(bits) is not int or bits not in {2, 4, 8}:
        raise Unknown(f"its words hold {bits} bits")
    form = str(layout.settings.get("checkpoint_format") or "gptq")
    if form not in {"gptq", "gptq_v2"}:
        raise Unknown(f"checkpoint_format is {form}")
    for layer in layout.ends(".qweight"):
        words = layout.part(f"{layer}.qweight", layer, ["I32"])
        _require_matrix(words)
        into, out = words.shape[0] * 32 // bits, words.shape[1]
        zeros, scale = _grouped(layout, layer, into, out, bits)
        inputs = [words, zeros, scale]
        order = layout.infos.get(f"{layer}.g_idx")
        if order is not None:
            layout.part(order.name, layer, ["I32"])
            require_shape(order, (into,), why=f"for {words.name} of {bits} bits")
            inputs.append(order)
        elif layout.settings.get("desc_act"):
            raise QuantisationInvalid(name=words.name, reason=f"{layer}.g_idx is missing")
        params = {"bits": str(bits), "plus": "0" if form == "gptq_v2" else "1"}
        _add(layout, f"{layer}.weight", "dequantize-gptq@1", params, tuple(inputs))
    return f"{bits} bit"


def awq(layout: Layout) -> str:
    """Words along the outputs, in an order of their own, scaled by groups of inputs."""
    bits = layout.settings.get("bits", layout.settings.get("w_bit", 4))
    version = str(layout.settings.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm":
        raise Unknown(f"its version is {version}, with {bits} bits")
    for layer in layout.ends(".qweight"):
        words = layout.part(f"{layer}.qweight", layer, ["I32"])
        _require_matrix(words)
        into, out = words.shape[0], words.shape[1] * 8
        zeros, scale = _grouped(layout, layer, into, out, bits)
        _add(layout, f"{layer}.weight", "dequantize-awq@1", {}, (words, zeros, scale))
    return "4 bit"


def _grouped(
    layout: Layout, layer: str, into: int, out: int, bits: int
) -> tuple[TensorInfo, TensorInfo]:
    """Zero points and scales of groups of inputs."""
    words = f"{layer}.qweight"
    size = layout.settings.get("group_size", layout.settings.get("q_group_size", -1))
    if type(size) is not int or size == 0 or size < -1:
        reason = f"group_size is {size!r}"
        raise QuantisationInvalid(name="quantization_config", reason=reason)
    groups = 1 if size == -1 else -(-into // size)
    why = f"for {words} {list(layout.infos[words].shape)} of {bits} bits in groups of {size}"
    scale = layout.part(f"{layer}.scales", words, FLOATS)
    require_shape(scale, (groups, out), why=why)
    zeros = layout.part(f"{layer}.qzeros", words, ["I32"])
    require_shape(zeros, (groups, out * bits // 32), why=why)
    return zeros, scale


def mxfp4(layout: Layout) -> str:
    """Floats of four bits, 32 to an exponent."""
    for name in layout.ends("_blocks"):
        packed = layout.part(f"{name}_blocks", name, ["U8"])
        powers = layout.part(f"{name}_scales", packed.name, _EXPONENTS)
        if len(packed.shape) != 4 or packed.shape[-1] != 16 or not packed.numel:
            reason = f"it is {list(packed.shape)}, and 16 bytes a group are due"
            raise QuantisationInvalid(name=packed.name, reason=reason)
        require_shape(powers, packed.shape[:-1], why=f"for {packed.name} {list(packed.shape)}")
        _add(layout, name, "dequantize-mxfp4@1", {}, (packed, powers))
    return "4 bit"


def torchao(layout: Layout) -> str:
    """Eight bits by rows, or by groups of inputs."""
    if odd := layout.ends("_packed"):
        raise Unknown(f"{odd[0]} is packed")
    for prefix in layout.ends("_qdata"):
        layer, _, leaf = prefix.rpartition("._")
        weight = layout.part(f"{prefix}_qdata", prefix, ["I8"])
        scale = layout.part(f"{prefix}_scale", weight.name, FLOATS)
        _require_matrix(weight)
        out, into = weight.shape
        across = scale.shape[1] if len(scale.shape) == 2 else 0
        if scale.shape[:1] != (out,) or not across or into % across:
            reason = f"it is {list(scale.shape)}, which are no rows of {list(weight.shape)}"
            raise QuantisationInvalid(name=scale.name, reason=reason)
        inputs = [weight, scale]
        if zeros := layout.infos.get(f"{prefix}_zero_point"):
            layout.part(zeros.name, prefix, ["I8", "I32", "I64"])
            require_shape(zeros, scale.shape, why=f"as {scale.name} has")
            inputs.append(zeros)
        params = {"rows": "1", "columns": str(into // across), "rounding": layout.dtype}
        _add(layout, f"{layer}.{leaf}", "dequantize-blocks@1", params, tuple(inputs))
    return "8 bit"


def _add(
    layout: Layout,
    name: str,
    rule: str,
    params: dict[str, str],
    inputs: tuple[TensorInfo, ...],
    beside: Sequence[str] = (),
) -> None:
    layout.found.append(Weight(name, rule, params, inputs, tuple(beside)))


def _wide(layout: Layout, dtypes: Sequence[str]) -> list[TensorInfo]:
    """Matrices of these dtypes."""
    infos = [info for info in layout.infos.values() if info.dtype in dtypes]
    for info in infos:
        if len(info.shape) < 2 or not info.numel:
            raise QuantisationInvalid(name=info.name, reason=f"it is {info}, which is no matrix")
    return infos


def _require_matrix(info: TensorInfo) -> None:
    if len(info.shape) != 2 or not info.numel:
        raise QuantisationInvalid(name=info.name, reason=f"it is {info}, which is no matrix")


def _by_rows(weight: TensorInfo) -> dict[str, str]:
    return {"rows": "1", "columns": str(weight.shape[-1])}


def _whole(weight: TensorInfo) -> dict[str, str]:
    return {"rows": str(weight.numel // weight.shape[-1]), "columns": str(weight.shape[-1])}


def _is_pair(value: object) -> TypeGuard[list[int]]:
    """Whether it is the two sides of a block."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and each > 0 for each in value)
    )
