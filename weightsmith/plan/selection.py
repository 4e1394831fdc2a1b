"""Which tensors of a model are taken, and under which names."""

import fnmatch
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from weightsmith.errors import NamesAmbiguous, NothingLeft, NothingNamed, RenameInvalid


@dataclass(frozen=True, slots=True)
class Selection:
    """What to leave out and what to call the rest.

    A pattern is a name in which ``*`` stands for anything. A rename is ``OLD=NEW``, where OLD is a
    name or what names begin with up to a dot; its stars stand for parts of names, which NEW's stars
    repeat in their order. An empty NEW takes OLD away.
    """

    rename: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """If there are any, what fits none of them is left out."""

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.rename or self.drop or self.keep)

    def names(self, source: str, names: Collection[str]) -> dict[str, str]:
        """New names by old ones; an empty one for what is left out. Others keep theirs.

        Raises: NothingNamed, NothingLeft, RenameInvalid; NamesAmbiguous, if two would share one.
        """
        out = {name for pattern in self.drop for name in self._like(source, names, "drop", pattern)}
        if self.keep:
            kept = {
                name for pattern in self.keep for name in self._like(source, names, "keep", pattern)
            }
            out |= {*names} - kept
        new = dict.fromkeys(sorted(out), "")
        left = [name for name in names if name not in out]
        if not left:
            raise NothingLeft(source=source, count=len(names))
        for text in self.rename:
            found = dict(_renamed(text, [name for name in left if name not in new]))
            if not found:
                raise NothingNamed(
                    source=source, option="rename", pattern=text, context=_some(left)
                )
            new |= found
        taken: dict[str, str] = {}
        twice = []
        for name in left:
            other = taken.setdefault(new.get(name, name), name)
            if other != name:
                twice.append(f"{other} and {name} would both be {new.get(name, name)}")
        if twice:
            how = "after renaming"
            raise NamesAmbiguous(source=source, count=len(twice), how=how, context=twice)
        return new

    @staticmethod
    def _like(source: str, names: Collection[str], option: str, pattern: str) -> list[str]:
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise NothingNamed(
                source=source, option=option, pattern=pattern, context=_some([*names])
            )
        return found


def _renamed(text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Old and new name of each that begins with OLD.

    Raises: RenameInvalid.
    """
    old, equals, new = (part.strip() for part in text.partition("="))
    old, new = old.removesuffix("."), new.removesuffix(".")
    if not equals or not old or new.count("*") > old.count("*"):
        raise RenameInvalid(text=text)
    pattern = re.compile("([^=]*?)".join(map(re.escape, old.split("*"))) + r"(?=\.|$)")
    for name in names:
        if match := pattern.match(name):
            parts, stars = new.split("*"), match.groups()
            start = parts[0] + "".join(s + p for s, p in zip(stars, parts[1:], strict=False))
            renamed = start + name[match.end() :]
            if not start:
                renamed = renamed.removeprefix(".")
            if not renamed:
                raise RenameInvalid(text=text)
            yield name, renamed


def _some(names: list[str]) -> list[str]:
    return [f"there is {name}" for name in names[:: max(len(names) // 4, 1)]]
