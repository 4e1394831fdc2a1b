"""Answer one question about a model: is it right?"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.catalogue.architectures import expected_shapes
from weightsmith.catalogue.load import find_prompt, load_releases
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.kind import guess_kind
from weightsmith.engine.bindings import Options
from weightsmith.engine.content import TensorContent, read_content
from weightsmith.engine.finished import damage
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import SourceFault, WeightsmithError, shown
from weightsmith.ops.sources import open_source
from weightsmith.ops.sums import sum_report
from weightsmith.repair.detect import diagnose
from weightsmith.smoke.generate import Device, Smoke, generate

__all__ = ["Check", "Device", "Report", "Verdict", "check", "smoke", "verify"]

QUESTION: Final = "What is a fox?"
"""What a model is asked where the user gives no prompt."""
_TIMES_THE_BASE: Final = 3.0
"""A fine-tune reads plain English about as well as its base; scrambled weights are far off."""
Verdict = Literal["pass", "FAIL", "not checked"]
_UNFINISHED: Final = (".incomplete", ".part", ".tmp", ".crdownload", ".aria2")
"""What downloads and writers that were stopped leave behind."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    verdict: Verdict
    details: tuple[str, ...]
    """Why, or every problem found."""


@dataclass(frozen=True, slots=True)
class Report:
    """All answers about one source."""

    source: str
    checks: tuple[Check, ...]

    def passed(self, *, strict: bool = False) -> bool:
        """Whether no check failed, and, if strict, none was left out."""
        bad = {"FAIL", "not checked"} if strict else {"FAIL"}
        return not any(check.verdict in bad for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"source": self.source, "checks": [asdict(check) for check in self.checks]}


