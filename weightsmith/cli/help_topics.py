"""The pages of ``weightsmith help`` and docs/reference that are generated from the code."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from string import Formatter
from typing import Final

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.cli.flags import as_flags
from weightsmith.cli.layout import filled, heading, table
from weightsmith.errors import WeightsmithError, known_errors, reference_of

DONE: Final = {
    0: "Done, or all good.",
    1: "The check ran and the answer is no.",
}
BROKEN_PIPE: Final = {141: "The program that read our output has ended (broken pipe)."}

ENVIRONMENT: Final = (
    (
        "WEIGHTSMITH_<COMMAND>_<FLAG>",
        "A default for any flag: WEIGHTSMITH_APPLY_DELTA_WORKERS=2 for --workers 2.",
    ),
    ("WEIGHTSMITH_DEBUG", "If set, errors show where in the code they arose."),
    ("HF_TOKEN", "A token for the hub; default: that of 'hf auth login'."),
    ("HF_HOME", "Where the hub's cache is: HF_HOME/hub."),
    ("HF_ENDPOINT", "The address of a mirror to use in place of https://huggingface.co."),
    ("HF_HUB_OFFLINE", "If 1, use no network, as with --offline."),
    (
        "HF_HUB_DISABLE_XET",
        "1: download by plain HTTP, slower, but a broken file goes on. 0: use Xet at mirrors too.",
    ),
    ("NO_COLOR", "If set, no colours, even if something else asks for them."),
    ("FORCE_COLOR", "If set, colours even without a terminal."),
    ("TERM", "If 'dumb', neither colours nor a progress bar."),
    ("COLUMNS", "The width of the output, if not the terminal's."),
)

SOURCES: Final = """\
A SOURCE is where a model is. In this order:

  a directory    ./llama-7b
  an alias       llama-7b, one of 'weightsmith help catalogue'
  a hub id       lmsys/vicuna-7b-delta-v1.1, or with a revision, ...@main
  an address     https://huggingface.co/org/name/tree/main, hf://models/org/name
  a prefix       s3://bucket/models/llama, also gs:// and az://, read from there
                 without a download (pip install 'weightsmith[s3]')

Each can be followed by deltas, A+D1+D2: this stands for the model that applying
them gives, which is computed as it is read and not written. If a directory has
that very name, the directory is meant.

A/B is taken for a path and not for a hub id if a directory A is here and holds
files, or if B ends as files of models do (.json, .safetensors, ...). For a hub
id of such a name write hf://A/B.

A model on the hub is first downloaded to the hub's cache, every file checked.

In a directory the weights are the files that its index names, or else
model*.safetensors, or else pytorch_model*.bin. If both formats are there,
safetensors are taken, and the plan says so. optimizer*, scheduler*, rng_state*
and training_args.bin are never taken; .git, .cache, runs/ and checkpoint-* are
not looked into.

If there are none of these, but params.json and consolidated.NN.pth, Meta's own
layout of LLaMA, they are read as if they had been converted.

A training output is read as the model in it ('help training-outputs'):
  - the files of all processes of an FSDP run; .metadata with .distcp files
  - DeepSpeed's global_stepN: the one that 'latest' names, or, to name another,
    RUN@global_step100
  - of several checkpoint-N the one with the highest number, as the plan says
  - a single file: .safetensors, .bin, .pt, .pth or .ckpt

