"""Sizes, durations and counts as people read and write them; imported by all, like `errors`.

Disk is counted in decimal units (1 GB = 10^9 bytes), memory in binary ones (1 GiB = 2^30 bytes).
"""

import re
from typing import Final

DECIMAL: Final = ("B", "kB", "MB", "GB", "TB", "PB")
BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE | re.ASCII)


def format_size(nbytes: int) -> str:
    """Bytes on disk, to three digits: ``"3.74 GB"``."""
    return _scaled(nbytes, 1000, DECIMAL)


def format_memory(nbytes: int) -> str:
    """Bytes of memory, to three digits: ``"280 MiB"``."""
    return _scaled(nbytes, 1024, BINARY)


def parse_size(text: str) -> int:
    """Bytes in ``"5GB"`` (decimal), ``"5GiB"`` (binary), ``"5G"`` (decimal) or ``"5000"``.

    Raises: ValueError, if `text` is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError(text)
    step = 1024 if match[3] else 1000
    power = "kmgtp".index(match[2].lower()) + 1 if match[2] else 0
    return round(float(match[1]) * float(step) ** power)


def format_percent(share: float) -> str:
    """To three digits: ``"12.3 %"``, ``"0.00123 %"``."""
    percent = 100 * share
    if not 0.0001 <= percent < 1e6:
        return f"{percent:.2e} %" if percent else "0 %"
    # What rounding would lengthen loses a decimal.
    decimals = sum(percent < 10.0**power - 0.5 * 10.0 ** (power - 3) for power in range(-3, 3))
    return f"{percent:.{decimals}f} %"


def format_duration(seconds: float) -> str:
    """``"0.4 s"``, ``"12 s"``, ``"3 min 05 s"`` or ``"2 h 03 min"``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def format_count(count: int) -> str:
    """A number with its thousands apart: ``"90 427"``."""
    return f"{count:,}".replace(",", " ")


def counted(count: int, word: str) -> str:
    """``"no faults"``, ``"1 fault"``, ``"1 200 faults"``."""
    return f"{format_count(count) if count else 'no'} {word}{'' if count == 1 else 's'}"


def _scaled(nbytes: int, step: int, units: tuple[str, ...]) -> str:
    value = float(nbytes)
    for unit in units:
        # 999.5 would print as four digits; the next unit shows it as 1.00.
        if value < min(step, 999.5) or unit == units[-1]:
            break
        value /= step
    if unit == "B":
        return f"{nbytes} B"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"
