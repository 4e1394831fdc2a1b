"""Run one operation of the library in a process of its own, and tell what came of it as JSON.

The hub library reads its environment when it is imported, so every client is a fresh process.
"""

import contextlib
import importlib
import json
import sys
import time
from typing import Any

from tests.loopback import refuse_far_connections
from weightsmith.errors import WeightsmithError
from weightsmith.hub import fetch


class Notes:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.phases: list[list[Any]] = []

    def begin(self, phase: str, total_nbytes: int) -> None:
        self.phases.append([phase, total_nbytes, 0])

    def advance(self, nbytes: int) -> None:
        self.phases[-1][2] += nbytes

    def note(self, text: str) -> None:
        self.said.append(text)


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Plan, and unless the task is only to plan, do it."""
    module = importlib.import_module(f"weightsmith.ops.{task['op']}")
    notes = Notes()
    try:
        plan = getattr(module, f"plan_{task['op']}")(*task["args"], **task["options"])
        value = plan if task["dry"] else getattr(module, task["op"])(plan, notes)
    except WeightsmithError as error:
        return {
            "reference": error.reference,
            "code": error.exit_code,
            "message": str(error),
            "context": list(error.context),
            "hint": error.hint_text,
            "notes": notes.said,
        }
    return {**value.to_json(), "code": 0, "notes": notes.said, "phases": notes.phases}


if __name__ == "__main__":
    fetch.FIRST_WAIT_S = 0.001
    wait = time.sleep
    time.sleep = lambda seconds: wait(seconds / 1000)
    sys.addaudithook(refuse_far_connections)
    task = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        outcome = main(task)
    json.dump(outcome, sys.stdout)
