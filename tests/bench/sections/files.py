"""Whole files: XOR releases beside Open-Assistant's way, Meta's files beside transformers'."""

import sys
from typing import Final

from tests.bench import peers
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib

XOR_SPEED_LIMIT: Final = 1 / 50
PEAK_LIMIT_MIB: Final = 320


def decode_xor(setup: Setup) -> Command:
    """weightsmith on an XOR release."""
    base, delta = setup.input("quarter", "base-bin"), setup.input("quarter", "delta-xor")
    return setup.weightsmith(
        "apply-delta", "--base", base, "--delta", delta, "--target", setup.out / "target"
    )


def against_blocks(setup: Setup) -> Findings:
    """Beside a loop over blocks of 4 KiB in NumPy, which is all that the original does."""
    base, delta = setup.input("quarter", "base-bin"), setup.input("quarter", "delta-xor")
    made = setup.out / "blocks"
    script = str(peers.RIVALS / "xor_blocks.py")
    loop = Command(
        name="blocks of 4 KiB; sync",
        argv=[sys.executable, script, str(made), str(delta), str(base)],
        makes=(made,),
    )
    held = setup.hold(
        "apply-delta, XOR release",
        [decode_xor(setup), loop],
        check=setup.check_files(setup.input("quarter", "delta-bin")),
    )
    speed = held.ratio("wall_s").median
    return Findings([held], [Goal(f"{held.title}: time over theirs", speed, XOR_SPEED_LIMIT)])


def convert_meta(setup: Setup) -> Command:
    """weightsmith on Meta's files."""
    return setup.weightsmith("convert", setup.input("third", "base-meta"), setup.out / "target")


def against_transformers(setup: Setup) -> Findings:
    """Beside the last converter that came with transformers, which stores bfloat16's bits."""
    source, made = setup.input("third", "base-meta"), setup.out / "transformers"
    argv = ["python", "-m", "transformers.models.llama.convert_llama_weights_to_hf"]
    argv += ["--input_dir", str(source), "--output_dir", str(made)]
    argv += ["--model_size", "7B", "--llama_version", "1"]
    peer = peers.command("transformers 4.46.3", setup.work, "transformers", argv, made)
    held = setup.hold(
        "convert, Meta's files", [convert_meta(setup), peer], check=setup.check("third", "base")
    )
    goals = [
        Goal(f"{held.title}: time over theirs", held.ratio("wall_s").median, 1.0),
        Goal(f"{held.title}: peak memory, MiB", peak_mib(held), PEAK_LIMIT_MIB),
    ]
    return Findings([held], goals)


SECTIONS: Final = (
    Section(
        "xor",
        "apply-delta of an XOR release beside Open-Assistant's loop, rebuilt",
        {"quarter": ("base-bin", "delta-bin", "delta-xor")},
        against_blocks,
    ),
    Section(
        "convert",
        "convert of Meta's files beside transformers 4.46.3",
        {"third": ("base-meta",)},
        against_transformers,
        copies=2,
        environments=("transformers",),
    ),
)
