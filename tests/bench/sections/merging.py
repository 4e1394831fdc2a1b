"""merge-lora beside peft's ``merge_and_unload`` and ``save_pretrained``."""

from typing import Final

from tests.bench import peers
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup

SPEED_LIMIT: Final = 1 / 3
MEMORY_LIMIT: Final = 1 / 10


def ours(setup: Setup) -> Command:
    """weightsmith on the adapter of rank 16."""
    base, adapter = setup.input("full", "base-safetensors"), setup.input("full", "adapter")
    return setup.weightsmith(
        "merge-lora", "--base", base, "--lora", adapter, "--target", setup.out / "target"
    )


def find(setup: Setup) -> Findings:
    base, adapter = setup.input("full", "base-safetensors"), setup.input("full", "adapter")
    made = setup.out / "peft"
    program = ["python", str(peers.RIVALS / "peft_merge.py"), str(base), str(adapter), str(made)]
    peer = peers.command("peft merge_and_unload", setup.work, "peft", program, made)
    held = setup.hold(
        "merge-lora, r = 16, all linear layers",
        [ours(setup), peer],
        check=setup.check("full", "merged"),
    )
    speed, memory = (held.ratio(quantity).median for quantity in ("wall_s", "peak_bytes"))
    goals = [
        Goal(f"{held.title}: time over theirs", speed, SPEED_LIMIT),
        Goal(f"{held.title}: peak memory over theirs", memory, MEMORY_LIMIT),
    ]
    return Findings([held], goals)


SECTIONS: Final = (
    Section(
        "merge-lora",
        "merge-lora, rank 16 on all linear layers, beside peft",
        {"full": ("base-safetensors", "adapter")},
        find,
        copies=1,
        environments=("peft",),
    ),
)
