"""Bring a model from the hub onto this machine."""

import os

from weightsmith.hub import download as hub
from weightsmith.hub.download import Downloaded
from weightsmith.hub.resolve import Resolved
from weightsmith.hub.select import WeightFormat
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.plan_download import plan_download

__all__ = ["Downloaded", "Resolved", "WeightFormat", "carry_out", "download", "plan_download"]


def download(
    source: str,
    *,
    local_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    weights: WeightFormat = "auto",
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Downloaded:
    """Fetch what `source` names on the hub into its cache, or into `local_dir`; no file is changed.

    One weight format, by default safetensors where both are there. Every file is checked against
    the hub's hash; what has arrived is kept, and the next time goes on from there.
    Raises: as `plan_download` and `carry_out`.
    """
    plan = plan_download(
        source,
        local_dir=local_dir,
        revision=revision,
        weights=weights,
        offline=offline,
        note=progress.note,
    )
    return carry_out(plan, progress)


def carry_out(plan: Resolved, progress: Progress = SILENCE) -> Downloaded:
    """Fetch what the plan says.

    Raises: HashMismatch, DiskFull, AccessFault, TemporaryFault, NotCached.
    """
    return hub.download(plan, progress)
