"""What headers and small files tell about a model, without reading its tensors."""

import os
from pathlib import Path
from typing import Final

from weightsmith.catalogue.architectures import Expected, expected_tensors
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import discover
from weightsmith.checkpoint.layout import DELTA_INDEX
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.checkpoint.renamed import named_like
from weightsmith.engine.in_place import is_left
from weightsmith.engine.manifest import read_manifest
from weightsmith.engine.staging import Staging
from weightsmith.errors import QuantisationUnknown, WeightsmithError
from weightsmith.ops.fix.hints import fix_command
from weightsmith.ops.sidecars import read_for_diagnosis
from weightsmith.ops.verify.report import Check, Verdict, judged
from weightsmith.ops.verify.subject import Subject
from weightsmith.repair.detect import diagnose
from weightsmith.sources.dequantised import dequantised, quantisation_of
from weightsmith.sources.locate import label_of

_UNFINISHED: Final = (".incomplete", ".part", ".tmp", ".crdownload", ".aria2")
"""What downloads and writers that were stopped leave behind."""
_HUB_CORNER: Final = ".cache/huggingface/download"
"""Where the hub library keeps what it is still fetching into a directory."""


def check_unreadable(source: str | os.PathLike[str], error: WeightsmithError) -> Check:
    """Every weight file that cannot be read, where one of them stopped us."""
    directory, problems = Path(source), []
    try:
        names = discover(directory).weights
    except WeightsmithError:
        names = ()
    for name in names:
        try:
            open_weight_file(directory, name)
        except WeightsmithError as damaged:
            problems.append(str(damaged))
    hint = _fix_of_ours(source) or error.hint_text
    return Check("files", "FAIL", tuple(problems or [str(error), *error.context]), hint)


def _fix_of_ours(source: str | os.PathLike[str]) -> str:
    """The command that fixes a folder of this machine that weightsmith made; else nothing."""
    directory = Path(source)
    if label_of(source) != str(directory):
        return ""
    try:
        manifest = read_manifest(directory)
    except WeightsmithError:
        return fix_command(directory, None)
    is_ours = manifest is not None or (directory / DELTA_INDEX).is_file()
    return fix_command(directory, manifest) if is_ours else ""


def check_structure(subject: Subject) -> list[Check]:
    """Files, kind, names and shapes, tokenizer and config, leftovers."""
    checkpoint = subject.checkpoint
    count = len(checkpoint.files)
    quantisation, checkpoint = _quantisation(checkpoint)
    fine = (
        f"{count} sound header{'s' if count > 1 else ''}, {len(subject.checkpoint.tensors)} tensors"
    )
    return [
        Check("files", "pass", (fine, *checkpoint.notes)),
        _kind(subject),
        *quantisation,
        _shapes(checkpoint),
        _tokenizer(subject),
        _leftovers(subject),
    ]


def _kind(subject: Subject) -> Check:
    kind = subject.kind
    if subject.promise is not None:
        return Check("kind", "pass", (f"an exact delta, no model: {kind.reason}",))
    if kind.kind == "unknown":
        return Check("kind", "not checked", (kind.reason,))
    problems = [f"this is a delta, not a model: {kind.reason}"] * (kind.kind == "delta")
    hint = f"check it with its base: weightsmith verify {subject.checkpoint.label} --base BASE"
    fine = "delta and base make a model" if subject.rules else "a model"
    return judged("kind", problems, f"{fine}: {kind.reason}", hint=hint)


def _quantisation(checkpoint: Checkpoint) -> tuple[list[Check], Checkpoint]:
    """Whether every quantised weight has its parts, and the model as floats, for what follows;
    nothing of one that is not quantised.
    """
    try:
        quantised = quantisation_of(checkpoint)
    except QuantisationUnknown as unknown:
        return [Check("quantised", "not checked", (str(unknown),))], checkpoint
    except WeightsmithError as error:
        return [Check("quantised", "FAIL", (str(error),), error.hint_text)], checkpoint
    if quantised is None:
        return [], checkpoint
    fine = f"{quantised}: {len(quantised.weights)} weights, each with all its parts"
    return [Check("quantised", "pass", (fine,))], dequantised(checkpoint, quantised, "BF16")


