"""merge-lora beside peft's ``merge_and_unload``, and --dequantize beside transformers."""

from pathlib import Path
from typing import Final

from tests.bench import peers
from tests.bench.contest import Contest
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib

SPEED_LIMIT: Final = 1 / 3
MEMORY_LIMIT: Final = 1 / 10
PEAK_LIMIT_MIB: Final = 320


def ours(setup: Setup) -> Command:
    """weightsmith on the adapter of rank 16."""
    base, adapter = setup.input("full", "base-safetensors"), setup.input("full", "adapter")
    return setup.weightsmith(
        "merge-lora", "--base", base, "--lora", adapter, "--target", setup.out / "target"
    )


def find(setup: Setup) -> Findings:
    base, adapter = setup.input("full", "base-safetensors"), setup.input("full", "adapter")
    held = setup.hold(
        "merge-lora, r = 16, all linear layers",
        [ours(setup), _peft(setup, base, adapter, "float16")],
        check=setup.check("full", "merged"),
    )
    return _beside(held)


def find_experts(setup: Setup) -> Findings:
    """An adapter of all experts of a mixture shaped like Mixtral."""
    base, adapter = setup.input("full", "experts"), setup.input("full", "experts-adapter")
    target = setup.out / "target"
    held = setup.hold(
        "merge-lora, r = 16, fused experts",
        [
            setup.weightsmith("merge-lora", "--base", base, "--lora", adapter, "-o", target),
            _peft(setup, base, adapter, "bfloat16"),
        ],
        check=setup.check_trained("full", "experts"),
    )
    return _beside(held)


def find_fp8(setup: Setup) -> Findings:
    """A model in FP8 beside what transformers makes of it."""
    source, made = setup.input("eighth", "base-fp8"), setup.out / "transformers"
    program = ["python", str(peers.RIVALS / "fp8_dequantize.py"), str(source), str(made)]
    held = setup.hold(
        "convert --dequantize, FP8",
        [
            setup.weightsmith("convert", source, setup.out / "target", "--dequantize"),
            peers.command("transformers, load and save", setup.work, "peft", program, made),
        ],
        check=setup.check_trained("eighth", "fp8"),
    )
    speed = held.ratio("wall_s").median
    goals = [
        Goal(f"{held.title}: time over theirs", speed, SPEED_LIMIT),
        Goal(f"{held.title}: peak memory, MiB", peak_mib(held), PEAK_LIMIT_MIB),
    ]
    return Findings([held], goals)


def _peft(setup: Setup, base: Path, adapter: Path, dtype: str) -> Command:
    made = setup.out / "peft"
    paths = map(str, (peers.RIVALS / "peft_merge.py", base, adapter, made))
    program = ["python", *paths, dtype]
    return peers.command("peft merge_and_unload", setup.work, "peft", program, made)


def _beside(held: Contest) -> Findings:
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
    Section(
        "experts",
        "merge-lora, rank 16 on all experts of a mixture, beside peft",
        {"full": ("experts", "experts-adapter")},
        find_experts,
        copies=2,
        environments=("peft",),
    ),
    Section(
        "fp8",
        "convert --dequantize of a model in FP8 beside transformers",
        {"eighth": ("base-fp8",)},
        find_fp8,
        copies=2,
        environments=("peft",),
    ),
)
