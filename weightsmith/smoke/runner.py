"""Run models in a process of their own, which gets values through a pipe and nothing else.

Transformers can be made to fetch and import code by what a config says. Two walls stand before
that: of the small files only what `allowed` lets through is handed on, and the process has no
network and no package that would fetch code. What it needs of the weights it asks us for.
"""

import contextlib
import importlib.util
import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from weightsmith import errors, fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.errors import ModelNotRunnable, ModelQuantised, OutOfMemory, WeightsmithError
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TensorInfo
from weightsmith.smoke.allowed import QUANTISED, safe_config, safe_settings
from weightsmith.smoke.closed import closed_command, closed_environment
from weightsmith.smoke.device import Device
from weightsmith.smoke.generate import Smoke

SAID: Final = "said"
"""Name of the file that the process's stderr goes to: why it ended, among other things."""
_CONFIG: Final = "config.json"
_GENERATION: Final = "generation_config.json"
_SETTINGS: Final = "tokenizer_config.json"
_VOCABULARIES: Final = frozenset(
    {
        *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "vocab.bpe", "spiece.model", "spm.model"),
        *("sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.tiktoken"),
        *("chat_template.jinja", "chat_template.json"),
    }
)
"""Files of a tokenizer that hold no settings, or none that name anything."""
_NEEDED: Final = ("torch", "transformers")
"""Packages that the process needs, checked before it is started."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process."""

    asked: IO[bytes]
    """Where requests go."""
    answers: IO[bytes]
    kill: Callable[[], None]
    wait: Callable[[], int]
    """Waits for its end; gives its exit status, negative for the signal that ended it."""

    def end(self) -> None:
        """End it, and be done with it."""
        self.kill()
        self.wait()
        self.answers.close()
        with contextlib.suppress(BrokenPipeError):  # what it was not told any more
            self.asked.close()


def start(scratch: Path) -> Process:
    """Start the process; its stderr goes to a file in `scratch`, where its HF_HOME is too."""
    command = closed_command("-m", "weightsmith.smoke.child")
    env = closed_environment() | {"HF_HOME": str(scratch / "home")}
    pipe = subprocess.PIPE
    with (scratch / SAID).open("wb") as said:
        process = subprocess.Popen(  # noqa: S603  (our own module)
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=said,
            env=env,
        )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError
    return Process(process.stdin, process.stdout, process.kill, process.wait)


class Runner:
    """A process that runs one model after another; a context manager.

    It is started when it is first needed, and ended with the context.
    """

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._exits = contextlib.ExitStack()
        self._process: Process | None = None
        self._runs = 0

    def __enter__(self) -> Self:
        self._scratch = self._exits.enter_context(fs.scratch_directory())
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def choose_device(self, device: Device, *, low_cpu_mem: bool) -> str:
        """Where torch is to run a model, as `device.choose_device` finds it."""
        answer = next(self._ask("", {"device": device, "low_cpu_mem": low_cpu_mem}))
        return str(answer["device"])

    def generate(
        self,
        checkpoint: Checkpoint,
        *,
        question: str,
        prompt: str | None = None,
        device: str = "cpu",
        max_new_tokens: int = 32,
        low_cpu_mem: bool = False,
        on_text: Callable[[str], None] = lambda _: None,
    ) -> Smoke:
        """Let a model answer, as `generate.generate` does it over there.

        No code from the checkpoint runs, nothing is fetched.
        Raises: ModelQuantised; as `generate.generate`; what reading the checkpoint meets.
        """
        config = checkpoint.config
        if any(config.get(name) for name in QUANTISED):
            raise ModelQuantised(source=checkpoint.label)
        self._runs += 1
        folder = self._scratch / f"model-{self._runs}"
        with fs.translated_write_errors(folder):
            folder.mkdir()
            left = _hand_on(checkpoint, folder)
        request = {
            "label": checkpoint.label,
            "folder": str(folder),
            "left": left,
            "model_type": config.get("model_type"),
            "tensors": [_facts(each.info) for each in checkpoint.tensors.values()],
            "question": question,
            "prompt": prompt,
            "device": device,
            "max_new_tokens": max_new_tokens,
            "low_cpu_mem": low_cpu_mem,
        }
        for answer in self._ask(checkpoint.label, request):
            if "read" in answer:
                self._send_tensor(checkpoint, answer["read"])
            elif "text" in answer:
                on_text(answer["text"])
            else:
                did = answer["smoke"]
                lists = {name: tuple(did[name]) for name in ("tokens", "left")}
                return Smoke(**{**did, **lists})
        raise RuntimeError  # answers end with a result or an error

    def _ask(self, label: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers to a request.

        Raises: what the process tells; OutOfMemory, ModelNotRunnable, if it ends by itself.
        """
        process = self._started()
        self._send(json.dumps(request).encode() + b"\n")
        while line := process.answers.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                kind: type[WeightsmithError] = getattr(errors, answer["error"])
                raise kind(context=answer["context"], hint=answer["hint"], **answer["values"])
            yield answer
        raise self._ended(process, label)

    def _started(self) -> Process:
        if self._process is None:
            for package in _NEEDED:
                if importlib.util.find_spec(package) is None:
                    raise ModuleNotFoundError(name=package)
            self._process = start(self._scratch)
            self._exits.callback(self._process.end)
        return self._process

    def _send(self, content: bytes | memoryview) -> None:
        asked = self._started().asked
        with contextlib.suppress(BrokenPipeError):  # it has ended, and how tells why
            asked.write(content)
            asked.flush()

    def _send_tensor(self, checkpoint: Checkpoint, name: str) -> None:
        nbytes = checkpoint.tensors[name].info.nbytes
        block = memoryview(bytearray(min(SPAN_NBYTES, nbytes)))
        for start_at in range(0, nbytes, SPAN_NBYTES):
            part = block[: min(SPAN_NBYTES, nbytes - start_at)]
            checkpoint.read_into(name, start_at, part)
            self._send(part)

    def _ended(self, process: Process, label: str) -> WeightsmithError:
        status = process.wait()
        if hasattr(signal, "SIGKILL") and status == -signal.SIGKILL:
            # Only a system that has run out of memory ends it by this signal.
            return OutOfMemory(source=label)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        said = (self._scratch / SAID).read_text(encoding="utf-8", errors="replace").splitlines()
        reason = f"its process ended with {how}"
        return ModelNotRunnable(source=label, reason=reason, context=said[-1:])


def _facts(info: TensorInfo) -> tuple[object, ...]:
    return info.name, info.dtype, info.shape


def _hand_on(checkpoint: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Write what may be known of the sidecars; returns the settings that may not.

    Raises: JsonInvalid; what reading them meets.
    """
    left: tuple[str, ...] = ()
    for name in checkpoint.sidecars:
        if name in {_CONFIG, _GENERATION, _SETTINGS}:
            path = checkpoint.directory / name
            found = parse_json(checkpoint.read_sidecar(name), path, bom_allowed=True)
            settings = found if isinstance(found, dict) else {}
            if name == _SETTINGS:
                kept = safe_settings(settings)
            else:
                kept, skipped = safe_config(settings)
                left += skipped if name == _CONFIG else ()
            fs.write_scratch(folder / name, json.dumps(kept).encode())
        elif name in _VOCABULARIES:
            fs.write_scratch(folder / name, checkpoint.read_sidecar(name))
    return left
