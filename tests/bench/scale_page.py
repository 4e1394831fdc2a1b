"""The page docs/explanation/scale.md and its chart: ``python -m tests.bench.scale_page``.

What a run costs follows from the bytes that it moves and the rates of the machine. The formulas
are below, once; the rates are inputs. Those of the measured machine come from one model of
`growth.json`, and the others are what the formulas are held against.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

FOLDER: Final = ROOT / "docs" / "explanation"
CACHED: Final = 0.75
"""The part of memory that can hold the files of a run; the rest is for the system and what has been
written and not yet reached the disk.
"""
MAKE: Final = 0.35
APPLY: Final = 0.6
"""GB of target a second and core, of whole processes; docs/decisions/0004."""
DECODE: Final = 2.6
"""The same of decoding alone; docs/decisions/0001."""
FIND: Final = 0.06
"""The same of finding a merged LoRA of rank 16; `tests.bench.low_rank`."""
DENSE: Final = 0.40
"""Size of an exact delta over its target: bf16, a full fine-tune whose weights move by 5 %."""
MERGED: Final = 0.023
"""The same for a merged LoRA of rank 16; docs/reference/delta-format.md."""
STEP_SHARE: Final = 0.01
"""Weights that change in a step of reinforcement learning; reports say 0.6 to 4.5 %."""
STEP_BYTES: Final = 3.0
"""Bytes of a step over bytes of the changed weights: an index of 4 bytes beside 2."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one machine moves in a second, in GB, and what it costs."""

    read: float
    write: float
    network: float
    cores: int
    add: float
    """GB of target a second and core, additive delta."""
    dollars_an_hour: float
    storage: float = 0.023
    """Dollars a GB and month."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run moves, in GB, and what its processors do, in seconds of one core."""

    read: float
    write: float
    cpu_s: float
    network: float = 0.0


NODE: Final = Rates(read=4.0, write=2.0, network=2.5, cores=32, add=1.5, dollars_an_hour=2.5)
"""An example: local NVMe, 20 Gbit/s; prices are of the order of a cloud's list, in 2026."""


def seconds(work: Work, rates: Rates, machines: int = 1) -> dict[str, float]:
    """How long each part takes by itself; the run takes as long as the longest.

    All of it is divided by shards, so by machines; planning and the last rename are seconds.
    """
    return {
        "disk, reading": work.read / rates.read / machines,
        "disk, writing": work.write / rates.write / machines,
        "network": work.network / rates.network / machines,
        "processors": work.cpu_s / rates.cores / machines,
    }


def apply_additive(target: float, rates: Rates) -> Work:
    """Base and delta are read, the target is written."""
    return Work(read=2 * target, write=target, cpu_s=target / rates.add)


def apply_exact(target: float, share: float) -> Work:
    """Base and payloads are read, the target is written."""
    return Work(read=(1 + share) * target, write=target, cpu_s=target / APPLY)


def make_exact(target: float, share: float, *, merged: bool = False) -> Work:
    """Base and target are read and encoded; what was written is decoded again."""
    cpu_s = target / MAKE + (target / FIND if merged else 0)
    return Work(read=2 * target, write=share * target, cpu_s=cpu_s)


def from_store(work: Work) -> Work:
    """The same with inputs in an object store."""
    return replace(work, read=0.0, network=work.read)


def cases(rates: Rates) -> list[tuple[str, Work, int]]:
    """What is done, for what work, how often."""
    big, small = 1342.0, 16.1
    step = STEP_SHARE * STEP_BYTES
    return [
        ("1.34 TB, additive delta: apply", apply_additive(big, rates), 1),
        ("1.34 TB, exact delta: make", make_exact(big, DENSE), 1),
        ("1.34 TB, exact delta: apply", apply_exact(big, DENSE), 1),
        ("the same, inputs in an object store", from_store(apply_exact(big, DENSE)), 1),
        ("10 000 fine-tunes of 16 GB: make their deltas", make_exact(small, DENSE), 10_000),
        (
            "10 000 merged LoRAs of 16 GB: make their deltas",
            make_exact(small, MERGED, merged=True),
            10_000,
        ),
        ("one of them: apply", apply_exact(small, DENSE), 1),
        ("RL, 1 000 steps of 1.34 TB: make every delta", make_exact(big, step), 1000),
        ("RL, one step: apply", apply_exact(big, step), 1),
        (
            "RL, 20 steps in one pass: apply",
            Work((1 + 20 * step) * big, big, big / APPLY + 20 * step * big / DECODE),
            1,
        ),
    ]


