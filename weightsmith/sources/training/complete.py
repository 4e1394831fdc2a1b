"""Refuse what lacks files that other processes of the same run wrote."""

from collections.abc import Collection
from itertools import islice
from typing import Final

from weightsmith.errors import RankMissing

_NAMED: Final = 1000
"""Missing files that an error lists; a damaged file may tell of more processes than memory holds
numbers.
"""


def require_all(numbers: range, held: Collection[int], sentence: str, label: str) -> None:
    """Hold the numbers of files that are there against those that must be, of which the first are
    listed by `sentence`, ``"process {} is missing"``.

    Raises: RankMissing.
    """
    total = numbers.stop - numbers.start  # not `len`, which has a limit
    count = total - sum(number in numbers for number in {*held})
    if count:
        missing = islice((number for number in numbers if number not in held), _NAMED)
        context = [sentence.format(number) for number in missing]
        raise RankMissing(source=label, count=count, total=total, context=context)
