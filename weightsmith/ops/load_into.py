"""Fill a model in memory with a source's tensors, one after the other."""

import os
from typing import TYPE_CHECKING

from weightsmith.progress import SILENCE, Progress
from weightsmith.smoke.fill import LoadedInto, fill
from weightsmith.sources.exact import tell_slow
from weightsmith.sources.recognise import open_model

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

__all__ = ["LoadedInto", "load_into"]


def load_into(
    model: "Module",
    source: str | os.PathLike[str],
    *,
    device: "str | torch.device" = "cpu",
    strict: bool = True,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> LoadedInto:
    """Fill a model of torch, one of transformers for example, with what a SOURCE holds; ``A+D1`` is
    a source too, and is written nowhere.

    What the model has on the meta device comes to life on `device`; all else stays where it is, and
    keeps its dtype. Names may lack the model's prefix, or have it beyond the model's. What
    transformers keeps in another form than the files (all experts of a layer in one tensor) is made
    by its own rules. `strict`: nothing of the source may be left over, but for buffers that are
    computed.
    Memory: the model and one tensor; two more where transformers makes one of several.
    Raises: ModelDiffers, BuffersUnset, before anything is filled; TiedDiffer, WrongBase,
    DeltaInvalid, after which the model is filled in part and must not be used; as `open_model`.
    """
    with open_model(source, offline=offline, progress=progress) as checkpoint:
        tell_slow(progress, checkpoint)
        return fill(model, checkpoint, device, progress, strict=strict)
