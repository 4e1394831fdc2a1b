"""What the benchmark found, as tables and sentences of the README and explanation/performance.md.

``make figures`` measures and writes ``pictures/benchmark.json``: every round of every contest. What
pages say of it stands between two marks, ``<!-- NAME -->`` and ``<!-- end of NAME -->``, and is
made here, so that no figure is typed. A contest that was not held has no row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Words:
    """How a contest of the benchmark is told."""

    what: str
    """What ours did; ``{}`` stands for the size of what it read."""
    beside: str
    size: str = "full"
    """The size of model, as the benchmark names it, that `what` tells."""
    times: float = 1
    """The bytes that `what` tells, as a multiple of that model's."""
    is_drawn: bool = False
    """Whether it is in the chart, too."""


_COPIES: Final = "`cp -r base x; cp -r delta y; sync`"
CONTESTS: Final = {
    "apply-delta, bin, default flags": Words("apply-delta, `.bin`", _COPIES),
    "apply-delta, safetensors, default flags": Words("apply-delta, safetensors", _COPIES),
    "apply-delta, bin, --low-cpu-mem": Words("apply-delta `--low-cpu-mem`, `.bin`", _COPIES),
    "apply-delta, safetensors, --low-cpu-mem": Words(
        "apply-delta `--low-cpu-mem`, safetensors", _COPIES
    ),
    "apply-delta, bin, fschat": Words("apply-delta, `.bin`", "FastChat 0.2.36", is_drawn=True),
    "apply-delta, bin, fschat --low-cpu-mem": Words(
        "apply-delta, `.bin`", "FastChat 0.2.36 `--low-cpu-mem`", is_drawn=True
    ),
    "apply-delta, safetensors, mergekit linear": Words(
        "apply-delta, safetensors", "mergekit 0.1.5 linear", is_drawn=True
    ),
    "apply-delta, XOR release": Words(
        "apply-delta, XOR release of {}", "Open-Assistant's loop, rebuilt; sync", "quarter"
    ),
    "merge-lora, r = 16, all linear layers": Words(
        "merge-lora, rank 16, all linear layers", "peft 0.21.2", is_drawn=True
    ),
    "merge-lora, r = 16, fused experts": Words(
        "merge-lora, rank 16, all experts of a mixture", "peft 0.21.2"
    ),
    "convert, Meta's files": Words("convert, Meta's files", "transformers 4.46.3", is_drawn=True),
    "convert --dequantize, FP8": Words(
        "convert `--dequantize`, FP8 of {}", "transformers 5.23.0", "eighth", 0.5
    ),
    "convert --weights fp32, base-zero3": Words(
        "convert, ZeRO-3, {} of float32", "DeepSpeed 0.19.8 `zero_to_fp32`", "third", 2
    ),
    "combine, three models": Words("combine, three models", "mergekit 0.1.5 linear"),
}
"""Contests by their title in the benchmark, in the order of the tables."""
_TARGET_COPIED: Final = "`cp -r target x; sync`"
EXACT: Final = {
    f"{verb}, exact, {rival}": Words(f"{verb}, exact", beside)
    for verb in ("make-delta", "apply-delta")
    for rival, beside in {
        "cp -r target; sync": _TARGET_COPIED,
        "zstd --patch-from; sync": "`zstd -3 --patch-from`; sync",
        "zipnn delta; sync": "zipnn 0.5.4; sync",
    }.items()
}
"""The same of exact deltas."""
CASES: Final = {
    "F16, change 0.05": "fp16, change 0.05",
    "F16, change 0.01": "fp16, change 0.01",
    "BF16, change 0.05": "bf16, change 0.05",
    "BF16, change 0.01": "bf16, change 0.01",
    "BF16, 1 % changed": "bf16, 1 % of weights changed",
    "tiny LLaMA F16, lr 2e-05": "tiny LLaMA fine-tuned, fp16",
    "tiny LLaMA BF16, lr 2e-05": "tiny LLaMA fine-tuned, bf16",
}
"""Cases of exact deltas by their name in the benchmark."""


