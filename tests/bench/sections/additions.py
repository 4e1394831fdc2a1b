"""apply-delta on differences of tensors: beside a plain copy, FastChat and mergekit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import peers
from tests.bench.build import FORMATS
from tests.bench.contest import Contest
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import WEIGHTSMITH, Findings, Section, Setup, peak_mib

MODES: Final = {"default flags": (), "--low-cpu-mem": ("--low-cpu-mem",)}
HELP_LIMIT_S: Final = 0.1
PEAK_LIMIT_MIB: Final = {"default flags": 320, "--low-cpu-mem": 280}
FLAT_LIMIT_MIB: Final = 16
PEER_SPEED_LIMIT: Final = 1 / 8
PEER_MEMORY_LIMIT: Final = 1 / 10
PAIRS: Final = tuple(f"{side}-{kind}" for side in ("base", "delta") for kind in FORMATS)


def ours(setup: Setup, size: str, file_format: str, flags: tuple[str, ...] = ()) -> Command:
    """weightsmith on these inputs."""
    base, delta = inputs(setup, size, file_format)
    target = setup.out / "target"
    return setup.weightsmith(
        "apply-delta", "--base", base, "--delta", delta, "--target", target, *flags
    )


def inputs(setup: Setup, size: str, file_format: str) -> tuple[Path, Path]:
    """Base and delta."""
    return setup.input(size, f"base-{file_format}"), setup.input(size, f"delta-{file_format}")


# --- beside a copy --------------------------------------------------------------------------------


def copying(setup: Setup, size: str, file_format: str) -> Command:
    """Copy the same inputs, and wait for the disk."""
    base, delta = inputs(setup, size, file_format)
    x, y = setup.out / "x", setup.out / "y"
    script = 'cp -r "$1" "$2"; cp -r "$3" "$4"; sync'
    argv = ["sh", "-c", script, "sh", str(base), str(x), str(delta), str(y)]
    return Command(name="cp -r; cp -r; sync", argv=argv, makes=(x, y))


def against_copying(setup: Setup) -> Findings:
    """Both formats, both modes; and ours again on a quarter of the size, for the peak memory."""
    start = Command("weightsmith --help", [*WEIGHTSMITH, "--help"])
    first = setup.hold("start", [start], rounds=max(setup.rounds, 2))
    goals = [Goal("weightsmith --help, s", first.spread(0, "wall_s").median, HELP_LIMIT_S)]
    runs = [(kind, mode, flags) for kind in FORMATS for mode, flags in MODES.items()]
    copies, quarters = [], []
    for kind, mode, flags in runs:
        contestants = [ours(setup, "full", kind, flags), copying(setup, "full", kind)]
        title, check = f"apply-delta, {kind}, {mode}", setup.check("full", "target")
        copies.append(setup.hold(title, contestants, rounds=setup.rounds, check=check))
    if setup.quick or setup.full != "full":  # "quarter" is one of the full size
        return Findings([first, *copies])
    for kind, mode, flags in runs:
        title = f"apply-delta, {kind}, {mode}, a quarter of the size"
        quarters.append(setup.hold(title, [ours(setup, "quarter", kind, flags)]))
    for (_, mode, _), whole, quarter in zip(runs, copies, quarters, strict=True):
        goals += copy_goals(mode, whole, quarter)
    return Findings([first, *copies, *quarters], goals)


def copy_goals(mode: str, whole: Contest, quarter: Contest) -> Iterator[Goal]:
    """No slower than copying, and flat."""
    if mode == "default flags":
        yield Goal(f"{whole.title}: time over copying", whole.ratio("wall_s").median, 1.0)
    peak, small = peak_mib(whole), peak_mib(quarter)
    yield Goal(f"{whole.title}: peak memory, MiB", peak, PEAK_LIMIT_MIB[mode])
    yield Goal(f"{whole.title}: more than on a quarter, MiB", peak - small, FLAT_LIMIT_MIB)


# --- beside other tools ---------------------------------------------------------------------------


def against_fastchat(setup: Setup) -> Findings:
    """Its standard mode, and the one that people used for want of memory."""
    base, delta = inputs(setup, "full", "bin")
    made = setup.out / "fschat"
    argv = ["python", "-m", "fastchat.model.apply_delta", "--base-model-path", str(base)]
    argv += ["--delta-path", str(delta), "--target-model-path", str(made)]
    contests: list[Contest] = []
    goals: list[Goal] = []
    for name, flags in {"fschat": (), "fschat --low-cpu-mem": ("--low-cpu-mem",)}.items():
        peer = peers.command(name, setup.work, "fschat", [*argv, *flags], made)
        held = setup.hold(f"apply-delta, bin, {name}", [ours(setup, "full", "bin"), peer])
        goals += peer_goals(held, with_time=bool(flags))
        contests.append(held)
    return Findings(contests, goals)


def against_mergekit(setup: Setup) -> Findings:
    """A linear merge of base and delta, each with weight 1, which is the same sum."""
    base, delta = inputs(setup, "full", "safetensors")
    made, recipe = setup.out / "mergekit", setup.out / "mergekit.yml"
    parts = "".join(
        f"  - model: {folder}\n    parameters: {{weight: 1.0}}\n" for folder in (base, delta)
    )
    recipe.write_text(
        f"merge_method: linear\nmodels:\n{parts}parameters: {{normalize: false}}\ndtype: float16\n"
    )
    argv = ["mergekit-yaml", str(recipe), str(made)]
    peer = peers.command("mergekit linear", setup.work, "mergekit", argv, made)
    contestants = [ours(setup, "full", "safetensors"), peer]
    held = setup.hold("apply-delta, safetensors, mergekit linear", contestants)
    return Findings([held], list(peer_goals(held)))


def peer_goals(held: Contest, *, with_time: bool = True) -> Iterator[Goal]:
    """Far faster, in far less memory."""
    if with_time:
        speed = held.ratio("wall_s").median
        yield Goal(f"{held.title}: time over theirs", speed, PEER_SPEED_LIMIT)
    memory = held.ratio("peak_bytes").median
    yield Goal(f"{held.title}: peak memory over theirs", memory, PEER_MEMORY_LIMIT)


SECTIONS: Final = (
    Section(
        "copy",
        "apply-delta beside cp -r; cp -r; sync, and the time of --help",
        {"full": PAIRS, "quarter": PAIRS},
        against_copying,
        copies=2,
    ),
    Section(
        "fastchat",
        "apply-delta beside FastChat's, both modes",
        {"full": ("base-bin", "delta-bin")},
        against_fastchat,
        copies=3,
        environments=("fschat",),
    ),
    Section(
        "mergekit",
        "apply-delta beside a linear merge by mergekit",
        {"full": ("base-safetensors", "delta-safetensors")},
        against_mergekit,
        environments=("mergekit",),
    ),
)
