"""Receipts: what a run keeps beside each finished shard, so that a later run need not make it
again.
"""

import json
import platform
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.finite import NonFinite
from weightsmith.engine.inputs import File
from weightsmith.engine.options import Bindings
from weightsmith.engine.staging import Staging
from weightsmith.errors import MachinesDiffer, StagingOfAnotherPlan
from weightsmith.plan.model import Plan, ShardPlan

_CPU_FIELDS: Final = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "CPU implementer",
    "CPU architecture",
    "CPU part",
)
"""What ``/proc/cpuinfo`` says of a processor's type, on x86 and on Arm."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a shard was written and synced, and from exactly what."""

    plan_digest: str
    shard: str
    nbytes: int | None
    """Size of the file; None where there is none to publish, as of a delta that changes nothing."""
    machine: str
    """Type of CPU; matrix products may differ between types."""
    made_from: Mapping[str, list[list[object]]]
    """By role: name, size, header digest, time of modification and time of change of every file
    that the shard's tensors came from.
    """
    digests: Mapping[str, str]
    """Tensor digests by name."""
    encoded: Mapping[str, Any] = field(default_factory=dict)
    """Of a delta's file, what the record will say of it (`encode_file.EncodedFile`)."""
    nonfinite: NonFinite = field(default_factory=dict)
    """The values in it that are no numbers."""

    def write(self, directory: Path) -> None:
        """Store it durably under the shard's name (two durable steps)."""
        document = asdict(self)
        sealed = json.dumps({**document, "seal": _seal(document)}).encode()
        fs.write_durably(directory / f"{self.shard}.json", sealed)


def _seal(document: Mapping[str, Any]) -> str:
    """A digest of all that a receipt says: some of it nothing else would contradict."""
    return bytes_digest(json.dumps(document, sort_keys=True).encode())


def made_from(shard: ShardPlan, inputs: Mapping[str, Checkpoint]) -> dict[str, list[list[object]]]:
    """The identity, now, of the files that a shard's tensors come from."""
    used: dict[str, set[str]] = {}
    for tensor in shard.tensors:
        for each in tensor.inputs:
            used.setdefault(each.role, set()).update(inputs[each.role].files_of(each.info.name))
    return {
        role: [
            [file.name, file.size, file.header_digest, file.mtime_ns, file.ctime_ns]
            for file in inputs[role].files
            if file.name in names
        ]
        for role, names in sorted(used.items())
    }


StillGives = Callable[[ShardPlan, Receipt, Collection[File]], bool]
"""Whether these input files still give what a shard was made of them."""


def kept_receipts(
    plan: Plan,
    bindings: Bindings,
    staging: Staging,
    still_gives: StillGives,
    *,
    anywhere: bool = False,
) -> dict[str, Receipt]:
    """The receipts that an earlier run of the same plan left and that still hold, by shard.

    Of inputs of which only the time of change is another, `still_gives` is asked; not of receipts
    that may come from `anywhere`, where copies of the inputs have times of change of their own.
    Raises: StagingOfAnotherPlan, if an input changed since: its old and new bytes must not mix;
    MachinesDiffer, if receipts from `anywhere` name several types of CPU.
    """
    kept = {}
    for shard in plan.shards:
        receipt = read_receipt(staging.receipts, shard)
        if receipt is None or _nbytes(staging.output / shard.name) != receipt.nbytes:
            continue
        other_machine = not anywhere and receipt.machine != machine(plan)
        if receipt.plan_digest != plan.digest or other_machine:
            raise StagingOfAnotherPlan(staging=staging.path, reason="it was made elsewhere")
        changed, touched = [], []
        for role, files in made_from(shard, bindings.inputs).items():
            count = _lasting(bindings.inputs[role]) if anywhere else -1
            then = receipt.made_from.get(role, [])
            for file in files:
                if file[:count] not in [each[:count] for each in then]:
                    changed.append((role, str(file[0])))
                elif file not in then and not anywhere:
                    touched.append((role, str(file[0])))
        if not changed and touched and not still_gives(shard, receipt, touched):
            changed = touched
        if changed:
            context = [f"{role}: {name}" for role, name in changed]
            raise StagingOfAnotherPlan(
                staging=staging.path, reason="an input changed since", context=context
            )
        kept[shard.name] = receipt
    if anywhere:
        require_one_machine({name: each.machine for name, each in kept.items()})
    return kept


def _lasting(checkpoint: Checkpoint) -> int:
    """How many of the facts about an input's file are the same on another machine that has the same
    file: name, size and header digest of what the hub's commit pins, which each machine fetches by
    itself; of other files the time of modification too.
    """
    return 3 if checkpoint.origin else 4


def require_one_machine(machines: Mapping[str, str]) -> None:
    """Refuse a mixture; by file or node, the type of CPU, or nothing where it does not matter.

    Raises: MachinesDiffer.
    """
    if len(set(machines.values())) > 1:
        names: dict[str, list[str]] = {}
        for name, cpu in machines.items():
            names.setdefault(cpu, []).append(name)
        context = [f"{cpu}: {', '.join(found)}" for cpu, found in names.items()]
        raise MachinesDiffer(count=len(names), context=context)


def _nbytes(path: Path) -> int | None:
    """Size of a file, or None where there is none; no receipt has that of a link or directory."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def read_receipt(directory: Path, shard: ShardPlan) -> Receipt | None:
    """The receipt of a shard, or None where there is none that is whole.

    Raises: SourceUnreadable.
    """
    path = directory / f"{shard.name}.json"
    try:
        document = json.loads(fs.read_if_file(path) or b"")
        seal = document.pop("seal")
        return Receipt(**document) if seal == _seal(document) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def machine(plan: Plan) -> str:
    """The type of CPU where it can matter to a bit of the output; element-wise rules agree
    everywhere.
    """
    return processor() if plan.multiplies else ""


def processor() -> str:
    """The type of CPU; on Linux as the kernel tells it, for Python only knows its instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    fields = dict(line.partition(":")[::2] for line in text.partition("\n\n")[0].splitlines())
    told = {name.strip(): value.strip() for name, value in fields.items()}
    return " ".join([platform.machine(), *(told[name] for name in _CPU_FIELDS if name in told)])
