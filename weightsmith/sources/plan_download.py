"""What a download would fetch, decided before any file of weights is."""

import os
from pathlib import Path

from weightsmith.hub import download as hub
from weightsmith.hub.connection import connect
from weightsmith.hub.resolve import Resolved, parse_hub_source, resolve
from weightsmith.hub.select import Wanted, WeightFormat
from weightsmith.hub.voice import Note, unheard


def plan_download(
    source: str,
    *,
    local_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    weights: WeightFormat = "auto",
    kind: Wanted = "model",
    offline: bool = False,
    cache: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    room: bool = True,
    note: Note = unheard,
) -> Resolved:
    """Find what `source` names, and decide which of its files to fetch; nothing is written.

    Raises: DownloadTooLarge, if the disk cannot take it and there has to be `room` for all of it;
    what `parse_hub_source` and `resolve` raise.
    """
    named = parse_hub_source(source, revision=revision)
    connection = connect(endpoint=endpoint, cache=cache, offline=offline)
    place = Path(local_dir) if local_dir is not None else None
    resolved = resolve(named, connection, weights=weights, kind=kind, local_dir=place, note=note)
    if room:
        hub.require_disk(resolved)
    return resolved
