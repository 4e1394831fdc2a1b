"""Surgery on model weights: what the commands do, as functions that are imported on first use.

    from weightsmith import apply_delta, verify

    outcome = apply_delta("./llama-7b", "./vicuna-7b-delta-v1.1", target="./vicuna-7b")
    assert verify(outcome.target).passed()

Each verb that writes a model has a ``plan_...`` beside it: the `Job` that it returns says what
would be done, and its ``run`` does it. ``docs/how-to/python.md`` has an example of each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from weightsmith.checkpoint.checkpoint import Checkpoint
    from weightsmith.checkpoint.lazy import LazyTensor
    from weightsmith.engine.options import Options
    from weightsmith.engine.output import Outcome
    from weightsmith.engine.share import Share
    from weightsmith.errors import (
        AccessFault,
        DamagedInput,
        DamagedOutput,
        InTheWay,
        Mismatch,
        NoRoom,
        SourceFault,
        TemporaryFault,
        UsageFault,
        WeightsmithError,
    )
    from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
    from weightsmith.ops.clean_cache import clean_cache, plan_clean_cache
    from weightsmith.ops.combine import combine, plan_combine
    from weightsmith.ops.convert import convert, plan_convert
    from weightsmith.ops.deltas.estimate import RankedBase, rank_bases
    from weightsmith.ops.diff import diff
    from weightsmith.ops.diff_result import Difference
    from weightsmith.ops.download import download, plan_download
    from weightsmith.ops.extract_lora import ExtractedLora, extract_lora, plan_extract_lora
    from weightsmith.ops.fix.fix import fix_files
    from weightsmith.ops.fix.report import FixReport
    from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer, plan_fix_tokenizer
    from weightsmith.ops.inspect import Inspection, inspect
    from weightsmith.ops.job import Job
    from weightsmith.ops.load_into import LoadedInto, load_into
    from weightsmith.ops.make_delta import MadeDelta, make_delta, plan_make_delta
    from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora
    from weightsmith.ops.push import push
    from weightsmith.ops.run_plan import finish_plan, run_share
    from weightsmith.ops.verify.report import Check, Report
    from weightsmith.ops.verify.smoke import Settings as SmokeSettings
    from weightsmith.ops.verify.verify import verify
    from weightsmith.plan.model import Plan
    from weightsmith.progress import Progress, TqdmProgress
    from weightsmith.sources.recognise import open_model as open_checkpoint
    from weightsmith.version import __version__

__all__ = [
    "AccessFault",
    "Check",
    "Checkpoint",
    "DamagedInput",
    "DamagedOutput",
    "Difference",
    "ExtractedLora",
    "FixReport",
    "InTheWay",
    "Inspection",
    "Job",
    "LazyTensor",
    "LoadedInto",
    "MadeDelta",
    "Mismatch",
    "NoRoom",
    "Options",
    "Outcome",
    "Plan",
    "Progress",
    "RankedBase",
    "Report",
    "Share",
    "SmokeSettings",
    "SourceFault",
    "TemporaryFault",
    "TqdmProgress",
    "UsageFault",
    "WeightsmithError",
    "__version__",
    "apply_delta",
    "check_tokenizer",
    "clean_cache",
    "combine",
    "convert",
    "diff",
    "download",
    "extract_lora",
    "finish_plan",
    "fix_files",
    "fix_tokenizer",
    "inspect",
    "load_into",
    "make_delta",
    "merge_lora",
    "open_checkpoint",
    "plan_apply_delta",
    "plan_clean_cache",
    "plan_combine",
    "plan_convert",
    "plan_download",
    "plan_extract_lora",
    "plan_fix_tokenizer",
    "plan_make_delta",
    "plan_merge_lora",
    "push",
    "rank_bases",
    "run_share",
    "verify",
]

_HOMES: Final = {
    "checkpoint.checkpoint": ("Checkpoint",),
    "checkpoint.lazy": ("LazyTensor",),
    "engine.options": ("Options",),
    "engine.output": ("Outcome",),
    "engine.share": ("Share",),
    "errors": (
        *("WeightsmithError", "UsageFault", "SourceFault", "AccessFault", "TemporaryFault"),
        *("DamagedInput", "Mismatch", "NoRoom", "InTheWay", "DamagedOutput"),
    ),
    "ops.apply_delta": ("apply_delta", "plan_apply_delta"),
    "ops.clean_cache": ("clean_cache", "plan_clean_cache"),
    "ops.combine": ("combine", "plan_combine"),
    "ops.convert": ("convert", "plan_convert"),
    "ops.deltas.estimate": ("RankedBase", "rank_bases"),
    "ops.diff": ("diff",),
    "ops.diff_result": ("Difference",),
    "ops.download": ("download", "plan_download"),
    "ops.extract_lora": ("ExtractedLora", "extract_lora", "plan_extract_lora"),
    "ops.fix_tokenizer": ("check_tokenizer", "fix_tokenizer", "plan_fix_tokenizer"),
    "ops.inspect": ("Inspection", "inspect"),
    "ops.job": ("Job",),
    "ops.load_into": ("LoadedInto", "load_into"),
    "ops.make_delta": ("MadeDelta", "make_delta", "plan_make_delta"),
    "ops.merge_lora": ("merge_lora", "plan_merge_lora"),
    "ops.push": ("push",),
    "ops.run_plan": ("finish_plan", "run_share"),
    "ops.fix.fix": ("fix_files",),
    "ops.fix.report": ("FixReport",),
    "ops.verify.report": ("Check", "Report"),
    "ops.verify.smoke": ("SmokeSettings=Settings",),
    "ops.verify.verify": ("verify",),
    "plan.model": ("Plan",),
    "progress": ("Progress", "TqdmProgress"),
    "sources.recognise": ("open_checkpoint=open_model",),
    "version": ("__version__",),
}
"""Where the public names live; ``public=inner`` where they are called otherwise there."""
_MODULES: Final = {
    name.partition("=")[0]: (f"weightsmith.{module}", name.rpartition("=")[2])
    for module, names in _HOMES.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: importing the package must cost nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'weightsmith' has no attribute {name!r}")
    module, inner = _MODULES[name]
    return getattr(import_module(module), inner)


def __dir__() -> list[str]:
    """The public names, imported already or not."""
    return __all__
