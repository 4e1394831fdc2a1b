"""convert on training outputs beside the frameworks' own ways, and combine beside mergekit."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import peers
from tests.bench.contest import Contest
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib

SPEED_LIMIT: Final = 1 / 3
PEAK_LIMIT_MIB: Final = 320
FLAT_LIMIT_MIB: Final = 16
FACTORS: Final = {"base": 0.5, "target": 0.3, "delta": 0.2}


def _ours(setup: Setup, size: str, kind: str) -> Command:
    return setup.weightsmith("convert", setup.input(size, kind), setup.out / "target")


def _goals(held: Contest, quarter: Contest | None = None) -> Iterator[Goal]:
    """Three times as fast, in little memory, and flat."""
    yield Goal(f"{held.title}: time over theirs", held.ratio("wall_s").median, SPEED_LIMIT)
    yield Goal(f"{held.title}: peak memory, MiB", peak_mib(held), PEAK_LIMIT_MIB)
    if quarter is not None:
        more = peak_mib(held) - peak_mib(quarter)
        yield Goal(f"{held.title}: more than on a quarter, MiB", more, FLAT_LIMIT_MIB)


def joining(setup: Setup) -> Findings:
    """Eight files of FSDP2, and a distributed checkpoint."""
    contests: list[Contest] = []
    goals: list[Goal] = []
    for kind, what, script in (
        ("base-ranks", "load all, cat, save", "fsdp_merge.py"),
        ("base-dcp", "dcp_to_torch_save, save", "dcp_merge.py"),
    ):
        made = setup.out / "theirs"
        source = setup.input("full", kind)
        argv = [sys.executable, str(peers.RIVALS / script), str(source), str(made)]
        peer = Command(name=what, argv=argv, makes=(made,))
        held = setup.hold(
            f"convert, {kind}",
            [_ours(setup, "full", kind), peer],
            check=setup.check("full", "base"),
        )
        contests.append(held)
        quarter = None
        if not setup.quick:
            quarter = setup.hold(
                f"convert, {kind}, a quarter of the size", [_ours(setup, "quarter", kind)]
            )
            contests.append(quarter)
        goals += _goals(held, quarter)
    return Findings(contests, goals)


def zero(setup: Setup) -> Findings:
    """The float32 weights of ZeRO-3, beside DeepSpeed's own script."""
    source, made = setup.input("third", "base-zero3"), setup.out / "theirs"
    script = "from deepspeed.utils.zero_to_fp32 import *; import sys;"
    script += "convert_zero_checkpoint_to_fp32_state_dict(*sys.argv[1:], safe_serialization=True)"
    program = ["python", "-c", script, str(source), str(made)]
    peer = peers.command("zero_to_fp32", setup.work, "deepspeed", program, made)
    ours = setup.weightsmith("convert", source, setup.out / "target", "--weights", "fp32")
    held = setup.hold("convert --weights fp32, base-zero3", [ours, peer])
    return Findings([held], list(_goals(held)))


def combining(setup: Setup) -> Findings:
    """A weighted sum of three models, beside mergekit's."""
    made, recipe = setup.out / "mergekit", setup.out / "mergekit.yml"
    sources: dict[Path, float] = {
        setup.input("full", f"{side}-safetensors"): factor for side, factor in FACTORS.items()
    }
    parts = "".join(
        f"  - model: {folder}\n    parameters: {{weight: {factor}}}\n"
        for folder, factor in sources.items()
    )
    recipe.write_text(
        f"merge_method: linear\nmodels:\n{parts}parameters: {{normalize: false}}\ndtype: float16\n"
    )
    argv = ["mergekit-yaml", str(recipe), str(made)]
    peer = peers.command("mergekit linear", setup.work, "mergekit", argv, made)
    expression = " + ".join(f"{factor}*{folder}" for folder, factor in sources.items())
    ours = setup.weightsmith("combine", expression, setup.out / "target")
    held = setup.hold("combine, three models", [ours, peer])
    return Findings([held], list(_goals(held)))


SECTIONS: Final = (
    Section(
        "training",
        "convert on FSDP2 and DCP beside loading all and saving",
        {"full": ("base-ranks", "base-dcp"), "quarter": ("base-ranks", "base-dcp")},
        joining,
        copies=2,
    ),
    Section(
        "zero",
        "convert on ZeRO-3 beside DeepSpeed's zero_to_fp32",
        {"third": ("base-zero3",)},
        zero,
        copies=4,
        environments=("deepspeed",),
    ),
    Section(
        "combine",
        "combine beside a linear merge by mergekit",
        {"full": tuple(f"{side}-safetensors" for side in FACTORS)},
        combining,
        copies=2,
        environments=("mergekit",),
    ),
)
