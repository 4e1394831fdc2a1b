"""Where in a model its tensors belong, read off their names: layer, and kind of module."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a tensor belongs."""

    layer: int | None
    """The first number in its name; None for a tensor outside of all layers."""
    kind: str
    """What is left of the name, such as ``"self_attn.q_proj"``; further numbers, those of experts,
    are ``*``.
    """


def positions(names: Iterable[str]) -> dict[str, Position]:
    """The place of each tensor of a model; `names` are all it has.

    What the names of most layers begin with, ``model.layers``, is left out of the kinds, and so is
    ``.weight`` at their end.
    """
    split = {name: name.removesuffix(".weight").split(".") for name in names}
    layers = {name: _first_number(parts) for name, parts in split.items()}
    stacks = Counter(
        tuple(split[name][:at]) for name, at in sorted(layers.items()) if at is not None
    )
    stack = next((list(stack) for stack, _ in stacks.most_common(1)), [])
    found = {}
    for name, parts in split.items():
        at = layers[name]
        if at is None:
            outside = stack[:-1]
            within = parts[len(outside) :] if parts[: len(outside)] == outside else parts
            found[name] = Position(None, ".".join(within or parts))
        else:
            kind = ["*" if _NUMBER.fullmatch(part) else part for part in parts[at + 1 :]]
            kind = kind if parts[:at] == stack and kind else [*parts[:at], *kind]
            found[name] = Position(int(parts[at]), ".".join(kind) or name)
    return found


def name_order(name: str) -> list[tuple[int, str]]:
    """A sort key for names that puts layer 2 before layer 10."""
    return [(int(part), "") if _NUMBER.fullmatch(part) else (-1, part) for part in name.split(".")]


def _first_number(parts: list[str]) -> int | None:
    numbers = (at for at, part in enumerate(parts) if _NUMBER.fullmatch(part))
    return next(numbers, None)
