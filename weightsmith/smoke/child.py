"""The process that runs models: it is given values, and can reach neither the network nor files of
the checkpoint.

Requests and answers are JSON, a line each; of a tensor that it asks for, the bytes follow.

    {"device": ..., "low_cpu_mem": ...}                 ->  {"device": "cpu"}
    {"label", "folder", "tensors", "model_type", ...}   ->  any number of {"text": ...} and of
                                                            {"read": NAME}, which is answered with
                                                            the bytes; then {"smoke": {...}}
    both                                                ->  or {"error": CLASS, ...}
"""

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

from weightsmith.errors import ModelNotRunnable, WeightsmithError
from weightsmith.formats.tensors import TensorInfo
from weightsmith.smoke.device import choose_device
from weightsmith.smoke.generate import generate
from weightsmith.smoke.load import in_a_line, require_known
from weightsmith.smoke.read_tokenizer import NETWORK
from weightsmith.smoke.weights import Given

HIDDEN: Final = ("kernels",)
"""Packages that fetch native code and import it; here they are not to be found."""


def main() -> None:
    """Answer requests until there are no more."""
    # Whoever started us ends us, and says that the run was interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shut_off()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    asked = sys.stdin.buffer
    for line in asked:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = _answer(request, asked, answers)
        except WeightsmithError as error:
            answer = _told(error)
        except Exception as error:  # noqa: BLE001  (a process of its own has nobody else to tell)
            answer = _told(
                ModelNotRunnable(source=request.get("label", ""), reason=in_a_line(error))
            )
        _send(answers, answer)


def shut_off() -> None:
    """Let nothing in this process reach the network, or find a package that would fetch code."""
    for package in HIDDEN:
        sys.modules[package] = None  # type: ignore[assignment]
    sys.addaudithook(_refuse)


def _refuse(event: str, _: object) -> None:
    if event in NETWORK:
        raise PermissionError(f"{event}: a model is run without a network")


def _answer(request: dict[str, Any], asked: IO[bytes], answers: IO[bytes]) -> dict[str, Any]:
    if "label" not in request:
        return {"device": choose_device(request["device"], low_cpu_mem=request["low_cpu_mem"])}
    require_known(request["model_type"])
    tensors = (TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in request["tensors"])
    infos = {info.name: info for info in tensors}

    reading = threading.Lock()

    def read(name: str) -> bytearray:
        block = bytearray(infos[name].nbytes)
        rest = memoryview(block)
        with reading:  # transformers loads tensors in several threads
            _send(answers, {"read": name})
            while rest:
                count = asked.readinto(rest)  # type: ignore[attr-defined]  # it is buffered
                if not count:
                    raise EOFError
                rest = rest[count:]
        return block

    given = Given(request["label"], Path(request["folder"]), tuple(request["left"]), infos, read)
    did = generate(
        given,
        question=request["question"],
        prompt=request["prompt"],
        device=request["device"],
        max_new_tokens=request["max_new_tokens"],
        low_cpu_mem=request["low_cpu_mem"],
        on_text=lambda text: _send(answers, {"text": text}),
    )
    return {"smoke": dataclasses.asdict(did)}


def _told(error: WeightsmithError) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "values": error.values,
        "context": error.context,
        "hint": error.hint_text,
    }


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
