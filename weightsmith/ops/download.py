"""Bring a model from the hub onto this machine."""

from weightsmith.hub import download as hub
from weightsmith.hub.download import Downloaded
from weightsmith.hub.resolve import Resolved
from weightsmith.hub.select import WeightFormat
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.plan_download import plan_download

__all__ = ["Downloaded", "Resolved", "WeightFormat", "download", "plan_download"]


def download(plan: Resolved, progress: Progress = SILENCE) -> Downloaded:
    """Fetch what the plan says, and check every file against the hub's hash; no file is changed.

    Raises: HashMismatch, DiskFull, AccessFault, TemporaryFault, NotCached. What has arrived is
    kept: the next time goes on from there.
    """
    return hub.download(plan, progress)
