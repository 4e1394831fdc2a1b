"""Choose the files that are published beside the weights, and make the config agree with them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from weightsmith.checkpoint.checkpoint import Checkpoint, embedding_rows
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.sidecars import (
    CHAT_TEMPLATES,
    CONFIG,
    LARGE_NBYTES,
    TOKENIZER,
    VOCABULARY,
    matches,
)
from weightsmith.errors import WeightsmithError
from weightsmith.formats.sniff import refuse_pointer
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.true_config import true_config
from weightsmith.plan.model import SidecarPlan
from weightsmith.repair.contents import READ, SETTINGS
from weightsmith.repair.detect import diagnose, mend
from weightsmith.units import format_size

_READ_NBYTES: Final = 100_000_000
"""Largest file that is read for a diagnosis."""
_TEMPLATE: Final = "chat_template"
"""The key of the tokenizer's settings that holds the chat template, if no file of its own does."""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The files to publish beside the weights."""

    plans: tuple[SidecarPlan, ...]
    contents: dict[str, Content]
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    """Ids of the faults that were repaired."""
    faults: tuple[str, ...] = ()
    """Faults that are published as they are, as sentences."""


def choose_sidecars(
    sources: Mapping[str, Checkpoint],
    outputs: Sequence[TensorInfo],
    *,
    repair: bool,
    all_sidecars: bool = False,
) -> Sidecars:
    """Choose all files of the first source, and from the others what the first lacks: a config or
    a vocabulary.

    `sources` are by role, in order of precedence; `all_sidecars` takes large files too.
    The config's dtype is set to that of most of the output's bytes. With `repair`, known faults of
    the tokenizer and config files are mended, and a ``tokenizer.json`` that is built anew is proved
    against its sentencepiece model. All other files are copied as they are.
    Raises: JsonInvalid, if the config cannot be read; SidecarEscapes; LfsPointer, for a file that
    git-lfs has not fetched.
    """
    first, *others = sources
    origins = dict.fromkeys(_offered(sources[first], all_sidecars=all_sidecars), first)
    has_tokenizer = any(matches(name, TOKENIZER) for name in origins)
    has_vocabulary = any(matches(name, VOCABULARY) for name in origins)
    notes = _left_large(sources[first], all_sidecars=all_sidecars)
    for role in others:
        there = sources[role].sidecars
        wanted = [CONFIG[0]] if CONFIG[0] not in origins else []
        if not has_vocabulary:
            patterns = VOCABULARY if has_tokenizer else TOKENIZER
            wanted += [name for name in there if matches(name, patterns)]
        if taken := [name for name in wanted if name in there]:
            origins |= dict.fromkeys(taken, role)
            notes.append(f"the {first} lacks {', '.join(taken)}: taken from the {role}")
    published = publish_sidecars(sources, origins, outputs, repair=repair)
    return replace(published, notes=tuple(notes))


def merged_sidecars(
    base: Checkpoint,
    loras: Mapping[str, Checkpoint],
    outputs: Sequence[TensorInfo],
    settings: Mapping[str, object],
    *,
    repair: bool = False,
    all_sidecars: bool = False,
) -> Sidecars:
    """Choose the base's files; if adapters hold a vocabulary, the whole tokenizer of the last such
    adapter takes the place of the base's, with the base's chat template if it has none of its own.

    The config's `vocab_size` is set if adapters changed the number of tokens, and so are
    `settings`. With `repair`, known faults are mended, as `choose_sidecars` does.
    Raises: as `choose_sidecars`.
    """
    origins = dict.fromkeys(_offered(base, all_sidecars=all_sidecars), "base")
    notes = _left_large(base, all_sidecars=all_sidecars)
    made: dict[str, tuple[bytes, str]] = {}
    for role, lora in loras.items():
        tokenizer = [name for name in lora.sidecars if matches(name, TOKENIZER)]
        if any(matches(name, VOCABULARY) for name in tokenizer):
            kept, made = _template_of_base(base, lora)
            origins = {name: had for name, had in origins.items() if not matches(name, TOKENIZER)}
            origins |= dict.fromkeys(kept, "base") | dict.fromkeys(tokenizer, role)
            if kept or made:
                notes.append(f"{role} brings a tokenizer without a chat template: the base's stays")
        elif tokenizer:
            notes.append(f"{role} brings {', '.join(tokenizer)} and no vocabulary: not used")
    true = dict(settings)
    rows = embedding_rows(outputs)
    if rows is not None and rows != base.embedding_rows:
        true["vocab_size"] = rows
    sources = {"base": base, **loras}
    published = publish_sidecars(sources, origins, outputs, settings=true, made=made, repair=repair)
    return replace(published, notes=tuple(notes))


