"""Find paths of this machine in the files of a delta before they are pushed."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.layout import INDEXES
from weightsmith.engine.manifest import Manifest
from weightsmith.engine.target_files import originals_of
from weightsmith.errors import LocalPathInside
from weightsmith.ops.job import Job
from weightsmith.plan.exact_record import FORM as EXACT
from weightsmith.plan.exact_record import FORMS, DeltaRecord

_LOADED_FROM: Final = re.compile(rb'"_?name_or_path"\s*:\s*"((?:/|~|[A-Za-z]:)(?:[^"\\]|\\.)*)"')
"""Where transformers notes which directory a config or tokenizer was loaded from."""


def paths_of(job: Job) -> frozenset[str]:
    """The paths to look for: the directories of the inputs and the delta, and the user's home.

    Each is given as it was named and with its links resolved. A directory right below the root is
    left out: ``/data`` occurs in many files by chance.
    """
    places = [source.directory for source in job.bindings.inputs.values()]
    places += [job.bindings.target, Path(os.path.expanduser("~"))]  # noqa: PTH111  (never raises)
    texts = {spelt(place) for place in places for spelt in (os.path.abspath, os.path.realpath)}
    return frozenset(text for text in texts if len(Path(text).parts) > 2)


def require_no_paths(contents: Mapping[str, bytes], paths: Iterable[str]) -> None:
    """Raises: LocalPathInside, with each file that contains one of the paths."""
    told: dict[str, str] = {}
    for path in sorted(paths, key=len, reverse=True):
        # As it is, and as JSON spells it.
        forms = {path, json.dumps(path)[1:-1], json.dumps(path, ensure_ascii=False)[1:-1]}
        either = b"|".join(re.escape(form.encode(errors="surrogateescape")) for form in forms)
        pattern = re.compile(b"(?:" + either + rb")(?![\w.-])")
        for name, content in contents.items():
            if name not in told and pattern.search(content):
                told[name] = path
    if told:
        context = [f"{name} contains {path}" for name, path in told.items()]
        raise LocalPathInside(count=len(told), context=context)


def texts_to_hide(job: Job) -> dict[str, bytes]:
    """Texts of the target that an exact delta's manifest will hold encoded, where a search of the
    manifest would not find a path: the headers of its files, and its index.
    """
    if job.plan.delta.form != EXACT:
        return {}
    originals = originals_of(job.bindings.inputs["target"])
    return _texts(originals.headers, originals.index)


def hidden_texts(manifest: Manifest) -> dict[str, bytes]:
    """The same texts, decoded from a finished manifest."""
    if manifest.delta is None or manifest.delta["form"] not in FORMS:
        return {}
    record = DeltaRecord.from_document(manifest.delta)
    return _texts({file.name: file.header for file in record.files}, record.index)


def _texts(headers: Mapping[str, bytes], index: bytes | None) -> dict[str, bytes]:
    texts = {f"the header of {name}": header for name, header in headers.items()}
    return texts | ({INDEXES[0]: index} if index is not None else {})


def loaded_from(sidecars: Mapping[str, bytes]) -> list[str]:
    """A warning for each directory, of whatever machine, that the target's files say they were
    loaded from.
    """
    return [
        f"{name} says that it was loaded from {told.decode(errors='replace')}; it is pushed so"
        for name, content in sidecars.items()
        for told in dict.fromkeys(_LOADED_FROM.findall(content))
    ]
