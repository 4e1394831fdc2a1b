"""Answer one question about a model: is it right?"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from weightsmith.catalogue.architectures import Expected, expected_tensors
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint, open_weight_file
from weightsmith.checkpoint.digest import fingerprint
from weightsmith.checkpoint.discover import discover
from weightsmith.checkpoint.kind import guess_kind
from weightsmith.engine.bindings import Options
from weightsmith.engine.checksums import check_torch_files
from weightsmith.engine.content import TensorContent, read_content
from weightsmith.engine.finished import damage
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.engine.staging import Staging
from weightsmith.errors import (
    DamagedInput,
    Mismatch,
    RowsUndecided,
    ShardMissing,
    WeightsmithError,
    shown,
)
from weightsmith.ops.report import Check, Report, Verdict, judged
from weightsmith.ops.sources import open_source
from weightsmith.ops.subject import Subject, open_subject
from weightsmith.ops.sums import sum_checkpoint
from weightsmith.repair.detect import diagnose

_UNFINISHED: Final = (".incomplete", ".part", ".tmp", ".crdownload", ".aria2")
"""What downloads and writers that were stopped leave behind."""
_HUB_CORNER: Final = ".cache/huggingface/download"
"""Where the hub library keeps what it is still fetching into a directory."""
_TORCH_FILES: Final = (".bin", ".pt", ".pth")


def verify(
    source: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    against: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Report:
    """Check a model's structure, then every byte of it; `against` compares with another checkpoint.

    A delta with its `base` is checked as the model that it makes, which is written nowhere.
    Nothing is believed that the writer may have thought: all files are opened anew.
    Memory: one span a worker, and what it is made from. No torch, but for arithmetic and for a
    release that published the sum of its weights.
    Raises: SourceFault, if there is no model to check; as `open_source` for `against`.
    """
    label = os.fspath(source)
    try:
        subject = open_subject(source, base)
    except (DamagedInput, ShardMissing) as error:
        return Report(label, (_unreadable(Path(source), error),))
    except Mismatch as error:
        verdict: Verdict = "not checked" if isinstance(error, RowsUndecided) else "FAIL"
        details = (str(error), *error.context)
        return Report(label, (Check("base", verdict, details, error.hint_text),))
    options = options or Options()
    checkpoint = subject.checkpoint
    checks = _structure(subject)
    workers = 1 if checkpoint.sequential else options.threads
    buffers = [Buffers() for _ in range(workers)]
    try:
        checks += _checksums(subject, buffers, progress)
        other = open_source(against) if against is not None else None
        nbytes = checkpoint.nbytes + (other.nbytes if other else 0)
        progress.begin("applying" if subject.applied else "reading", nbytes)
        content = read_content(checkpoint, buffers, progress.advance)
        checks += _content(subject, content)
        if other is not None:
            infos = [tensor.info for tensor in other.tensors.values()]
            digests = digest_tensors(infos, other.read_into, buffers, progress.advance)
            checks.append(_same(checkpoint, content, other, digests))
        checks += _sum(subject, options, progress)
    except DamagedInput as error:
        checks.append(Check("content", "FAIL", (str(error), *error.context), error.hint_text))
        return Report(checkpoint.label, tuple(checks))
    digest = fingerprint({name: each.digest for name, each in content.items()})
    return Report(checkpoint.label, tuple(checks), digest)


# --- structure: headers and sidecars --------------------------------------------------------------


def _unreadable(directory: Path, error: WeightsmithError) -> Check:
    """Every weight file that cannot be read, where one of them stopped us."""
    problems = []
    try:
        names = discover(directory).weights
    except WeightsmithError:
        names = ()
    for name in names:
        try:
            open_weight_file(directory, name)
        except WeightsmithError as damaged:
            problems.append(str(damaged))
    return Check("files", "FAIL", tuple(problems or [str(error), *error.context]), error.hint_text)


def _structure(subject: Subject) -> list[Check]:
    checkpoint = subject.checkpoint
    count = len(checkpoint.files)
    fine = f"{count} sound header{'s' if count > 1 else ''}, {len(checkpoint.tensors)} tensors"
    return [
        Check("files", "pass", (fine, *checkpoint.notes)),
        _kind(subject),
        _shapes(checkpoint),
        _tokenizer(checkpoint),
        _leftovers(subject),
    ]


def _kind(subject: Subject) -> Check:
    guess = guess_kind(subject.checkpoint)
    if guess.kind == "unknown":
        return Check("kind", "not checked", (guess.reason,))
    source = subject.checkpoint.label
    problems = [f"this is a delta, not a model: {guess.reason}"] * (guess.kind == "delta")
    hint = f"check it with its base: weightsmith verify {source} --base BASE"
    fine = "a delta and its base make a model" if subject.applied else "a model"
    return judged("kind", problems, f"{fine}: {guess.reason}", hint=hint)


def _shapes(checkpoint: Checkpoint) -> Check:
    """Names and shapes against the config, where the architecture is known."""
    try:
        config = checkpoint.config
        expected = expected_tensors(config)
    except WeightsmithError as error:
        return Check("shapes", "FAIL", (str(error),), error.hint_text)
    except ValueError as error:
        return Check("shapes", "FAIL", (f"config.json: {error}",))
    if expected is None:
        said = f"for {config['model_type']}" if "model_type" in config else "without a model_type"
        return Check("shapes", "not checked", (f"there is no table of tensors {said}",))
    extra = [n for n in checkpoint.tensors if n not in expected.shapes and not is_buffer(n)]
    beyond = expected.beyond(extra)
    problems = [*_misshapen(checkpoint, expected)]
    problems += [f"{n} lies beyond the {expected.layers} layers of the config" for n in beyond]
    others = [name for name in extra if name not in beyond]
    fine = f"{len(expected.shapes)} names and shapes are those of the config"
    if others:
        fine += f"; {len(others)} more: {', '.join(shown(others))}"
    return judged("shapes", problems, fine)


def _misshapen(checkpoint: Checkpoint, expected: Expected) -> list[str]:
    problems = []
    for name, shape in expected.shapes.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            untied = name == "lm_head.weight" and "model.embed_tokens.weight" in checkpoint.tensors
            why = ", and the config does not say that embeddings are tied" if untied else ""
            problems.append(f"{name} is missing{why}")
        elif found.info.shape != shape:
            problems.append(f"{name} is {list(found.info.shape)}, the config says {list(shape)}")
    return problems


def _tokenizer(checkpoint: Checkpoint) -> Check:
    """What ``fix-tokenizer --check`` finds."""
    try:
        files = {name: checkpoint.read_sidecar(name) for name in checkpoint.sidecars}
        found = diagnose(files, embedding_rows=checkpoint.embedding_rows)
    except WeightsmithError as error:
        return Check("tokenizer", "FAIL", (str(error),), error.hint_text)
    if not found.faults and found.notes:
        return Check("tokenizer", "not checked", found.notes)
    problems = [f"{fault.file}: {fault.evidence} [{fault.id}]" for fault in found.faults]
    cures = [fault.error.hint_text for fault in found.faults if fault.error]
    hint = cures[0] if cures else f"weightsmith fix-tokenizer {checkpoint.directory}"
    return judged("tokenizer", problems, "no known fault in tokenizer and config", hint=hint)


def _leftovers(subject: Subject) -> Check:
    """What downloads, writers and runs of ours that were stopped left beside the files."""
    problems = []
    for part in subject.parts:
        here = Path(os.path.abspath(part.directory))  # noqa: PTH100  (staging lies beside a link)
        corner = here / _HUB_CORNER
        found = [entry.name for entry in os.scandir(here) if entry.name.endswith(_UNFINISHED)]
        found += [f"{_HUB_CORNER}/{path.name}" for path in corner.glob("**/*.incomplete")]
        problems += [f"{name} was left by something unfinished" for name in sorted(found)]
        if here.name and os.path.lexists(staging := Staging(here).path):
            problems.append(f"{staging} was left by an unfinished run")
    return judged("leftovers", problems, "none")


# --- content: every byte --------------------------------------------------------------------------


def _checksums(subject: Subject, buffers: Sequence[Buffers], progress: Progress) -> list[Check]:
    """What torch files say of themselves, where there are any."""
    files = [
        (part.directory / file.name, file.size)
        for part in subject.parts
        for file in part.files
        if file.name.endswith(_TORCH_FILES)
    ]
    if not files:
        return []
    progress.begin("checksums", sum(size for _, size in files))
    found = check_torch_files([path for path, _ in files], buffers, progress.advance)
    fine = f"{len(files)} torch file(s) have the CRC-32 that they were written with"
    if found.wrong or not found.lacking:
        return [judged("checksums", found.wrong, fine, hint="download them again")]
    lacking = f"{found.lacking} of {found.lacking + found.checked} parts were written without one"
    return [Check("checksums", "not checked", (lacking,))]


def _content(subject: Subject, content: Mapping[str, TensorContent]) -> list[Check]:
    problems = [
        f"{name} holds {each.nans} NaN and {each.infinities} infinite values"
        for name, each in content.items()
        if each.nans or each.infinities
    ]
    numbers = judged("numbers", problems, "no NaN, no infinity")
    return [numbers, *_tied(subject.checkpoint, content), _digests(subject, content)]


def _tied(checkpoint: Checkpoint, content: Mapping[str, TensorContent]) -> list[Check]:
    """Whether an output layer that the config calls tied is the embedding, where both are there."""
    head, embedding = (content.get(f"{n}.weight") for n in ("lm_head", "model.embed_tokens"))
    if (
        head is None
        or embedding is None
        or checkpoint.config.get("tie_word_embeddings") is not True
    ):
        return []
    problem = "lm_head.weight is not model.embed_tokens.weight, though the config ties them"
    fine = "lm_head.weight is model.embed_tokens.weight, as the config says"
    return [judged("tied", [problem] * (head.digest != embedding.digest), fine)]


def _digests(subject: Subject, content: Mapping[str, TensorContent]) -> Check:
    digests = {name: each.digest for name, each in content.items()}
    said = f"fingerprint {fingerprint(digests)}"
    if subject.fault:
        return Check("digests", "FAIL", (subject.fault,))
    if subject.applied:
        missing = "a delta of 2023 carries no digests of what it makes"
        return Check("digests", "not checked", (missing, said))
    if subject.manifest is None:
        missing = "there is no weightsmith.json to check against"
        return Check("digests", "not checked", (missing, said))
    manifest = subject.manifest
    fine = f"all {len(digests)} tensors and {len(manifest.sidecars)} files are as published"
    problems = damage(subject.checkpoint, manifest, digests)
    return (
        Check("digests", "FAIL", tuple(problems))
        if problems
        else Check("digests", "pass", (fine, said))
    )


def _same(
    checkpoint: Checkpoint,
    content: Mapping[str, TensorContent],
    other: Checkpoint,
    digests: Mapping[str, str],
) -> Check:
    problems = []
    for name in sorted(content.keys() | digests.keys()):
        if is_buffer(name):
            continue
        if name not in digests:
            problems.append(f"{name} is not in {other.label}")
        elif name not in content:
            problems.append(f"{name} is only in {other.label}")
        elif content[name].digest != digests[name]:
            ours, theirs = checkpoint.tensors[name].info, other.tensors[name].info
            kinds = "" if str(ours) == str(theirs) else f": {ours} against {theirs}"
            problems.append(f"{name} differs{kinds}")
    return judged("against", problems, f"every tensor equals that of {other.label}")


def _sum(subject: Subject, options: Options, progress: Progress) -> list[Check]:
    """The published sum, where it is certain from which release the model came, and it has one."""
    release = subject.release
    if release is None or not release.sums:
        return []
    inputs = {str(number): part for number, part in enumerate(subject.parts)}
    sums = sum_checkpoint(
        subject.checkpoint, release, inputs, threads=options.threads, progress=progress
    )
    published = release.sums[0]
    total = sums.float64 + sums.inv_freq
    fine = f"{total:.4f} with inv_freq ({sums.float64:.4f} without), published {published.value}"
    return [judged("sum", [] if sums.agrees else [fine], fine)]