@dataclass(frozen=True, slots=True)
class Run:
    """A contest as it is told: ours beside theirs, over some rounds."""

    what: str
    beside: str
    rounds: Sequence[Sequence[Mapping[str, Any]]]
    """Of each round what ours took and what theirs did."""
    is_drawn: bool

    @property
    def times(self) -> list[float]:
        """Ours over theirs, of each round."""
        return [ours["wall_s"] / theirs["wall_s"] for ours, theirs in self.rounds]

    @property
    def ratio(self) -> str:
        """The median of `times`, and how far rounds were apart."""
        return f"{median(self.times):.2f} ({min(self.times):.2f} to {max(self.times):.2f})"

    def median(self, side: int, quantity: str) -> float:
        """Of ours (0) or theirs (1)."""
        return float(median(done[side][quantity] for done in self.rounds))

    def peak_mib(self, side: int) -> int:
        """Peak memory of ours (0) or theirs (1)."""
        return round(self.median(side, "peak_bytes") / MIB)

    def peak(self, side: int) -> str:
        """The same with its unit; a dash for `cp`, which takes less than can be measured."""
        return (
            "–" if side and self.beside.startswith("`cp") else counted(self.peak_mib(side), "MiB")
        )


def runs(found: Mapping[str, Any], told: Mapping[str, Words]) -> list[Run]:
    """The contests that were held, of those told."""
    held = {contest["title"]: contest["rounds"] for contest in found["contests"]}
    return [
        Run(
            words.what.format(gigabytes(found["nbytes"][words.size] * words.times)),
            words.beside,
            held[title],
            words.is_drawn,
        )
        for title, words in told.items()
        if title in held
    ]


def pieces(found: Mapping[str, Any]) -> dict[str, str]:
    """What stands between marks, by the marks' name."""
    contests, exact = runs(found, CONTESTS), runs(found, EXACT)
    return {
        "benchmark: conditions": conditions(found),
        "benchmark: ratios": ratios(contests),
        "benchmark: times": times(contests),
        "benchmark: exact times": times(exact),
        "benchmark: exact ratios": exact_ratios(exact),
        "benchmark: sizes": sizes(found["exact"]["cases"]),
        "benchmark: model": whole_model(found),
        "benchmark: speeds": speeds(found["exact"]["cases"]),
        "benchmark: thirty": thirty(found),
    }


def filled(page: str, made: Mapping[str, str]) -> str:
    """`page` with what stands between marks made anew.

    Raises: ValueError, of a mark without its end.
    """
    for name, text in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, mark, rest = page.partition(begin)
        if mark:
            _, mark, after = rest.partition(end)
            if not mark:
                raise ValueError(f"no {end}")
            page = f"{before}{begin}\n{text}\n\n{end}{after}"
    return page


def conditions(found: Mapping[str, Any]) -> str:
    """On what all of it was measured."""
    size, rounds = gigabytes(found["nbytes"]["full"]), len(found["contests"][-1]["rounds"])
    return (
        f"Models of {size} in float16 where no other size stands; medians of {rounds} rounds, "
        f"ours and theirs in turn, after one to warm up.\n"
        f"The machine: {found['machine']}."
    )


def ratios(told: Iterable[Run]) -> str:
    """Time and memory beside other tools, a line each."""
    rows = [(run.what, run.beside, run.ratio, run.peak(0), run.peak(1)) for run in told]
    head = ("weightsmith", "beside", "time, ours over theirs", "memory, ours", "memory, theirs")
    return table(head, rows)


def times(told: Iterable[Run]) -> str:
    """What each side of a contest took: seconds, and MiB at its peak."""
    rows = [
        (
            run.what,
            run.beside,
            *(f"{run.median(side, 'wall_s'):.2f}" for side in (0, 1)),
            run.ratio,
            *(run.peak(side).removesuffix(" MiB") for side in (0, 1)),
        )
        for run in told
    ]
    head = ("weightsmith", "beside", "s, ours", "s, theirs", "ratio", "MiB, ours", "MiB, theirs")
    return table(head, rows)


