"""Let a model generate, and judge what it did."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from weightsmith.catalogue.load import find_prompt
from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import (
    ArchitectureConverted,
    ArchitectureUnknown,
    DamagedInput,
    MemoryTooSmall,
    ModelQuantised,
)
from weightsmith.ops.verify.report import Check, judged
from weightsmith.ops.verify.subject import open_subject
from weightsmith.plan.needs import RUNTIME_NBYTES, TORCH_NBYTES, available_memory
from weightsmith.smoke.device import Device, choose_device
from weightsmith.smoke.generate import Smoke
from weightsmith.smoke.runner import Runner
from weightsmith.units import format_memory

__all__ = ["Device", "Settings", "Smoke", "choose_device", "smoke"]

QUESTION: Final = "What is a fox?"
"""What a model is asked where the user gives no prompt."""
_TIMES_THE_BASE: Final = 3.0
"""A fine-tune reads plain English about as well as its base; scrambled weights are far off."""
_NOT_RUN: Final = (ArchitectureConverted, ArchitectureUnknown, ModelQuantised)
"""Why a model that may be sound cannot be tried."""
_NO_GENERATORS: Final = (
    *("Model", "Encoder", "ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction"),
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForImageClassification"),
)
"""How the names of architectures end that have no head to write with."""
_BETTER: Final = 0.8
"""How much lower perplexity must be with q and k reordered for these to be in the wrong order."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a smoke test is made."""

    device: Device = "auto"
    prompt: str = QUESTION
    max_new_tokens: int = 32
    max_perplexity: float | None = None
    low_cpu_mem: bool = False
    """Keep one tensor at a time in memory, and read each anew whenever it is needed."""


def smoke(
    source: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    base: str | os.PathLike[str] | None = None,
    on_text: Callable[[str], None] = lambda _: None,
) -> tuple[Smoke | None, tuple[Check, ...]]:
    """Let a model generate, and judge what it did; what it writes goes to `on_text` as it comes.

    A delta with its `base` runs as the model that it makes. The perplexity of the base itself,
    which is loaded after it, is what the model's is held against.
    Returns what it did, or None where it did not come so far; and the checks.
    Raises: SourceFault; NoCuda, PackageMissing; MemoryTooSmall, OutOfMemory.
    """
    settings = settings or Settings()
    with Runner() as runner:
        where = runner.choose_device(settings.device, low_cpu_mem=settings.low_cpu_mem)
        subject = open_subject(source, base)
        checkpoint = subject.checkpoint
        if subject.promise is not None:
            reason = "a delta is no model without its base: `base=BASE`"
            return None, (Check("smoke", "not checked", (reason,)),)
        if silent := _writes_nothing(checkpoint.config):
            return None, (Check("smoke", "not checked", (silent,)),)
        if where == "cpu" and not settings.low_cpu_mem:
            _require_memory(checkpoint)
        try:
            did = _generate(runner, checkpoint, subject.release, settings, where, on_text)
        except _NOT_RUN as error:
            details = (str(error), *error.context)
            return None, (Check("smoke", "not checked", details, error.hint_text),)
        except DamagedInput as error:
            return None, (Check("smoke", "FAIL", (str(error), *error.context)),)
        limit = _limit(runner, did, settings, where, subject.base)
    return did, tuple(_judge(did, limit))


def _writes_nothing(config: Mapping[str, object]) -> str:
    """Why a model of this config generates no text, a sentence; empty where it may.

    Transformers would make a generator of an encoder's weights all the same, and of its head random
    numbers.
    """
    named = config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    if not names or not all(name.endswith(_NO_GENERATORS) for name in names):
        return ""
    if any(name.endswith("LMHeadModel") for name in names):
        return ""
    return f"{', '.join(names)} generates no text"


