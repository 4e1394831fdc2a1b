"""Feed every reader with what no writer makes: ``make fuzz``.

    python -m tests.fuzz [--target NAME ...] [--seconds 600] [--seed 0] [--replay FILE]

One process a target, two at a time. It ends with 1 if anything was found.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.fuzz.child import judge
from tests.fuzz.differences import COMPARED, MEANT, key
from tests.fuzz.targets import TARGETS
from tests.support.paths import ROOT

PLACE: Final = ROOT / "build" / "fuzz"
WORKERS: Final = 2


def main() -> int:
    """Run the targets that are asked for, and print a table of counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", action="append", choices=[*TARGETS], default=[])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path)
    asked = parser.parse_args()
    if asked.replay:
        accepted = judge(TARGETS[asked.target[0]].run, asked.replay.read_bytes())
        print("accepted" if accepted else "refused by name")
        return 0
    names = asked.target or [*TARGETS]
    with ThreadPoolExecutor(WORKERS) as pool:
        said = list(pool.map(lambda name: _fuzz(name, asked.seconds, asked.seed), names))
    print(f"{'target':<16}{'inputs':>12}{'accepted':>12}{'compared':>12}{'seconds':>9}  found")
    for each in said:
        compared = each["differences"].get(COMPARED, 0)
        counts = f"{each['executed']:>12,}{each['accepted']:>12,}"
        counts += f"{compared:>12,}{each['seconds']:>9}"
        print(f"{each['target']:<16}{counts}  {each['found'] or '-'}")
    total, found = sum(each["executed"] for each in said), [e for e in said if e["found"]]
    print(f"{'all':<16}{total:>12,}")
    if not all(each["guided"] for each in said):
        print("not guided by coverage: atheris is not installed")
    for what in dict.fromkeys(map(key, MEANT)):
        count = sum(each["differences"].get(what, 0) for each in said)
        if count:
            print(f"{count:,} times {what}")
    for each in found:
        path = each["found"].rpartition("(")[2].rstrip(")")
        print(f"again: python -m tests.fuzz --target {each['target']} --replay {path}")
    return 1 if found else 0


def _fuzz(name: str, seconds: int, seed: int) -> dict[str, Any]:
    """What the process of a target said at its end; its own end, if it said nothing."""
    line = [sys.executable, "-m", "tests.fuzz.child", name, str(seconds), str(seed), str(PLACE)]
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.log").open("wb") as log:
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, check=False)
    lines = [
        each for each in done.stdout.decode("utf-8", "replace").splitlines() if each[:1] == "{"
    ]
    if lines:
        said: dict[str, Any] = json.loads(lines[-1])
        print(
            f"{name}: {said['executed']:,} inputs, {said['found'] or 'nothing found'}", flush=True
        )
        return said
    found = f"the process ended with {done.returncode} ({PLACE / f'{name}.log'})"
    nothing = {"guided": True, "executed": 0, "accepted": 0, "seconds": 0, "differences": {}}
    return {"target": name, "found": found, **nothing}


if __name__ == "__main__":
    sys.exit(main())
