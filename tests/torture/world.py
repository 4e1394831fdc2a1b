"""The world of one command, and the one judge of what is left of it after a disturbance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.torture.bench import TOKEN, WHO, Bench, Ended
from tests.torture.commands import Command
from tests.torture.state import State, below, differences, state_of

INTERNAL: Final = 70
KNOWN_EXITS: Final = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 129, 130})
"""Of a command line that is right, on a system that is not; 2 would blame the line."""


class World:
    """A command's inputs and area, and what the area holds before and after it."""

    def __init__(self, bench: Bench, command: Command) -> None:
        """Set it up, and run the command undisturbed."""
        self.bench = bench
        self.command = command
        self.inputs = bench.world / "inputs" / command.name
        self._pristine = bench.home / "pristine" / command.name
        for folder in (self.inputs, self._pristine):
            folder.mkdir(parents=True)
        bench.lay_out(None)
        bench.hub.forget()
        bench.hub.accounts = {TOKEN: {WHO}}
        command.prepare(bench, self.inputs, self._pristine)
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
        self.bench.lay_out(self._pristine)
        hub = self.bench.hub
        hub.objects.clear()
        for name in [*hub.repos]:
            if name not in self._repositories:
                del hub.repos[name]

    def area(self) -> State:
        """What the area holds now."""
        return state_of(self.bench.area)

    def run(self, **request: Any) -> Ended:
        """Run the command as things are; `request` as in `server._be`."""
        return self.bench.run(self.command.words(self.bench), **request)

    def disturbed(self, **request: Any) -> list[str]:
        """Run the command from the start with a disturbance; what is wrong then, as sentences."""
        self.lay_out()
        return self.judge(self.run(**request))

    def judge(self, ended: Ended, *, tidy: bool = True, **again: Any) -> list[str]:
        """What is wrong after a run that ended like this, and after the same command once more;
        `tidy`: it could delete what it wanted to.
        """
        wrong = self._wrong_end(ended)
        wrong += self.wrong_now(finished=ended.exit == 0)
        if ended.exit >= 0 and tidy:
            left = [path for path in below(self.area(), "tmp") if path != "tmp"]
            wrong += [f"left in TMPDIR: {path}" for path in left]
        return wrong + self.finish(**again)

    def finish(self, **again: Any) -> list[str]:
        """What is wrong after the same command, undisturbed, on what there is."""
        ended = self.run(**again)
        wrong = [f"again: {each}" for each in self._wrong_end(ended)]
        if ended.exit != 0:
            wrong.append(f"again: exit {ended.exit}: {ended.said[-600:]}")
            return wrong
        wrong += [f"again: {each}" for each in differences(self.area(), self.after)]
        if self._remote() != self._remote_after:
            wrong.append("again: the hub has something else")
        return wrong + self._wrong_inputs()

    def wrong_now(self, *, finished: bool = False) -> list[str]:
        """What of the inputs, the target and other files is neither as before nor as after."""
        wrong, now = self._wrong_inputs(), self.area()
        whole = self.command.whole
        if whole:
            wanted = [below(self.after, whole)]
            if not finished:
                wanted.append(below(self.before, whole))
            found = below(now, whole)
            aside = below(now, f".{whole}.weightsmith-old")
            if found not in wanted and (finished or found or not _is_moved(aside, wanted[-1])):
                told = differences(found, wanted[0])
                wrong.append(f"{whole} is a mix: " + "; ".join(told[:5]))
        states = (self.after,) if finished and not whole else (self.before, self.after)
        for path in sorted({path for state in states for path in state}):
            if whole and f"{path}/".startswith(f"{whole}/"):
                continue
            if all(now.get(path) != state.get(path) for state in states):
                wrong.append(f"{path} is neither old nor new")
        there = self._remote()
        if there != self._remote_after and (finished or there is not None):
            wrong.append("the hub has neither nothing nor the whole commit")
        return wrong

    def _wrong_inputs(self) -> list[str]:
        found = differences(state_of(self.inputs, times=True), self._inputs_before)
        return [f"input {each}" for each in found]

    @staticmethod
    def _wrong_end(ended: Ended) -> list[str]:
        wrong = []
        if ended.hung:
            wrong.append("it hung")
        elif ended.exit >= 0 and ended.exit not in KNOWN_EXITS:
            wrong.append(f"exit {ended.exit}: {ended.said[-1500:]}")
        elif "Traceback" in ended.said or "Exception ignored" in ended.said:
            wrong.append(f"a traceback: {ended.said[-1500:]}")
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