def exact_ratios(told: Sequence[Run]) -> str:
    """How much longer than a copy it takes to make and to apply an exact delta."""
    said = [
        f"{run.what.partition(',')[0]} took {median(run.times):.1f} times"
        for run in told
        if run.beside == _TARGET_COPIED
    ]
    took = " and ".join(said)
    return f"With all that they check, {took} as long as {_TARGET_COPIED}." if said else ""


def sizes(cases: Iterable[Mapping[str, Any]]) -> str:
    """Deltas as shares of their target, by each tool."""
    known = {case["case"]: case for case in cases}
    columns = ("ours", "floor", "xor", "zipnn", "zstd")
    rows = [
        (what, *(share(known[name][column]) for column in columns))
        for name, what in CASES.items()
        if name in known
    ]
    head = ("", "weightsmith", "floor", "XOR + byte planes + zstd-3", "zipnn 0.5.4")
    return table((*head, "`zstd -3 --patch-from`"), rows)


def whole_model(found: Mapping[str, Any]) -> str:
    """One model as its files: size of the delta, speed, memory."""
    rows = [
        (
            row["tool"].removesuffix("; sync"),
            share(row["size"]),
            *(f"{row[f'{verb}_gbs']:.2f} GB/s" for verb in ("make", "apply")),
            *(counted(round(row[f"{verb}_peak_mib"]), "MiB") for verb in ("make", "apply")),
        )
        for row in found["exact"].get("model", ())
    ]
    size = gigabytes(found["nbytes"]["third"])
    head = ("tool", "delta", "make", "apply", "peak memory, make", "apply")
    return f"Of a model of {size} in float16, as its files:\n\n{table(head, rows)}" if rows else ""


def speeds(cases: Iterable[Mapping[str, Any]]) -> str:
    """Speed of the coding alone, and what a package without the compiled part gives."""
    known = [case for case in cases if case["floor"] is not None]
    above = [case["portable"] / case["floor"] - 1 for case in known]
    return (
        "In the cases that have a floor, coding alone ran at "
        f"{_range(known, 'encode')} and decoding at {_range(known, 'decode')} GB/s of the target a "
        "core.\n"
        "A package that was built without a C compiler writes spans of an older kind, "
        f"{min(above) * 100:.0f} to {max(above) * 100:.0f} % above the floor, and ran at "
        f"{_range(known, 'portable_encode')} and {_range(known, 'portable_decode')} GB/s."
    )


def thirty(found: Mapping[str, Any]) -> str:
    """What a registry of fine-tunes takes, whole and as deltas."""
    held = found.get("fine_tunes")
    if held is None:
        return ""
    whole, deltas = (gigabytes(sum(held[what])) for what in ("targets", "deltas"))
    return (
        f"{len(held['targets'])} fine-tunes of one base in bfloat16, every weight changed by about "
        f"{held['change']:.0%} of the spread of the weights: **{whole} -> {deltas}**, "
        "and each comes back bit for bit."
    ).replace("%", " %")


def _range(cases: Sequence[Mapping[str, Any]], column: str) -> str:
    values = [case[column] for case in cases]
    return f"{min(values):.1f} to {max(values):.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def gigabytes(nbytes: float) -> str:
    """Bytes in GB."""
    return f"{nbytes / 1e9:.2f} GB"


def counted(count: int, unit: str) -> str:
    """A number with its thousands apart, and its unit."""
    return f"{count:,} {unit}".replace(",", " ")


def share(part: float | None, places: int = 3) -> str:
    """A share of the target; two figures of a small one, nothing where it is not known."""
    return "" if part is None else f"{part:.{places}f}" if part >= 0.1 else f"{part:.2g}"
