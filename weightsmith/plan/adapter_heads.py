"""Heads that an adapter brings for a task: a classifier in place of the output layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weightsmith.formats.adapter_parts import PartKind
from weightsmith.formats.tensors import TensorInfo

_CLASSIFIERS: Final = ("score", "classifier")
"""What transformers calls the last layer of a model that classifies."""
_VALUE_HEAD: Final = "v_head."
"""What TRL calls the layer that estimates rewards in training; no plain model has one."""
_TASKS: Final = {"SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
"""What classes of transformers end in, by peft's word for the task."""


@dataclass(frozen=True, slots=True)
class Head:
    """A classifier that takes the place of the output layer."""

    role: str
    """The adapter that brings it."""
    task: str
    """What the class of the model ends in: ``SequenceClassification``."""
    tensor: str
    """Its weight, which has a row for each label."""
    labels: int

    def architecture(self, architectures: object) -> str:
        """The class of the whole model, by the one that the base's config names; may be empty."""
        names = architectures if isinstance(architectures, list) else []
        family = str(names[0]).partition("For")[0].removesuffix("Model") if names else ""
        return f"{family}For{self.task}" if family else ""


def find_head(
    wholes: Mapping[str, TensorInfo], role: str, task_type: str
) -> tuple[Head | None, dict[str, TensorInfo]]:
    """The classifier among tensors that an adapter stores whole and the base lacks, with its
    tensors; none where there is no such layer.
    """
    for module in _CLASSIFIERS:
        found = {n: i for n, i in wholes.items() if n.rpartition(".")[0] == module}
        weight = found.get(f"{module}.weight")
        if weight is None or len(weight.shape) != 2 or not weight.numel:
            continue
        per_token = task_type == "TOKEN_CLS" or (not task_type and len(found) > 1)
        task = _TASKS.get(task_type) or _TASKS["TOKEN_CLS" if per_token else "SEQ_CLS"]
        return Head(role, task, weight.name, weight.shape[0]), found
    return None, {}


def is_value_head(name: str, kinds: Mapping[PartKind, TensorInfo]) -> bool:
    """Whether a tensor that an adapter stores whole belongs to a value head."""
    return name.startswith(_VALUE_HEAD) and kinds.keys() == {"whole"}
