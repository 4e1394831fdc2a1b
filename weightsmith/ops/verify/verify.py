"""Answer one question about a model: is it right?"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.digest import fingerprint
from weightsmith.checkpoint.renamed import named_like
from weightsmith.checkpoint.tied import OUTPUT_MATRICES, ties_embeddings
from weightsmith.engine.expected import require_inputs_of
from weightsmith.engine.finished import damage
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import (
    DamagedInput,
    Mismatch,
    RowsUndecided,
    ShardMissing,
    WrongBase,
)
from weightsmith.ops.fix.hints import fix_command
from weightsmith.ops.verify import smoke as smokes
from weightsmith.ops.verify.content import TensorContent, read_content
from weightsmith.ops.verify.published_sum import sum_checkpoint
from weightsmith.ops.verify.report import Check, Report, Verdict, judged
from weightsmith.ops.verify.structure import check_structure, check_unreadable
from weightsmith.ops.verify.subject import Subject, open_subject
from weightsmith.ops.verify.torch_crcs import check_torch_files
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import TensorPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.exact import tell_slow
from weightsmith.sources.locate import label_of, locate
from weightsmith.sources.recognise import open_model
from weightsmith.units import counted

_TORCH_FILES: Final = (".bin", ".pt", ".pth")


def verify(
    source: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    against: str | os.PathLike[str] | None = None,
    smoke: smokes.Settings | None = None,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Report:
    """Check a model's structure, then every byte of it; `against` compares with another checkpoint.

    With settings for a `smoke` test, it is then loaded with transformers, and writes.

    A delta with its `base` is checked as the model that it makes, which is written nowhere; an
    exact one without it as far as that goes.
    Nothing is taken over from the run that wrote the model: all files are opened anew.
    Memory: one span a worker, and what it is made from. No torch, but for a release that published
    the sum of its weights.
    Raises: SourceFault, if there is no model to check; as `open_model` for `against`.
    """
    reach = partial(locate, offline=offline, progress=progress)
    source = reach(source)
    base = None if base is None else reach(base)
    against = None if against is None else reach(against)
    report = _checked(source, base, against, options or Options(), progress)
    if smoke is None:
        return report
    _, checks = smokes.smoke(source, smoke, base=base)
    return replace(report, checks=(*report.checks, *checks))


def _checked(
    source: str | os.PathLike[str],
    base: str | os.PathLike[str] | None,
    against: str | os.PathLike[str] | None,
    options: Options,
    progress: Progress,
) -> Report:
    """What can be told without loading it."""
    try:
        subject = open_subject(source, base)
        checkpoint = subject.checkpoint
        checkpoint.config  # noqa: B018  (read now: all that follows goes by it)
    except (DamagedInput, ShardMissing) as error:
        return Report(label_of(source), (check_unreadable(source, error),))
    except Mismatch as error:
        verdict: Verdict = "not checked" if isinstance(error, RowsUndecided) else "FAIL"
        details = (str(error), *error.context)
        return Report(label_of(source), (Check("base", verdict, details, error.hint_text),))
    checks = check_structure(subject)
    buffers = [Buffers() for _ in range(1 if checkpoint.sequential else options.threads)]
    digest = ""
    try:
        checks += _checksums(subject, buffers, progress)
        if subject.promise is not None:
            questions = ["base", "against"] if against is not None else ["base"]
            payloads = _payload_digests(subject, buffers, progress)
            checks.append(_digests(subject, payloads, buffers))
            checks += [_unanswered(name, subject.promise, checkpoint) for name in questions]
            return Report(checkpoint.label, tuple(checks), fingerprint(payloads))
        other = None
        if against is not None:
            other = named_like(open_model(against), checkpoint.tensors)
        tell_slow(progress, checkpoint, *([other] if other else []))
        nbytes = checkpoint.nbytes + (other.nbytes if other else 0)
        progress.begin("applying" if subject.rules else "reading", nbytes)
        content = read_content(checkpoint, buffers, progress.advance)
        digests = {name: each.digest for name, each in content.items()}
        digest = fingerprint(digests)
        checks += [_numbers(checkpoint, content), *_tied(checkpoint, digests)]
        checks.append(_digests(subject, digests, buffers))
        if other is not None:
            infos = [tensor.info for tensor in other.tensors.values()]
            others = digest_tensors(infos, other.read_into, buffers, progress.advance)
            checks.append(_same(checkpoint, digests, other, others))
        checks += _sum(subject, options, progress)
    except DamagedInput as error:
        damaged = Check("content", "FAIL", (str(error), *error.context), error.hint_text)
        checks.append(_wrong_base(subject, subject.rules, buffers) or damaged)
    return Report(checkpoint.label, tuple(checks), digest)


def _checksums(subject: Subject, buffers: Sequence[Buffers], progress: Progress) -> list[Check]:
    """What torch files say of themselves, where there are any."""
    files = [
        (part.directory / file.name, file.size)
        for part in subject.parts.values()
        for file in part.files
        if file.name.endswith(_TORCH_FILES)
    ]
    if not files:
        return []
    progress.begin("checksums", sum(size for _, size in files))
    found = check_torch_files([path for path, _ in files], buffers, progress.advance)
    fine = f"all {found.checked} parts of {counted(len(files), 'torch file')} have their CRC-32"
    if found.wrong or not found.lacking:
        hint = _cure(subject) or "download them again"
        return [judged("checksums", found.wrong, fine, hint=hint)]
    lacking = f"{found.lacking} of {found.lacking + found.checked} parts were written without one"
    return [Check("checksums", "not checked", (lacking,))]


def _numbers(checkpoint: Checkpoint, content: Mapping[str, TensorContent]) -> Check:
    problems = [
        f"{name} holds {each.nans} NaN and {each.infinities} infinite values"
        for name, each in content.items()
        if (each.nans or each.infinities)
        and not is_buffer(name, checkpoint.tensors[name].info.shape)
    ]
    return judged("numbers", problems, "no NaN, no infinity")


def _tied(checkpoint: Checkpoint, digests: Mapping[str, str]) -> list[Check]:
    """Whether an output layer that the config calls tied is the embedding, where both are there."""
    head, embedding = (
        next((name for name in digests if name.endswith(names)), None)
        for names in (OUTPUT_MATRICES, INPUT_EMBEDDINGS)
    )
    if not head or not embedding or ties_embeddings(checkpoint.config) is not True:
        return []
    problem = f"{head} is not {embedding}, though the config ties them"
    fine = f"{head} is {embedding}, as the config says"
    return [judged("tied", [problem] * (digests[head] != digests[embedding]), fine)]


def _payload_digests(
    subject: Subject, buffers: Sequence[Buffers], progress: Progress
) -> dict[str, str]:
    """Of what an exact delta holds, by name."""
    delta = subject.parts["delta"]
    progress.begin("reading", delta.nbytes)
    infos = [tensor.info for tensor in delta.tensors.values()]
    return digest_tensors(infos, delta.read_into, buffers, progress.advance)


def _unanswered(name: str, promise: DeltaRecord, delta: Checkpoint) -> Check:
    """What only the base could answer."""
    base = promise.base.id or "BASE"
    hint = f"check it with its base: weightsmith verify {delta.label} --base {base}"
    return Check(name, "not checked", ("what the delta makes shows only with its base",), hint)


def _cure(subject: Subject) -> str:
    """The command that puts right bytes in the place of damaged ones, for an output of ours."""
    directory = subject.checkpoint.directory
    return fix_command(directory, subject.manifest) if subject.manifest is not None else ""


def _digests(subject: Subject, digests: Mapping[str, str], buffers: Sequence[Buffers]) -> Check:
    if subject.rules:
        return _promised(subject, digests, buffers)
    if subject.fault:
        hint = fix_command(subject.checkpoint.directory, subject.manifest)
        return Check("digests", "FAIL", (subject.fault,), hint)
    if subject.manifest is None:
        missing = "there is no weightsmith.json to check against"
        return Check("digests", "not checked", (missing,))
    manifest = subject.manifest
    held = f"{counted(len(digests), 'tensor')} and {counted(len(manifest.sidecars), 'file')}"
    fine = f"{held}, all as weightsmith wrote them"
    hint = _cure(subject)
    return judged("digests", damage(subject.checkpoint, manifest, digests), fine, hint=hint)


def _promised(subject: Subject, digests: Mapping[str, str], buffers: Sequence[Buffers]) -> Check:
    """Whether delta and base make the model that the delta says; if not, which of them is wrong."""
    rules = [rule for rule in subject.rules if rule.digest]
    if not rules:
        missing = "a delta of 2023 carries no digests of what it makes"
        return Check("digests", "not checked", (missing,))
    wrong = [rule for rule in rules if digests[rule.output.name] != rule.digest]
    problems = [f"the delta makes another {rule.output.name} than it says" for rule in wrong]
    fine = f"all {len(rules)} tensors are what the delta says that it makes"
    right = judged("digests", problems, fine, hint="download the delta again")
    return _wrong_base(subject, wrong, buffers) or right


def _wrong_base(
    subject: Subject, rules: Sequence[TensorPlan], buffers: Sequence[Buffers]
) -> Check | None:
    """What is wrong with the tensors that these rules read, where their digests are known."""
    try:
        require_inputs_of(rules, subject.parts, buffers)
    except WrongBase as error:
        return Check("base", "FAIL", (str(error), *error.context), error.hint_text)
    return None


def _same(
    checkpoint: Checkpoint,
    digests: Mapping[str, str],
    other: Checkpoint,
    others: Mapping[str, str],
) -> Check:
    problems = []
    for name in sorted(digests.keys() | others.keys()):
        held = checkpoint if name in digests else other
        if is_buffer(name, held.tensors[name].info.shape):
            continue
        if name not in others:
            problems.append(f"{name} is not in {other.label}")
        elif name not in digests:
            problems.append(f"{name} is only in {other.label}")
        elif digests[name] != others[name]:
            ours, theirs = checkpoint.tensors[name].info, other.tensors[name].info
            kinds = "" if str(ours) == str(theirs) else f": {ours} against {theirs}"
            problems.append(f"{name} differs{kinds}")
    return judged("against", problems, f"every tensor equals that of {other.label}")


def _sum(subject: Subject, options: Options, progress: Progress) -> list[Check]:
    """The published sum, where it is certain from which release the model came, and it has one."""
    release = subject.release
    if release is None or not release.sums:
        return []
    sums = sum_checkpoint(
        subject.checkpoint, release, subject.parts, threads=options.threads, progress=progress
    )
    published = release.sums[0]
    total = sums.float64 + sums.inv_freq
    fine = f"{total:.4f} with inv_freq ({sums.float64:.4f} without), published {published.value}"
    return [judged("sum", [] if sums.agrees else [fine], fine)]
