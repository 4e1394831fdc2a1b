"""One target in a process of its own, guided by coverage where atheris is installed.

    python -m tests.fuzz.child TARGET SECONDS SEED FOLDER

It prints one JSON line at its end. An input that shows a defect lies in FOLDER/found, with what was
raised beside it, and the process ends with 1.
"""

import atexit
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

LIMIT_NBYTES: Final = 2_500_000_000
"""Of address space that it may take, beyond what the process has when it begins."""
PATIENCE_S: Final = 60
"""That an input which takes no processor time may take besides."""
MAX_NBYTES: Final = 300_000
"""Of an input."""
CORPUS: Final = Path(__file__).parent / "corpus"


class Hangs(BaseException):
    """An input took longer than it may."""


def judge(run: Callable[[bytes], object], raw: bytes) -> bool:
    """Feed one input; whether it was accepted. Raises whatever is no narrow error of ours."""
    from weightsmith.errors import WeightsmithError

    try:
        run(raw)
    except WeightsmithError as error:
        if error.exit_code == WeightsmithError.exit_code:
            raise AssertionError(error) from error
        return False
    return True


def kept(target: str) -> list[bytes]:
    """Inputs of the repository: what once showed a defect, and what is hard to come by."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


class Session:
    """A target being fuzzed for some seconds."""

    def __init__(self, target: Any, seconds: float, place: Path, differences: Any) -> None:
        """Nothing is fed yet."""
        self._target = target
        self._seconds = seconds
        self._place = place
        self._differences = differences
        self._began = time.monotonic()
        self._executed = self._accepted = 0
        self.guided = False
        signal.signal(signal.SIGALRM, self._give_up)
        signal.signal(signal.SIGPROF, self._give_up)

    def feed(self, raw: bytes) -> None:
        """One input; ends the process when the time is over, or with what it shows."""
        if time.monotonic() - self._began > self._seconds:
            self._end()
        self._executed += 1
        # Processor time, so that a busy machine is no defect; and of whoever only waits, the clock.
        signal.setitimer(signal.ITIMER_PROF, self._target.limit_s)
        signal.alarm(self._target.limit_s + PATIENCE_S)
        try:
            self._accepted += judge(self._target.run, raw)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is a defect)
            self._stop_clocks()
            self._end(self._keep(raw, error))
        finally:
            self._stop_clocks()

    @staticmethod
    def _stop_clocks() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)

    @staticmethod
    def _give_up(*_: object) -> NoReturn:
        raise Hangs

    def _keep(self, raw: bytes, error: BaseException) -> str:
        name = f"{self._target.name}-{hashlib.sha256(raw).hexdigest()[:12]}"
        path = self._place / "found" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
        return f"{type(error).__name__}: {str(error)[:200]} ({path})"

    def _end(self, found: str = "") -> NoReturn:
        said = {
            "target": self._target.name,
            "guided": self.guided,
            "seconds": round(time.monotonic() - self._began),
            "executed": self._executed,
            "accepted": self._accepted,
            "differences": self._differences,
            "found": found,
        }
        print(json.dumps(said), flush=True)
        atexit._run_exitfuncs()  # atheris has its own way to end, and this is not it
        os._exit(1 if found else 0)


def bound_memory() -> None:
    """An input that wants more than it may meets MemoryError, which is no error of ours."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + LIMIT_NBYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Begin with the seeds and what the repository keeps."""
    name, seconds, seed, folder = sys.argv[1:]
    # Not among what development installs: it has no wheel for some versions of Python.
    atheris: Any = import_module("atheris") if find_spec("atheris") else None
    with atheris.instrument_imports(include=["weightsmith"]) if atheris else nullcontext():
        from tests.fuzz import differences, targets
    target, place = targets.TARGETS[name], Path(folder)
    first = [*target.seeds(), *kept(name)]
    session = Session(target, float(seconds), place, differences.seen)
    for raw in first:
        judge(target.run, raw)  # the first ones import what the reader needs, which takes its time
    bound_memory()
    if atheris is None:
        _unguided(session, first, target, random.Random(int(seed)))
    session.guided = True
    corpus = place / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(first):
        (corpus / f"seed-{number}").write_bytes(raw)

    def other(raw: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.2:
            return bytes(atheris.Mutate(raw, most))
        # What was refused stays refused, whatever is changed besides: half begin with a sound one.
        begun = chance.choice(first) if chance.random() < 0.5 else raw
        return bytes(target.mutator(begun, chance)[:most])

    flags = [f"-seed={int(seed) + 1}", f"-max_len={MAX_NBYTES}", "-timeout=60", "-verbosity=0"]
    flags += ["-rss_limit_mb=6000", f"-artifact_prefix={place}/"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], session.feed, custom_mutator=other)
    atheris.Fuzz()


def _unguided(session: Session, first: list[bytes], target: Any, chance: random.Random) -> NoReturn:
    """Inputs made of the first ones, and of some that came of those."""
    pool = [*first, b""]
    while True:
        raw = chance.choice(pool)
        for _ in range(chance.choice((1, 1, 2, 3))):
            raw = target.mutator(raw, chance)[:MAX_NBYTES]
        session.feed(raw)
        if len(pool) < 500 and chance.random() < 0.02:
            pool.append(raw)


if __name__ == "__main__":
    main()