A directory that a download or a 'git clone' made can be used as it is. If its
files are git-lfs pointers, run 'git lfs pull' in it first."""


def exit_codes() -> dict[int, str]:
    """Every exit code and what it means; those of errors come from their classes."""
    categories = {
        error.exit_code: _summary(error)
        for error in WeightsmithError.__subclasses__()
        if "exit_code" in vars(error)
    }
    return dict(sorted({**DONE, **categories, **BROKEN_PIPE}.items()))


def exit_codes_page(width: int) -> str:
    """``weightsmith help exit-codes``."""
    rows = [[str(code), meaning] for code, meaning in exit_codes().items()]
    return f"{heading('Exit codes')}\n{table(rows, width=width, styles=('bold',), right=(0,))}"


def exit_code_page(code: int, width: int) -> str:
    """``weightsmith help 7``: what the code means, and the errors that have it."""
    rows = [
        (reference_of(error), _summary(error))
        for error in known_errors()
        if error.exit_code == code
    ]
    page = f"{heading(f'Exit code {code}')}\n{textwrap.fill(exit_codes()[code], width)}"
    if not rows:
        return page
    return f"{page}\n\n{table(rows, width=width, styles=('bold',))}"


def environment_page(width: int) -> str:
    """``weightsmith help environment``."""
    return (
        f"{heading('Environment variables')}\n{table(ENVIRONMENT, width=width, styles=('bold',))}"
    )


def sources_page(width: int) -> str:  # noqa: ARG001  (its lines are short)
    """``weightsmith help sources``."""
    return f"{heading('Sources')}\n{SOURCES}"


def error_page(error: type[WeightsmithError], width: int) -> str:
    """``weightsmith help shard-truncated``: what happened, the message, and what to do."""
    text = as_flags(inspect.cleandoc(error.__doc__ or "").replace("``", ""))
    paragraphs = text.split("\n\n")
    lines = [
        heading(reference_of(error)),
        "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs),
        "",
        filled(f"Message: {placeholders(error.message)}", width),
    ]
    if error.hint:
        lines.append(filled(f"Hint: {placeholders(error.hint)}", width))
    lines.append(f"Exit code: {error.exit_code}")
    return "\n".join(lines)


def repair_page(repair: KnownRepair, width: int) -> str:
    """``weightsmith help legacy-missing``: a known fault of tokenizer or config files."""
    rows = [
        ("what users see", repair.symptom),
        ("where it comes from", repair.how),
        *(("misread by", reader) for reader in repair.readers),
        ("the repair", repair.change),
        ("met in", ", ".join(repair.references)),
    ]
    told = [(name, text.replace("`", "")) for name, text in rows if text]
    title = heading(f"{repair.id}: {repair.title}".rstrip("."))
    return f"{title}\n{table(told, width=width)}"


def exit_codes_markdown() -> str:
    """docs/reference/exit-codes.md."""
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes().items())
    return (
        "# Exit codes\n\nThey are stable: a code may be added, never given another meaning.\n\n"
        f"| Code | Meaning |\n| ---: | --- |\n{rows}"
    )


def errors_markdown() -> str:
    """docs/reference/errors.md."""
    return "\n".join(_error_sections())


def _error_sections() -> Iterator[str]:
    yield "# Errors\n"
    yield "`weightsmith help REFERENCE` explains an error; its reference is the word in brackets.\n"
    code = 0
    for error in known_errors():
        if error.exit_code != code:
            code = error.exit_code
            yield f"## Exit code {code}: {exit_codes()[code]}\n"
        yield f"### {reference_of(error)}\n\n{as_flags(inspect.cleandoc(error.__doc__ or ''))}\n"
        yield f"    error: {placeholders(error.message)} [{reference_of(error)}]"
        if error.hint:
            yield f"    hint: {placeholders(error.hint)}"
        yield ""


def placeholders(template: str) -> str:
    """``{file} is empty`` -> ``FILE is empty``."""
    parts = Formatter().parse(template)
    return as_flags("".join(text + (name or "").upper() for text, name, _, _ in parts))


def _summary(error: type[WeightsmithError]) -> str:
    """A class's docstring up to its first full stop."""
    return inspect.cleandoc(error.__doc__ or "").partition(".")[0].replace("\n", " ") + "."


TOPICS: Final[Mapping[str, Callable[[int], str]]] = {
    "exit-codes": exit_codes_page,
    "environment": environment_page,
    "sources": sources_page,
}
