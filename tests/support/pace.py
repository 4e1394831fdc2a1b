"""How much of its cases a test looks at in the fast suite; the slow suite looks at all of them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings

_GOLDEN = (5**0.5 - 1) / 2


def examples(number: int) -> int:
    """So many examples of a `@given` test, in the fast suite a quarter of them."""
    return max(1, number * settings().max_examples // 100)


def mostly_slow(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """The cases of a test, all but the `quick` ones slow."""
    found = [*cases]
    assert set(found) > set(quick)
    return [
        case if case in quick else pytest.param(*_values(case), marks=pytest.mark.slow)
        for case in found
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def mark_samples(items: Sequence[pytest.Item]) -> None:
    """Of each test marked ``sampled(n)`` leave n cases as they are, and make the others slow.

    Places that are the golden section apart meet all values of each parameter soonest.
    """
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        marker = cases[0].get_closest_marker("sampled")
        assert marker
        left = dict(enumerate(cases))
        for number in range(min(marker.args[0], len(cases))):
            place = int(number * _GOLDEN % 1 * len(cases))
            del left[next((each for each in left if each >= place), min(left))]
        for item in left.values():
            item.add_marker(pytest.mark.slow)
