"""Surgery on model weights. What commands do to models are functions, imported on first use.

from weightsmith import apply_delta, verify

outcome = apply_delta("./llama-7b", "./vicuna-7b-delta-v1.1", target="./vicuna-7b")
assert verify(outcome.target).passed()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
    from weightsmith.ops.convert import convert, plan_convert
    from weightsmith.ops.diff import diff
    from weightsmith.ops.fix_tokenizer import fix_tokenizer
    from weightsmith.ops.inspect import inspect
    from weightsmith.ops.make_delta import make_delta
    from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora
    from weightsmith.ops.verify.verify import verify
    from weightsmith.sources.recognise import open_model as open_checkpoint


_PUBLIC: Final = {
    "apply_delta": "weightsmith.ops.apply_delta:apply_delta",
    "convert": "weightsmith.ops.convert:convert",
    "diff": "weightsmith.ops.diff:diff",
    "fix_tokenizer": "weightsmith.ops.fix_tokenizer:fix_tokenizer",
    "inspect": "weightsmith.ops.inspect:inspect",
    "make_delta": "weightsmith.ops.make_delta:make_delta",
    "merge_lora": "weightsmith.ops.merge_lora:merge_lora",
    "open_checkpoint": "weightsmith.sources.recognise:open_model",
    "plan_apply_delta": "weightsmith.ops.apply_delta:plan_apply_delta",
    "plan_convert": "weightsmith.ops.convert:plan_convert",
    "plan_merge_lora": "weightsmith.ops.merge_lora:plan_merge_lora",
    "verify": "weightsmith.ops.verify.verify:verify",
}

__all__ = [
    "apply_delta",
    "convert",
    "diff",
    "fix_tokenizer",
    "inspect",
    "make_delta",
    "merge_lora",
    "open_checkpoint",
    "plan_apply_delta",
    "plan_convert",
    "plan_merge_lora",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public function on first use: importing the package must cost nothing."""
    if name not in _PUBLIC:
        raise AttributeError(name)
    module, attribute = _PUBLIC[name].split(":")
    return getattr(import_module(module), attribute)