def _shapes(checkpoint: Checkpoint) -> Check:
    """Names and shapes against the config, where the architecture is known."""
    config = checkpoint.config
    try:
        expected = expected_tensors(config)
    except ValueError as error:
        return Check("shapes", "FAIL", (f"config.json: {error}",))
    if expected is None:
        said = f"for {config['model_type']}" if "model_type" in config else "without a model_type"
        return Check("shapes", "not checked", (f"there is no table of tensors {said}",))
    checkpoint = named_like(checkpoint, expected.shapes)
    extra = [
        name
        for name, tensor in checkpoint.tensors.items()
        if name not in expected.shapes and not is_buffer(name, tensor.info.shape)
    ]
    beyond = expected.beyond(extra)
    problems = _misshapen(checkpoint, expected)
    problems += [f"{n} lies beyond the {expected.layers} layers of the config" for n in beyond]
    others = [name for name in extra if name not in beyond]
    fine = f"{len(expected.shapes)} names and shapes are those of the config"
    if others:
        fine += f"; {len(others)} more: {', '.join(others)}"
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


def _tokenizer(subject: Subject) -> Check:
    """What `fix_tokenizer` finds."""
    checkpoint = subject.checkpoint
    try:
        files = read_for_diagnosis(checkpoint)
        rows, names = checkpoint.embedding_rows, checkpoint.sidecars
        found = diagnose(files, embedding_rows=rows, names=names)
    except WeightsmithError as error:
        return Check("tokenizer", "FAIL", (str(error),), error.hint_text)
    if not found.faults and found.unchecked:
        return Check("tokenizer", "not checked", found.unchecked)
    problems = [f"{fault.file}: {fault.evidence} [{fault.id}]" for fault in found.faults]
    cures = [fault.error.hint_text for fault in found.faults if fault.error]
    hint = cures[0] if cures else _cure(subject)
    fine = "no known fault in tokenizer and config"
    verdict: Verdict = "FAIL" if found.of_another_model else "warn"
    hint = hint if cures or found.mendable else ""
    return judged("tokenizer", problems, fine, hint=hint, verdict=verdict)


def _cure(subject: Subject) -> str:
    """The command that mends sidecars, where they may be mended."""
    folder = subject.checkpoint.directory
    if subject.promise is not None or subject.rules or subject.kind.kind == "delta":
        return "these files are the target's: once it is made, weightsmith fix-tokenizer TARGET"
    if subject.checkpoint.rules:  # it is put together, and its files may lie anywhere
        return f"convert mends what is safe: weightsmith convert {subject.checkpoint.label} DIR"
    links = any((folder / name).is_symlink() for name in subject.checkpoint.sidecars)
    if links:
        return f"weightsmith fix-tokenizer {folder} --local-copy DIR"
    return f"weightsmith fix-tokenizer {folder}"


def _leftovers(subject: Subject) -> Check:
    """What downloads, writers and runs of ours that were stopped left beside the files."""
    problems = []
    for part in subject.parts.values():
        here = Path(os.path.abspath(part.directory))  # noqa: PTH100  (staging lies beside a link)
        corner = here / _HUB_CORNER
        names = [entry.name for entry in os.scandir(here)]
        found = [name for name in names if name.endswith(_UNFINISHED) or is_left(name)]
        found += [f"{_HUB_CORNER}/{path.name}" for path in corner.glob("**/*.incomplete")]
        problems += [f"{name} was left by something unfinished" for name in sorted(found)]
        if here.name and os.path.lexists(staging := Staging(here).path):
            problems.append(f"{staging} was left by an unfinished run")
    return judged("leftovers", problems, "none")
