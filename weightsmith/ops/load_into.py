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
    """Fill a torch model, for example one of transformers, with the tensors of a source; a chain
    ``A+D1`` is read as one, without being written.

    Tensors that the model has on the meta device are made on `device`; all others stay where they
    are and keep their dtypes. The source's names may lack the model's prefix, or have it where the
    model has none. Tensors that transformers keeps in another form than the files (all experts of a
    layer in one) are put together by its own rules. `strict`: every tensor of the source must have
    a place in the model, except buffers that are computed.
    Memory: the model and one tensor; two more where transformers makes one of several.
    Raises: ModelDiffers, BuffersUnset, before anything is filled; TiedDiffer, WrongBase,
    DeltaInvalid, after which the model is filled in part and must not be used; as `open_model`.
    """
    with open_model(source, offline=offline, progress=progress) as checkpoint:
        tell_slow(progress, checkpoint)
        return fill(model, checkpoint, device, progress, strict=strict)
