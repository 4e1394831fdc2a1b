"""Collect which parameters transformers keeps in float32, as the catalogue's ``float32.toml``.

    python -m tests.support.collect_float32 > weightsmith/catalogue/float32.toml

Imports every modeling file of the installed transformers, and takes what its classes say in
``_keep_in_fp32_modules`` and ``_keep_in_fp32_modules_strict``, by the model type of their config.
"""

import importlib
import inspect
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Final

import transformers
from transformers import PreTrainedModel

HEAD: Final = """\
# Parameters that a model keeps in float32 on purpose, by the model type of its config.
# A name is a run of whole words between the dots of a tensor's name.

sources = ["transformers {version}, _keep_in_fp32_modules and _keep_in_fp32_modules_strict"]

# What every architecture that has it keeps so: models whose code transformers does not have too.
[[float32]]
model_types = [
    "*",
]
in_float16 = []
in_16_bits = [
    "e_score_correction_bias",
]
"""

Names = tuple[tuple[str, ...], tuple[str, ...]]
"""What is kept where float16 is wanted, and what is kept in any dtype of 16 bits."""


def modeling_modules() -> list[ModuleType]:
    """Every modeling file that can be imported; of the others, which lack a package, a word."""
    root = Path(transformers.__file__).parent / "models"
    found = []
    for file in sorted(root.glob("*/modeling_*.py")):
        try:
            name = f"transformers.models.{file.parent.name}.{file.stem}"
            found.append(importlib.import_module(name))
        except ImportError as error:
            print(f"left: {file.stem}: {error}", file=sys.stderr)
    return found


def kept_by_type(modules: list[ModuleType]) -> dict[str, Names]:
    """What the classes of these modules keep, by model type."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for module in modules:
        for each in vars(module).values():
            if not (inspect.isclass(each) and issubclass(each, PreTrainedModel)):
                continue
            model_type = getattr(each.config_class, "model_type", "")
            if each.__module__ == module.__name__ and model_type:
                in_float16, in_16_bits = found[model_type]
                in_float16.update(each._keep_in_fp32_modules or ())
                in_16_bits.update(each._keep_in_fp32_modules_strict or ())
    return {
        model_type: (tuple(sorted(soft - strict)), tuple(sorted(strict)))
        for model_type, (soft, strict) in found.items()
        if soft or strict
    }


def render(kept: dict[str, Names], version: str) -> str:
    """The TOML, an entry for all model types that keep the same."""
    alike: dict[Names, list[str]] = defaultdict(list)
    for model_type, names in sorted(kept.items()):
        alike[names].append(model_type)
    entries = [
        f"\n[[float32]]\n{_array('model_types', types)}{_array('in_float16', soft)}"
        f"{_array('in_16_bits', strict)}"
        for (soft, strict), types in alike.items()
    ]
    return HEAD.format(version=version) + "".join(entries)


def _array(key: str, values: list[str] | tuple[str, ...]) -> str:
    lines = "".join(f'    "{value}",\n' for value in values)
    return f"{key} = [\n{lines}]\n" if values else f"{key} = []\n"


if __name__ == "__main__":
    sys.stdout.write(render(kept_by_type(modeling_modules()), transformers.__version__))
