"""The world of one command, and the one judge of what is left of it after a disturbance."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.torture.bench import TOKEN, WHO, Bench, Ended
from tests.torture.commands import Command
from tests.torture.state import State, below, differences, state_of

INTERNAL: Final = 70
KNOWN_EXITS: Final = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 129, 130})
"""Of a command line that is right, on a system that is not; 2 would blame the line."""


_LIBRARYS_TRIAL: Final = re.compile(
    r"Exception ignored in: <finalize object.*?\n\w+: [^\n]*/tmp\w{8}'\n", re.DOTALL
)
"""The hub library tries whether links can be made; on a failing medium its tidying up fails too."""


class World:
    """A command's inputs and area, and what the area holds before and after it."""

    def __init__(self, bench: Bench, command: Command) -> None:
        """Set it up, and run the command undisturbed."""
        self.bench = bench
        self.command = command
        self.inputs = bench.world / "inputs" / command.name
        self.pristine = bench.home / "pristine" / command.name
        for folder in (self.inputs, self.pristine):
            folder.mkdir(parents=True)
        bench.lay_out(None)
        bench.hub.forget()
        bench.hub.accounts = {TOKEN: {WHO}}
        command.prepare(bench, self.inputs, self.pristine)
        self._repositories = {*bench.hub.repos}
        self.lay_out()
        self._inputs_before = state_of(self.inputs, times=True)
        self.before = self.area()
        ended = self.run()
        if ended.exit:
            raise RuntimeError(f"{command.name}: {ended.said}")
        self.counts = ended.counts
        self.after = self.area()
        self._remote_after = self._remote()

    @property
    def target(self) -> Path:
        """What the command makes at once."""
        return self.bench.area / self.command.whole

    def lay_out(self) -> None:
        """All as before the command."""
        self.bench.lay_out(self.pristine)
        self._forget()

    def fill(self) -> None:
        """All as before the command, in an area that is empty."""
        self.bench.fill(self.pristine)
        self._forget()

    def _forget(self) -> None:
        hub = self.bench.hub
        hub.objects.clear()
        for name in [*hub.repos]:
            if name not in self._repositories:
                del hub.repos[name]

    def area(self) -> State:
        """What the area holds now."""
        later = re.compile(self.command.for_later or "(?!)")
        found = state_of(self.bench.area)
        return {path: each for path, each in found.items() if not later.fullmatch(path)}

    def run(
        self, *, more: Sequence[str] = (), afresh: Mapping[str, str] | None = None, **request: Any
    ) -> Ended:
        """Run the command as things are, with `more` words; `request` as in `server._be`.

        `afresh`: in a new process with this environment.
        """
        words = [*self.command.words(self.bench), *more]
        if afresh is not None:
            return self.bench.run_afresh(words, **afresh)
        return self.bench.run(words, **request)

    def disturbed(self, **request: Any) -> list[str]:
        """Run the command from the start with a disturbance; what is wrong then, as sentences."""
        self.lay_out()
        return self.judge(self.run(**request))

    def judge(
        self, ended: Ended, *, tidy: bool = True, after: State | None = None, **again: Any
    ) -> list[str]:
        """What is wrong after a run that ended like this, and after the same command once more."""
        return self.judge_end(ended, tidy=tidy, after=after) + self.finish(after=after, **again)

    def judge_end(
        self,
        ended: Ended,
        *,
        tidy: bool = True,
        before: State | None = None,
        after: State | None = None,
    ) -> list[str]:
        """What is wrong after a run that ended like this; `tidy`: it could delete what it wanted
        to.
        """
        wrong = self.wrong_end(ended)
        wrong += self.wrong_now(finished=ended.exit == 0, before=before, after=after)
        if ended.exit >= 0 and tidy:
            left = [path for path in below(self.area(), "tmp") if path != "tmp"]
            wrong += [f"left in TMPDIR: {path}" for path in left]
        return wrong

    def finish(self, *, after: State | None = None, **again: Any) -> list[str]:
        """What is wrong after the same command, undisturbed, on what there is."""
        ended = self.run(**again)
        wrong = [f"again: {each}" for each in self.wrong_end(ended)]
        if ended.exit != 0:
            wrong.append(f"again: exit {ended.exit}: {ended.said[-600:]}")
            return wrong
        wrong += [f"again: {each}" for each in differences(self.area(), after or self.after)]
        if self._remote() != self._remote_after:
            wrong.append("again: the hub has something else")
        return wrong + self.wrong_inputs()

    def wrong_now(
        self, *, finished: bool = False, before: State | None = None, after: State | None = None
    ) -> list[str]:
        """What of the inputs, the target and other files is neither as before nor as after."""
        before, after = before or self.before, after or self.after
        wrong, now = self.wrong_inputs(), self.area()
        whole = self.command.whole
        if whole:
            wanted = [below(after, whole)]
            if not finished:
                wanted.append(below(before, whole))
            found = below(now, whole)
            aside = below(now, f".{whole}.weightsmith-old")
            if found not in wanted and (finished or found or not _is_moved(aside, wanted[-1])):
                told = differences(found, wanted[0])
                wrong.append(f"{whole} is a mix: " + "; ".join(told[:5]))
        states = (after,) if finished and not whole else (before, after)
        for path in sorted({path for state in states for path in state}):
            if whole and f"{path}/".startswith(f"{whole}/"):
                continue
            if all(now.get(path) != state.get(path) for state in states):
                wrong.append(f"{path} is neither old nor new")
        there = self._remote()
        if there != self._remote_after and (finished or there is not None):
            wrong.append("the hub has neither nothing nor the whole commit")
        return wrong

    def wrong_inputs(self) -> list[str]:
        """What of the inputs is not as it was."""
        found = differences(state_of(self.inputs, times=True), self._inputs_before)
        return [f"input {each}" for each in found]

    @staticmethod
    def wrong_end(ended: Ended) -> list[str]:
        wrong = []
        if ended.hung:
            wrong.append("it hung")
        elif ended.exit >= 0 and ended.exit not in KNOWN_EXITS:
            wrong.append(f"exit {ended.exit}: {ended.said[-2500:]}")
        elif re.search("Traceback|Exception ignored", _LIBRARYS_TRIAL.sub("", ended.said)):
            wrong.append(f"a traceback: {ended.said[-2500:]}")
        return wrong

    def _remote(self) -> Mapping[str, bytes] | None:
        """The files of the repository that is pushed to; None where no commit has any."""
        repo = self.bench.hub.repos.get(self.command.remote)
        if repo is None:
            return None
        files = repo.commits[repo.at("main")]
        return {k: v for k, v in files.items() if k != ".gitattributes"} or None


def _is_moved(aside: State, whole: State) -> bool:
    """Whether what was to be replaced stands whole under the name that it is moved to."""

    def entries(state: State) -> list[object]:
        return [(path.partition("/")[2], each) for path, each in state.items()]

    return bool(whole) and entries(aside) == entries(whole)