def verify(
    source: str | os.PathLike[str],
    *,
    against: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Report:
    """Check a model's structure, then every byte of it; `against` compares with another checkpoint.

    Nothing is believed that the writer may have thought: all files are opened anew.
    Memory: one span a worker. No torch, but for a release that published the sum of its weights.
    Raises: SourceFault, if there is no model to check; as `open_source` for `against`.
    """
    label = os.fspath(source)
    try:
        checkpoint = open_source(source)
    except SourceFault:
        raise
    except WeightsmithError as error:
        return Report(label, (Check("files", "FAIL", (str(error),)),))
    options = options or Options()
    buffers = [Buffers() for _ in range(options.threads)]
    other = open_source(against) if against is not None else None
    progress.begin("reading", checkpoint.nbytes + (other.nbytes if other else 0))
    content = read_content(checkpoint, buffers, progress.advance)
    checks = [*_structure(checkpoint), *_content(checkpoint, content)]
    if other is not None:
        infos = [tensor.info for tensor in other.tensors.values()]
        digests = digest_tensors(infos, other.read_into, buffers, progress.advance)
        checks.append(_same(checkpoint, content, other, digests))
    checks += _sums(checkpoint, options, progress)
    return Report(label, tuple(checks))


def smoke(
    source: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    prompt: str | None = None,
    device: Device = "auto",
    max_new_tokens: int = 32,
    max_perplexity: float | None = None,
    low_cpu_mem: bool = False,
    on_text: Callable[[str], None] = lambda _: None,
) -> tuple[Smoke, tuple[Check, ...]]:
    """Let a model generate, and judge what it did.

    `base` is loaded too, and its perplexity is what the model's is held against.
    Raises: as `open_source` and `smoke.generate.generate`.
    """
    checkpoint = open_source(source)
    did = generate(
        checkpoint.directory,
        prompt=_prompt(checkpoint, prompt or QUESTION),
        max_new_tokens=max_new_tokens,
        on_text=on_text,
        device=device,
        low_cpu_mem=low_cpu_mem,
    )
    limit, why = float(did.vocab_size), "a model that knows nothing has its vocabulary size"
    if max_perplexity is not None:
        limit, why = max_perplexity, "as --max-perplexity says"
    elif base is not None:
        theirs = generate(
            open_source(base).directory,
            prompt=QUESTION,
            max_new_tokens=1,
            device=device,
            low_cpu_mem=low_cpu_mem,
        )
        limit = min(_TIMES_THE_BASE * theirs.perplexity, limit)
        why = f"the base has {theirs.perplexity:.4g}"
    return did, tuple(_judge(did, limit, why))


def check(name: str, problems: list[str], fine: str) -> Check:
    """A check that passes with the words `fine` when there are no problems."""
    return Check(name, "FAIL", tuple(problems)) if problems else Check(name, "pass", (fine,))


def _structure(checkpoint: Checkpoint) -> list[Check]:
    count = len(checkpoint.files)
    fine = f"{count} sound header{'s' if count > 1 else ''}, {len(checkpoint.tensors)} tensors"
    checks = [Check("files", "pass", (fine,))]
    guess = guess_kind(checkpoint)
    if guess.kind == "unknown":
        checks.append(Check("kind", "not checked", (guess.reason,)))
    else:
        wrong = [] if guess.kind == "model" else [f"this is a delta, not a model: {guess.reason}"]
        checks.append(check("kind", wrong, f"a model: {guess.reason}"))
    checks.append(_shapes(checkpoint))
    checks.append(_tokenizer(checkpoint))
    unfinished = sorted(
        entry.name for entry in os.scandir(checkpoint.directory) if entry.name.endswith(_UNFINISHED)
    )
    wrong = [f"{name} was left by something unfinished" for name in unfinished]
    checks.append(check("leftovers", wrong, "none"))
    return checks


def _shapes(checkpoint: Checkpoint) -> Check:
    """Names and shapes against the config, where the architecture is known."""
    try:
        expected = expected_shapes(checkpoint.config)
    except WeightsmithError as error:
        return Check("shapes", "FAIL", (str(error),))
    if expected is None:
        model_type = checkpoint.config.get("model_type", "no model_type")
        return Check("shapes", "not checked", (f"no table of tensors for {model_type}",))
    problems = []
    for name, shape in expected.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            problems.append(f"{name} is missing")
        elif found.info.shape != shape:
            problems.append(f"{name} is {list(found.info.shape)}, the config says {list(shape)}")
    extra = [n for n in checkpoint.tensors if n not in expected and not is_buffer(n)]
    fine = "names and shapes are those of the config"
    if extra:
        fine += f"; {len(extra)} more: {', '.join(shown(extra))}"
    return check("shapes", problems, fine)


def _tokenizer(checkpoint: Checkpoint) -> Check:
    """What ``fix-tokenizer --check`` finds."""
    try:
        files = {name: checkpoint.read_sidecar(name) for name in checkpoint.sidecars}
        found = diagnose(files, embedding_rows=checkpoint.embedding_rows)
    except WeightsmithError as error:
        return Check("tokenizer", "FAIL", (str(error),))
    if not found.faults and found.notes:
        return Check("tokenizer", "not checked", found.notes)
    problems = [f"{f.file}: {f.evidence} [{f.id}]" for f in found.faults]
    return check("tokenizer", problems, "no known fault in tokenizer and config")


def _content(checkpoint: Checkpoint, content: Mapping[str, TensorContent]) -> list[Check]:
    problems = [
        f"{name} holds {each.nans} NaN and {each.infinities} infinite values"
        for name, each in content.items()
        if each.nans or each.infinities
    ]
    numbers = check("numbers", problems, "no NaN, no infinity")
    digests = {name: each.digest for name, each in content.items()}
    try:
        manifest: Manifest | None = read_manifest(checkpoint.directory)
    except WeightsmithError as error:
        return [numbers, Check("digests", "FAIL", (str(error),))]
    if manifest is None:
        missing = "there is no weightsmith.json to check against"
        return [numbers, Check("digests", "not checked", (missing,))]
    fine = f"all {len(digests)} tensors and {len(manifest.sidecars)} files are as published"
    return [numbers, check("digests", damage(checkpoint, manifest, digests), fine)]


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
    return check("against", problems, f"every tensor equals that of {other.label}")


def _sums(checkpoint: Checkpoint, options: Options, progress: Progress) -> list[Check]:
    """The published sum, where the manifest names a release that has one."""
    try:
        manifest = read_manifest(checkpoint.directory)
    except WeightsmithError:
        return []
    release = next((r for r in load_releases() if manifest and r.id == manifest.release), None)
    if release is None or not release.sums:
        return []
    directory = Path(checkpoint.directory)
    sums = sum_report(directory, release, {}, threads=options.threads, progress=progress)
    published = release.sums[0]
    total = sums.float64 + sums.inv_freq
    fine = f"{total:.4f} with inv_freq ({sums.float64:.4f} without), published {published.value}"
    return [check("sum", [] if sums.agrees else [fine], fine)]


def _prompt(checkpoint: Checkpoint, question: str) -> str:
    """The question in the form that the model's family was trained on, where that is known."""
    try:
        manifest = read_manifest(checkpoint.directory)
    except WeightsmithError:
        manifest = None
    release = next((r for r in load_releases() if manifest and r.id == manifest.release), None)
    template = find_prompt(release.prompt) if release and release.prompt else None
    return template.fill(question) if template else question


def _judge(did: Smoke, limit: float, why: str) -> Iterator[Check]:
    """What the model did, held against what a sound one does."""
    if did.bos_id is None:
        yield Check("bos", "not checked", ("the tokenizer has no BOS token",))
    else:
        wrong = [f"the first id is {did.first_id}, BOS is {did.bos_id}"]
        yield check("bos", wrong * (did.first_id != did.bos_id), "the prompt begins with BOS")
    yield check("logits", ["some are NaN or infinite"] * (not did.finite), "all finite")
    yield check(
        "text",
        [f"it wrote token {did.tokens[0]} over and over"] * did.repeats,
        "stopped by itself" if did.stopped else f"went on to the limit of {len(did.tokens)} tokens",
    )
    wrong = ["the tokenizer does not give the prompt back from its ids"]
    yield check("round trip", wrong * (not did.round_trip), "the tokenizer gives the prompt back")
    found = f"{did.perplexity:.4g} on the built-in text"
    too_high = not did.perplexity <= limit
    yield check("perplexity", [f"{found}, above {limit:.4g}: {why}"] * too_high, found)