def _generate(
    runner: Runner,
    checkpoint: Checkpoint,
    release: Release | None,
    settings: Settings,
    where: str,
    on_text: Callable[[str], None] = lambda _: None,
) -> Smoke:
    """Ask in the form that the release was trained on, where that is known."""
    template = find_prompt(release.prompt) if release and release.prompt else None
    return runner.generate(
        checkpoint,
        question=settings.prompt,
        prompt=template.fill(settings.prompt) if template else None,
        device=where,
        max_new_tokens=settings.max_new_tokens,
        low_cpu_mem=settings.low_cpu_mem,
        on_text=on_text,
    )


def _require_memory(checkpoint: Checkpoint) -> None:
    """Find out before a system that promises more memory than it has ends the process.

    Raises: MemoryTooSmall.
    """
    free, needed = available_memory(), checkpoint.nbytes + RUNTIME_NBYTES + TORCH_NBYTES
    if free is not None and needed > free:
        raise MemoryTooSmall(free=format_memory(free), needed=format_memory(needed))


@dataclass(frozen=True, slots=True)
class _Limit:
    """The highest perplexity that is right, and why."""

    value: float
    why: str


def _limit(
    runner: Runner, did: Smoke, settings: Settings, where: str, base: Checkpoint | None
) -> _Limit:
    """What the user says, else a few times what the base has, else half of what guessing costs.

    Guessing costs the logarithm of the vocabulary size for each token, whose half is that of its
    root: models of English lie far below it, broken ones far above.
    """
    if settings.max_perplexity is not None:
        return _Limit(settings.max_perplexity, "as `max_perplexity` says")
    half = math.sqrt(did.vocab_size)
    why = f"the square root of {did.vocab_size}, the perplexity of guessing at random"
    if base is None:
        return _Limit(half, why)
    one = Settings(max_new_tokens=1, low_cpu_mem=settings.low_cpu_mem)
    try:
        theirs = _generate(runner, base, None, one, where)
    except (*_NOT_RUN, DamagedInput) as error:
        return _Limit(half, f"{why}; {error}")
    limit = _TIMES_THE_BASE * theirs.perplexity
    if not limit <= half:
        return _Limit(half, f"{why}; the base has {theirs.perplexity:.4g}")
    return _Limit(limit, f"{_TIMES_THE_BASE:g} times the base's {theirs.perplexity:.4g}")


def _judge(did: Smoke, limit: _Limit) -> Iterator[Check]:
    """What the model did, held against what a sound one does."""
    if did.left:
        reason = f"transformers was not given {', '.join(did.left)}: such settings can name code"
        yield Check("config", "pass", (reason,))
    if did.bos_id is None:
        yield Check("bos", "not checked", ("the tokenizer has no BOS token",))
    else:
        wrong = [f"the prompt begins with token {did.first_id}, BOS is {did.bos_id}"]
        yield judged("bos", wrong * (did.first_id != did.bos_id), "the prompt begins with BOS")
    yield judged("logits", ["some are NaN or infinite"] * (not did.finite), "all finite")
    yield judged(
        "text",
        [f"it wrote token {did.tokens[0]} over and over"] * did.repeats,
        f"{len(did.tokens)} tokens, then "
        + ("it stopped by itself" if did.stopped else "the limit was reached"),
    )
    wrong = ["the tokenizer does not give plain English back from its ids"]
    yield judged("round trip", wrong * (not did.round_trip), "the tokenizer gives text back")
    yield _judge_perplexity(did, limit)


def _judge_perplexity(did: Smoke, limit: _Limit) -> Check:
    limit_is = f"the limit is {limit.value:.4g}: {limit.why}"
    found = f"{did.perplexity:.4g} on the built-in text; {limit_is}"
    problems = []
    if not did.perplexity <= limit.value:
        problems.append(found)
    if did.perplexity_reordered < _BETTER * did.perplexity:
        problems.append(
            "q_proj and k_proj seem to be in the order of Meta's files: permuted as a converter"
            f" does, perplexity is {did.perplexity_reordered:.4g} instead of {did.perplexity:.4g}"
        )
    return judged("perplexity", problems, found)
