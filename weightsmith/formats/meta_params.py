"""Meta's ``params.json``: the shape of a LLaMA, in Meta's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith.errors import ParamsInvalid
from weightsmith.formats.strict_json import parse_json

_DEFAULT_ROPE_THETA: Final = 10000.0
_NEEDED: Final = ("dim", "n_heads", "n_layers", "norm_eps")
_OPTIONAL: Final = ("n_kv_heads", "rope_theta", "use_scaled_rope")
_TOLD_BY_SHAPES: Final = ("vocab_size", "multiple_of", "ffn_dim_multiplier")
"""Settings that are taken from the tensors' shapes instead: Meta wrote -1 for most vocabularies."""
_OF_THE_RUN: Final = ("max_batch_size", "max_seq_len", "model_parallel_size")
"""How Meta's own program was run; nothing of the model."""


@dataclass(frozen=True, slots=True)
class Params:
    """The values of ``params.json`` that a conversion uses."""

    dim: int
    n_heads: int
    n_layers: int
    n_kv_heads: int
    norm_eps: float
    rope_theta: float
    scaled_rope: bool
    """Whether positions are stretched beyond 8192, as from Llama 3.1 on."""
    says_kv_heads: bool
    """Whether the file itself says `n_kv_heads`; LLaMA 1 did not."""

    @property
    def head_rows(self) -> int:
        """Rows of one attention head in its matrices."""
        return self.dim // self.n_heads


def parse_params(raw: bytes, file: Path) -> Params:
    """The values in `raw`; `file` is only named in errors.

    Raises: JsonInvalid; ParamsInvalid, if something is missing, is no number, or is of a kind of
    model that weightsmith does not know.
    """
    content = parse_json(raw, file)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise ParamsInvalid(file=file, reason="it is no map")
    known = {*_NEEDED, *_OPTIONAL, *_TOLD_BY_SHAPES, *_OF_THE_RUN}
    unknown = [key for key in content if key not in known]
    if unknown:
        reason = f"it says {', '.join(unknown)}, which no LLaMA 1, 2 or 3 text model has"
        raise ParamsInvalid(file=file, reason=reason)
    params = Params(
        dim=_count(content, "dim", file),
        n_heads=_count(content, "n_heads", file),
        n_layers=_count(content, "n_layers", file),
        n_kv_heads=_count(content, "n_kv_heads" if content.get("n_kv_heads") else "n_heads", file),
        norm_eps=_number(content, "norm_eps", file),
        rope_theta=_number({"rope_theta": _DEFAULT_ROPE_THETA, **content}, "rope_theta", file),
        scaled_rope=bool(content.get("use_scaled_rope")),
        says_kv_heads=bool(content.get("n_kv_heads")),
    )
    if params.dim % (2 * params.n_heads):
        reason = f"dim {params.dim} does not split into {params.n_heads} heads of even size"
        raise ParamsInvalid(file=file, reason=reason)
    return params


def _count(content: Mapping[str, Any], key: str, file: Path) -> int:
    value = content.get(key)
    if type(value) is not int or value < 1:
        raise ParamsInvalid(file=file, reason=f"{key} is {value!r}, which is no count")
    return value


def _number(content: Mapping[str, Any], key: str, file: Path) -> float:
    value = content.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ParamsInvalid(file=file, reason=f"{key} is {value!r}, which is no number")
    return float(value)
