"""A plan in a file, with all that another process needs to carry out a share of it.

The plan in the file is only compared, and never trusted. A process that carries it out plans anew,
by the call that the file holds and from the headers of the inputs as they are there. It makes
something only if the same plan comes out, so an edited file is refused.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.options import Bindings, Options
from weightsmith.errors import (
    DamagedInput,
    InputsNotPlanned,
    PlanDamaged,
    TargetExists,
    VersionsDiffer,
)
from weightsmith.formats.strict_json import parse_json
from weightsmith.ops.call import Call
from weightsmith.plan.model import Plan
from weightsmith.version import __version__

SCHEMA: Final = "weightsmith/saved-plan@1"
_BEGINS: Final = b'{"call":'
"""How all saved plans begin, whichever version wrote them: their keys are sorted."""
LIMIT_NBYTES: Final = 500_000_000
_PARTS: Final = {"schema", "made_by", "call", "times", "options", "plan", "seal"}
_MADE_BY: Final = f"weightsmith {__version__}"


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan, the call that planned it, and what its inputs were."""

    plan: Plan
    call: Call
    times: Mapping[str, Mapping[str, int]]
    """By role and file, the time of modification in ns; of inputs that the hub's commit pins, and
    which each machine fetches by itself, none.
    """
    options: Options

    @classmethod
    def of(cls, plan: Plan, bindings: Bindings, call: Call, options: Options) -> "SavedPlan":
        """What is known when it is planned."""
        return cls(plan, call, _times(bindings.inputs), options)

    def to_bytes(self) -> bytes:
        """The file's content: canonical JSON, sealed with a digest of itself."""
        document = self._document()
        return _canonical({**document, "seal": bytes_digest(_canonical(document))})

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "made_by": _MADE_BY,
            "call": self.call.to_document(),
            "times": {role: dict(files) for role, files in self.times.items()},
            "options": asdict(self.options),
            "plan": self.plan.to_document(),
        }

    def write(self, path: Path) -> None:
        """Store it durably, in place of another saved plan.

        Raises: TargetExists, where something else is there: a file of a model, say.
        """
        if os.path.lexists(path) and not _is_saved_plan(path):
            hint = "choose another name for the plan"
            raise TargetExists(target=path, reason="it is not a saved plan", hint=hint)
        fs.write_durably(path, self.to_bytes())
        fs.sync_directory(Path(os.path.abspath(path)).parent)  # noqa: PTH100

    def require_same(self, plan: Plan, bindings: Bindings, file: Path, *, whole: bool) -> None:
        """Compare what was planned anew with what was saved in `file`; all of it, where the `whole`
        output is to be published, and else what its weight files follow from.

        Raises: InputsNotPlanned.
        """
        named = {each.role: each for each in plan.inputs}
        for ours in self.plan.inputs:
            found = named.get(ours.role)
            if found is None or found != ours:
                now = {each.name: each for each in found.files} if found is not None else {}
                changed = [each.name for each in ours.files if now.get(each.name) != each]
                reason = "names, sizes, headers or commit are others"
                raise self._differs(bindings, ours.role, file, reason, changed)
        times = _times(bindings.inputs)
        for role, files in self.times.items():
            then, now_at = dict(files), dict(times.get(role, {}))
            if then != now_at:
                changed = [name for name in then if now_at.get(name) != then[name]]
                reason = "its files have other times of modification"
                raise self._differs(bindings, role, file, reason, changed)
        same = self.plan.shards == plan.shards and (
            not whole
            or {s.name: s.digest for s in self.plan.sidecars}
            == {s.name: s.digest for s in plan.sidecars}
        )
        if not same:
            reason = "what beside their names and sizes decides the result is another"
            raise InputsNotPlanned(source="an input", plan=file, reason=reason)

    @staticmethod
    def _differs(
        bindings: Bindings, role: str, file: Path, reason: str, changed: list[str]
    ) -> InputsNotPlanned:
        checkpoint = bindings.inputs.get(role)
        label = role if checkpoint is None else checkpoint.label
        return InputsNotPlanned(source=label, plan=file, reason=reason, context=changed)


def read_saved_plan(path: Path) -> SavedPlan:
    """The plan that lies in a file.

    Raises: SourceNotFound, SourceUnreadable; PlanDamaged, for whatever is not as it was saved;
    VersionsDiffer, for one of another version of weightsmith.
    """
    return parse_saved_plan(fs.read_small(path, LIMIT_NBYTES), path)


def parse_saved_plan(raw: bytes, path: Path) -> SavedPlan:
    """The plan of these bytes; `path` is for messages.

    Raises: PlanDamaged, VersionsDiffer.
    """
    try:
        document = parse_json(raw, path)
    except DamagedInput as error:
        raise PlanDamaged(file=path, reason=error) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise PlanDamaged(file=path, reason=f"its schema is not {SCHEMA}")
    # Checked first: a plan of another version may have other parts without being damaged.
    if (made_by := document.get("made_by")) != _MADE_BY:
        raise VersionsDiffer(what=f"{path} was saved by", theirs=made_by, ours=_MADE_BY)
    if document.keys() != _PARTS:
        raise PlanDamaged(file=path, reason="it has other parts")
    seal = document.pop("seal")
    if seal != bytes_digest(_canonical(document)):
        raise PlanDamaged(file=path, reason="it was changed since")
    try:
        saved = SavedPlan(
            Plan.from_document(document["plan"]),
            Call.from_document(document["call"]),
            document["times"],
            _options(document["options"]),
        )
        # A document of ours comes out the same when it is written again, types and order included.
        is_ours = saved._document() == document  # noqa: SLF001  (of this class)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PlanDamaged(file=path, reason=f"not a plan: {error}") from error
    if not is_ours:
        raise PlanDamaged(file=path, reason="it is spelt in another way")
    return saved


def _options(document: Any) -> Options:
    """Raises: ValueError, KeyError, TypeError, AttributeError."""
    types = {field.name: type(getattr(Options(), field.name)) for field in fields(Options)}
    if {name: type(value) for name, value in document.items()} != types:
        raise ValueError("its options are others")
    return Options(**document)


def _times(inputs: Mapping[str, Checkpoint]) -> dict[str, dict[str, int]]:
    return {
        role: {file.name: file.mtime_ns for file in each.files}
        for role, each in inputs.items()
        if not each.origin
    }


def _is_saved_plan(path: Path) -> bool:
    if not path.is_file():  # to open a FIFO would wait
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINS)) == _BEGINS
    except OSError:
        return False


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
