"""What a section of the benchmark is: what it needs, and what it finds."""

import filecmp
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench import contest, models
from tests.bench.contest import Contest
from tests.bench.measure import Command
from tests.bench.models import Side, Size
from tests.bench.report import Goal

MIB: Final = 1 << 20
WEIGHTSMITH: Final = (sys.executable, "-m", "weightsmith")


class WrongResult(Exception):
    """What we made is not what it should be: it has no speed."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Where and how thoroughly to measure."""

    work: Path
    rounds: int
    """Counted rounds against copying."""
    peer_rounds: int
    """Counted rounds of all else."""
    with_peers: bool
    """Whether tools that must be installed take part."""
    quick: bool
    """Whether it is only to see that all of it runs."""
    full: str = "full"
    """The size of the models that are full-sized otherwise."""

    @property
    def out(self) -> Path:
        """Where all that the commands make goes."""
        return self.work / "out"

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.work / "log.txt"

    def size(self, name: str) -> Size:
        """The size of this name, or the smallest if this is only to see that it runs."""
        wanted = self.full if name == "full" else name
        return models.SIZES["smoke" if self.quick else wanted]

    def input(self, size: str, kind: str) -> Path:
        """An input of this size."""
        return models.folder(self.work, self.size(size), kind)

    def hold(
        self,
        title: str,
        commands: Sequence[Command],
        *,
        rounds: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> Contest:
        """Run the commands in turn, `peer_rounds` times unless told otherwise."""
        counted = self.peer_rounds if rounds is None else rounds
        return contest.hold(title, commands, counted, self.log, tell=tell, check=check)

    def weightsmith(self, *arguments: str | Path, made: str = "target") -> Command:
        """A run of ours, which makes ``out/MADE``."""
        target = self.out / made
        return Command(
            name="weightsmith",
            argv=[*WEIGHTSMITH, *map(str, arguments)],
            makes=(target, target.with_name(f".{target.name}.weightsmith-partial")),
        )

    def check(self, size: str, side: Side) -> Callable[[], None]:
        """Whether ``out/target`` holds the weights of `side`.

        Raises: WrongResult, when called.
        """
        return self._check_by("tests.bench.models", size, side)

    def check_trained(self, size: str, kind: str) -> Callable[[], None]:
        """Whether ``out/target`` holds what `tests.bench.trained` says that it should.

        Raises: WrongResult, when called.
        """
        return self._check_by("tests.bench.trained", size, kind)

    def _check_by(self, module: str, size: str, what: str) -> Callable[[], None]:
        """Whether ``python -m MODULE check`` finds ``out/target`` right."""
        target = self.out / "target"
        argv = [sys.executable, "-m", module, "check", self.size(size).name, what, str(target)]

        def check() -> None:
            if subprocess.run(argv, check=False).returncode:
                raise WrongResult(f"{target} does not hold the weights of {what}")

        return check

    def check_files(self, expected: Path) -> Callable[[], None]:
        """Whether ``out/target`` holds the files of `expected`, byte for byte.

        Raises: WrongResult, when called.
        """

        def check() -> None:
            names = [path.name for path in expected.iterdir()]
            _, wrong, missing = filecmp.cmpfiles(expected, self.out / "target", names, False)
            if wrong or missing:
                raise WrongResult(f"wrong in {self.out / 'target'}: {[*wrong, *missing]}")

        return check


@dataclass(frozen=True, slots=True)
class Findings:
    """What a section found."""

    contests: Sequence[Contest] = ()
    goals: Sequence[Goal] = ()
    tables: Sequence[str] = ()
    """What does not fit into the table of contests."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True, slots=True)
class Section:
    """Some contests that belong together, and can be held alone."""

    name: str
    about: str
    inputs: Mapping[str, Sequence[str]]
    """Kinds of input by size, as `build` knows them."""
    find: Callable[[Setup], Findings]
    copies: int = 1
    """Models, of the largest of these sizes, that lie in ``out`` at a time."""
    environments: Sequence[str] = ()
    """Of `peers`."""
    is_optional: bool = False
    """Whether there is something to measure without these."""


def tell(line: str) -> None:
    """Say something that is not a result."""
    print(line, file=sys.stderr, flush=True)


def peak_mib(found: Contest) -> float:
    """Our peak memory."""
    return found.spread(0, "peak_bytes").median / MIB