def publish_sidecars(
    sources: Mapping[str, Checkpoint],
    origins: Mapping[str, str],
    outputs: Sequence[TensorInfo],
    *,
    settings: Mapping[str, object] | None = None,
    made: Mapping[str, tuple[bytes, str]] | None = None,
    repair: bool = False,
) -> Sidecars:
    """Prepare the files in `origins` (name to role) for publishing, the config agreeing with the
    output.

    `settings` are values that the config must have; `made` is new content for some of the files,
    and a clause on how it differs.
    Memory: the files that a diagnosis reads, one config and one tokenizer; no other is read whole.
    Raises: as `choose_sidecars`.
    """
    contents = {name: sources[role].sidecar(name) for name, role in sorted(origins.items())}
    for name, content in contents.items():
        refuse_pointer(content.head(), sources[origins[name]].directory / name)
    new = {name: raw for name, (raw, _) in (made or {}).items()}
    changes = {name: [how] for name, (_, how) in (made or {}).items()}
    read = {name: contents[name].read(_READ_NBYTES) for name in READ if name in contents} | new
    if CONFIG[0] in read:
        path = sources[origins[CONFIG[0]]].directory / CONFIG[0]
        true, keys = true_config(read[CONFIG[0]], path, outputs, settings or {})
        if keys:
            new[CONFIG[0]] = true
            changes[CONFIG[0]] = [f"{' and '.join(keys)} set to what the files hold"]
    vocabularies = {name: b"" for name in contents if matches(name, VOCABULARY)}
    files = {**vocabularies, **read, **new}
    mended, deleted, repairs, faults = _mended(files, outputs, list(contents), repair=repair)
    for name, raw in mended.items():
        changes.setdefault(name, []).append("repaired" if name in contents else "made")
        new[name] = raw
    seen = [contents[name].mode for name in read if name in contents]
    for name, raw in new.items():
        mode = contents[name].mode if name in contents else _common_mode(seen)
        contents[name] = Content(raw, mode=mode)
    for name in deleted:
        del contents[name]
    first = next(iter(sources))
    roles = {name: origins.get(name, first) for name in sorted(contents)}
    return Sidecars(
        plans=tuple(
            SidecarPlan(
                name=name,
                role=role,
                nbytes=contents[name].nbytes,
                digest=contents[name].digest,
                changes=tuple(changes.get(name, ())),
            )
            for name, role in roles.items()
        ),
        contents={name: contents[name] for name in roles},
        repairs=repairs,
        faults=faults,
    )


def copied_sidecars(source: Checkpoint, role: str, *, all_sidecars: bool = False) -> Sidecars:
    """All files beside a source's weights, as they are.

    Raises: SidecarEscapes; SourceNotFound, SourceUnreadable.
    """
    names = _offered(source, all_sidecars=all_sidecars)
    notes = _left_large(source, all_sidecars=all_sidecars)
    found = verbatim_sidecars({name: source.sidecar(name) for name in names}, role)
    return replace(found, notes=tuple(notes))


def verbatim_sidecars(contents: Mapping[str, Content], role: str) -> Sidecars:
    """Files that are published exactly with these contents, given by name."""
    plans = tuple(
        SidecarPlan(name, role, content.nbytes, content.digest)
        for name, content in sorted(contents.items())
    )
    return Sidecars(plans, dict(sorted(contents.items())))


def read_for_diagnosis(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Read the files that a diagnosis of tokenizer and config looks at; other vocabularies are
    there by name, with empty content.
    """
    there = checkpoint.sidecars
    vocabularies = {name: b"" for name in there if matches(name, VOCABULARY)}
    return vocabularies | {name: checkpoint.read_sidecar(name) for name in READ if name in there}


def _left_large(source: Checkpoint, *, all_sidecars: bool) -> list[str]:
    """A note on files beside the weights that are left out for their size, if there are any."""
    if all_sidecars or not source.large:
        return []
    named = ", ".join(f"{name} ({format_size(nbytes)})" for name, nbytes in source.large.items())
    size = format_size(LARGE_NBYTES)
    return [f"not taken, being larger than {size} (`all_sidecars` takes them): {named}"]


def _offered(source: Checkpoint, *, all_sidecars: bool) -> Iterator[str]:
    """Names of the files beside a source's weights that are taken."""
    yield from source.sidecars
    if all_sidecars:
        yield from source.large


def _template_of_base(
    base: Checkpoint, lora: Checkpoint
) -> tuple[set[str], dict[str, tuple[bytes, str]]]:
    """How the base's chat template is kept beside an adapter's tokenizer that has none.

    Returns: names of the base's files that hold its template, if it lies in files of its own; or
    else the adapter's tokenizer settings with the base's template put in. Both are empty if the
    adapter has a template.
    """
    ours, theirs = _settings(base), _settings(lora)
    if _TEMPLATE in theirs or any(name in lora.sidecars for name in CHAT_TEMPLATES):
        return set(), {}
    files = {name for name in base.sidecars if name in CHAT_TEMPLATES}
    if _TEMPLATE not in ours or files or SETTINGS not in lora.sidecars:
        return files, {}
    document = {**theirs, _TEMPLATE: ours[_TEMPLATE]}
    raw = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    return set(), {SETTINGS: (raw, "with the base's chat template")}


def _settings(source: Checkpoint) -> dict[str, Any]:
    """The settings of a source's tokenizer; empty if there are none, or they are not an object.

    Raises: JsonInvalid.
    """
    if SETTINGS not in source.sidecars:
        return {}
    path = Path(source.directory / SETTINGS)
    document = parse_json(source.read_sidecar(SETTINGS), path, bom_allowed=True)
    return document if isinstance(document, dict) else {}


def _common_mode(modes: Sequence[int]) -> int:
    """The permissions that all of these files grant."""
    common = 0o666
    for mode in modes:
        common &= mode
    return common


def _mended(
    files: dict[str, bytes], outputs: Sequence[TensorInfo], names: Sequence[str], *, repair: bool
) -> tuple[dict[str, bytes], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Diagnose the files and, with `repair`, mend them.

    Returns: new contents by name, names of files to leave out, ids of the faults that are repaired,
    and sentences on those that are not.
    """
    try:
        diagnosis = diagnose(files, embedding_rows=embedding_rows(outputs), names=names)
        mended = mend(diagnosis) if repair and diagnosis.faults else None
    except WeightsmithError as error:
        # Weights can be right beside sidecars that cannot be repaired; the user is told.
        return {}, (), (), (str(error),)
    done = mended.faults if mended else ()
    stay = [each for each in diagnosis.faults if each not in done]
    faults = tuple(f"{fault.file}: {fault.evidence}" for fault in stay)
    ids = tuple(dict.fromkeys(fault.id for fault in done))
    return dict(mended.changed) if mended else {}, mended.deleted if mended else (), ids, faults