def measured_rates(growth: dict[str, Any]) -> Rates:
    """Of the machine that was measured, by its second model: of a smaller one starting is a large
    part. A page cache holds the inputs.
    """
    known = growth["sizes"][1]
    return Rates(
        read=8 * known["gb"] / known["wall_s"],  # out of memory; never what it waits for
        write=known["gb"] / known["wall_s"],
        network=1.0,
        cores=growth["cores"],
        add=known["gb"] / known["cpu_s"],
        dollars_an_hour=0.0,
    )


def _hours(value: float) -> str:
    if value < 90:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:,.1f} h".replace(",", " ")


def _size(gb: float) -> str:
    if gb >= 1e6:
        return f"{gb / 1e6:.2f} PB"
    return f"{gb / 1000:.2f} TB" if gb >= 1000 else f"{gb:.0f} GB"


def case_table(rates: Rates) -> str:
    """Bytes, hours, money and the bottleneck of each case."""
    lines = [
        "| what | moved in | written | one machine | 8 machines | dollars | it waits for |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for what, work, times in cases(rates):
        parts = seconds(work, rates)
        slowest = max(parts, key=lambda part: parts[part])
        longest = parts[slowest] * times
        dollars = longest / 3600 * rates.dollars_an_hour
        lines.append(
            f"| {what} | {_size((work.read + work.network) * times)} | "
            f"{_size(work.write * times)} | {_hours(longest)} | {_hours(longest / 8)} | "
            f"{dollars:,.2f} | {slowest} |".replace(",", " " if dollars >= 1000 else ",")
        )
    return "\n".join(lines)


def storage_table(rates: Rates) -> str:
    """What it takes to keep them for a month."""
    small, big, step = 16.1 * 10_000, 1342.0 * 1000, STEP_SHARE * STEP_BYTES
    rows = [
        ("10 000 fine-tunes of 16 GB, whole", small),
        ("10 000 exact deltas of full fine-tunes, and the base", small * DENSE + 16.1),
        ("10 000 exact deltas of merged LoRAs, and the base", small * MERGED + 16.1),
        ("RL, 1 000 steps of 1.34 TB, whole", big),
        ("RL, 1 000 deltas, and the first version", big * step + 1342.0),
    ]
    lines = ["| kept | bytes | dollars a month |", "| --- | ---: | ---: |"]
    for what, gb in rows:
        dollars = f"{gb * rates.storage:,.0f}".replace(",", " ")
        lines.append(f"| {what} | {_size(gb)} | {dollars} |")
    return "\n".join(lines)


def held_table(growth: dict[str, Any]) -> str:
    """The formulas and a plain copy beside what was measured."""
    rates = measured_rates(growth)
    names = ["model", "by the formula", "measured", "measured, a GB", "plain copy"]
    names += ["times the copy", "peak memory", "files fit in memory"]
    lines = [f"| {' | '.join(names)} |", f"|{' ---: |' * (len(names) - 1)} --- |"]
    for each in growth["sizes"]:
        said = max(seconds(apply_additive(each["gb"], rates), rates).values())
        copy = "not measured | "
        if "copy_s" in each:
            copy = f"{each['copy_s']:.2f} s | {each['wall_s'] / each['copy_s']:.2f}"
        lines.append(
            f"| {each['gb']:.2f} GB | {said:.2f} s | {each['wall_s']:.2f} s | "
            f"{each['wall_s'] / each['gb']:.2f} s | {copy} | {each['peak_mib']:.0f} MiB | "
            f"{_held(growth, each)} |"
        )
    return "\n".join(lines)


def fits(growth: dict[str, Any], size: dict[str, Any]) -> bool:
    """Whether base, delta and target of a size fit in the page cache together."""
    return bool(3 * size["gb"] <= CACHED * growth["memory_gb"])


def _held(growth: dict[str, Any], size: dict[str, Any]) -> str:
    said = "yes" if fits(growth, size) else "no"
    read = size.get("from_disk_gb", 0.0)
    return f"{said}; {read:.1f} GB read from the disk" if read >= 0.05 else said


def chart(growth: dict[str, Any]) -> str:
    """Time, that of a plain copy, and peak memory over the size of the model, as SVG."""
    sizes = growth["sizes"]
    wide, high, left, top, base = 640, 300, 56, 24, 250
    most_gb = max(each["gb"] for each in sizes)
    copied = [each for each in sizes if "copy_s" in each]
    most_s = max(each[key] for each in sizes for key in ("wall_s", "copy_s") if key in each)

    def x(gb: float) -> float:
        return float(left + (wide - 2 * left) * gb / most_gb)

    def points(found: list[dict[str, Any]], key: str, most: float) -> list[tuple[float, float]]:
        return [(x(each["gb"]), base - (base - top) * each[key] / most) for each in found]

    time = points(sizes, "wall_s", most_s)
    memory = points(sizes, "peak_mib", 400)
    copy = points(copied, "copy_s", most_s)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">',
        '<g font-family="sans-serif" font-size="12">',
        "<title>Time grows with the model, peak memory does not</title>",
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        f'<path d="M{left} {top}V{base}H{wide - left}V{top}" fill="none" stroke="#888"/>',
    ]
    lines = [("#1f6f8b", time, "circle", ""), ("#b5541c", memory, "rect", "")]
    if copy:
        lines.append(("#6b6b6b", copy, "circle", ' stroke-dasharray="5 4"'))
    for colour, line, dots, dashes in lines:
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        for px, py in line:
            parts.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colour}"/>'
                if dots == "circle"
                else f'<rect x="{px - 4:.1f}" y="{py - 4:.1f}" width="8" height="8" '
                f'fill="{colour}"/>'
            )
    parts += [
        f'<text x="{x(each["gb"]):.1f}" y="{base + 18}" text-anchor="middle">'
        f"{each['gb']:.0f} GB</text>"
        for each in sizes
    ]
    parts += [
        f'<text x="{left - 6}" y="{top + 4}" text-anchor="end">{most_s:.1f} s</text>',
        f'<text x="{left - 6}" y="{base + 4}" text-anchor="end">0</text>',
        f'<text x="{wide - left + 6}" y="{top + 4}">400 MiB</text>',
        f'<text x="{left + 12}" y="{top + 14}" fill="#1f6f8b">time</text>',
        *(
            [f'<text x="{left + 12}" y="{top + 30}" fill="#6b6b6b">time of a plain copy</text>']
            if copy
            else []
        ),
        f'<text x="{left + 12}" y="{memory[0][1] - 10:.1f}" fill="#b5541c">peak memory</text>',
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def page(growth: dict[str, Any], text: str) -> str:
    """The page, its tables made anew; what stands between two marks belongs to the script."""
    tables = {
        "growth": held_table(growth),
        "cases": case_table(NODE),
        "storage": storage_table(NODE),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table}\n\n{end}{after}"
    return text


def main() -> None:
    """Write page and chart."""
    growth = json.loads((FOLDER / "growth.json").read_text())
    path: Path = FOLDER / "scale.md"
    path.write_text(page(growth, path.read_text()))
    (FOLDER / "growth.svg").write_text(chart(growth))


if __name__ == "__main__":
    main()
