"""The call that made a plan, as JSON, so that another process can repeat it."""

import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.errors import SourceUnknown
from weightsmith.hub.resolve import HubSource, parse_source
from weightsmith.plan.expression import parse_expression
from weightsmith.progress import Progress
from weightsmith.sources.links import PLUS, split
from weightsmith.sources.locate import Located, LocatedChain, Wanted, locate, split_tag

Text = str | os.PathLike[str]

_FACTORS: Final = "factors"
"""The setting that holds the factors of a sum's models."""


@dataclass(frozen=True, slots=True)
class _Source:
    """An argument of a planner that names an input."""

    name: str
    """What it is called in a saved plan; of several, ``lora-1``, ``lora-2``."""
    kind: Wanted = "model"
    several: bool = False
    is_file: bool = False
    beside: bool = False
    """Only files beside its weights are read."""


_VERBS: Final[Mapping[str, tuple[str, Mapping[str, _Source]]]] = {
    "apply-delta": (
        "weightsmith.ops.apply_delta:plan_apply_delta",
        {
            "base": _Source("base"),
            "delta": _Source("delta", several=True),
            "key": _Source("key", is_file=True),
        },
    ),
    "merge-lora": (
        "weightsmith.ops.merge_lora:plan_merge_lora",
        {"base": _Source("base"), "loras": _Source("lora", "adapter", several=True)},
    ),
    "convert": (
        "weightsmith.ops.convert:plan_convert",
        {
            "source": _Source("source"),
            "sidecars_from": _Source("sidecars-from", beside=True),
            "fill_from": _Source("fill-from"),
        },
    ),
    "combine": (
        "weightsmith.ops.combine:plan_combine",
        {"terms": _Source("model", several=True)},
    ),
}
"""By verb, the function that plans it and which of its arguments are sources."""
_NOT_KEPT: Final = {"target", "progress"}
"""Arguments that are no part of the settings."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a planner; its paths are absolute, and what is on the hub has its commit."""

    verb: str
    sources: Mapping[str, str]
    """By name, ``base`` or ``lora-2``, what is read."""
    target: str
    settings: Mapping[str, Any]
    """All other arguments, as JSON values."""

    @classmethod
    def of(cls, verb: str, arguments: Mapping[str, Any], origins: Sequence[str]) -> "Call":
        """The call with these arguments, whose inputs turned out to come from `origins`,
        ``org/name@commit`` each.
        """
        settings = {name: _plain(value) for name, value in arguments.items()}
        sources: dict[str, str] = {}
        for argument, source in _VERBS[verb][1].items():
            given = settings.pop(argument)
            if verb == "combine":
                terms = _terms(given)
                settings[_FACTORS] = [factor for factor, _ in terms]
                given = [model for _, model in terms]
            if given is None:
                continue
            texts = given if isinstance(given, list) else [given]
            names = _numbered(source.name, len(texts))
            sources |= zip(names, (_pinned(text, origins) for text in texts), strict=True)
        target = os.path.abspath(settings["target"])  # noqa: PTH100  (a link stays one)
        kept = {name: value for name, value in settings.items() if name not in _NOT_KEPT}
        return cls(verb, sources, target, kept)

    @property
    def planner(self) -> Callable[..., Any]:
        """The function that is called."""
        module, _, name = _VERBS[self.verb][0].partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def with_paths(self, paths: Mapping[str, Text]) -> "Call":
        """The call with other places for some of its sources, or its ``target``."""
        given = {name: os.path.abspath(path) for name, path in paths.items()}  # noqa: PTH100
        target = given.pop("target", self.target)
        return replace(self, sources={**self.sources, **given}, target=target)

    def paths(self) -> Iterator[tuple[str, str]]:
        """Every path that is read, with its source's name."""
        for name, text in self.sources.items():
            for link in [text] if os.path.lexists(text) else split(text):
                path, _ = split_tag(link)
                if path.is_absolute():
                    yield name, str(path)

    def again(self, scratch: Path, progress: Progress, *, streams: bool, mends: bool) -> Any:
        """Repeat the call: plan the same again.

        Weight files of the hub that are not in its cache are fetched there first; or, if it
        `streams`, into `scratch` when they are read. Without `mends`, files beside the weights stay
        as they are, whatever the call says.
        Raises: as the planner.
        """
        # JSON has no tuples: a planner that got one must get one again.
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.settings.items()
        }
        offline = bool(settings["offline"])
        for argument, source in _VERBS[self.verb][1].items():
            texts = [self.sources[name] for name in _sorted(source.name, self.sources)]
            spool = scratch if streams or source.beside else None
            given: list[Any] = texts
            if not source.is_file:
                given = [
                    locate(text, kind=source.kind, offline=offline, spool=spool, progress=progress)
                    for text in texts
                ]
            if self.verb == "combine":
                given = list(zip(settings.pop(_FACTORS), given, strict=True))
            settings[argument] = given if source.several else next(iter(given), None)
        if not mends:
            settings["repair"] = False
        return self.planner(**settings, target=self.target, progress=progress)

    def to_document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "verb": self.verb,
            "sources": dict(self.sources),
            "target": self.target,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_document(cls, document: Any) -> "Call":
        """The inverse of `to_document`.

        Raises: ValueError, KeyError, TypeError, if it is the document of no call.
        """
        call = cls(**document)
        if call.verb not in _VERBS:
            raise ValueError("it has an unknown verb")
        texts: list[object] = [*call.sources.values(), call.target]
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("a path is no text")
        known = _VERBS[call.verb][1]
        hints = typing.get_type_hints(call.planner)
        names = []
        for argument, source in known.items():
            found = _sorted(source.name, call.sources)
            needed = source.several or not _fits(None, hints[argument])
            if (needed and not found) or (len(found) > 1 and not source.several):
                raise ValueError(f"its {source.name} is missing")
            names += found
        if call.sources.keys() != set(names):
            raise ValueError("it reads something unknown")
        wanted = {name: hint for name, hint in hints.items() if name not in {*known, *_NOT_KEPT}}
        wanted.pop("return")
        if call.verb == "combine":
            wanted[_FACTORS] = Sequence[float]
        if call.settings.keys() != wanted.keys():
            raise ValueError("it has other settings")
        for name, hint in wanted.items():
            if not _fits(call.settings[name], hint):
                raise ValueError(f"its {name} has a strange value")
        return call


def arguments_of(
    planner: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments of a call by name, those left out too."""
    bound = inspect.signature(planner).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _plain(value: Any) -> Any:
    """An argument as a JSON value; sources that were located stay what they are."""
    if isinstance(value, Located | LocatedChain):
        return value
    if isinstance(value, os.PathLike):
        return Path(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def _terms(given: Any) -> list[tuple[float, Any]]:
    if isinstance(given, str):
        return [(term.factor, term.source) for term in parse_expression(given)]
    return [(float(factor), source) for factor, source in given]


def _pinned(source: Any, origins: Sequence[str]) -> str:
    """A source as another process finds it: an absolute path, or a hub id with its commit."""
    if isinstance(source, LocatedChain):
        return PLUS.join(_pinned(link, origins) for link in source.links)
    if isinstance(source, Located):
        return source.origin
    text: str = os.fspath(source)
    path, tag = split_tag(text)
    if os.path.lexists(text) or tag or not isinstance(source, str):
        return os.path.abspath(path) + (f"@{tag}" if tag else "")  # noqa: PTH100
    links = split(text)
    if len(links) > 1:
        return PLUS.join(_pinned(link, origins) for link in links)
    try:
        named = parse_source(text)
    except SourceUnknown:  # of a kind that has no commit
        return text
    homes = named.homes if isinstance(named, HubSource) else ()
    return next((each for each in origins if each.partition("@")[0] in homes), text)


def _numbered(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}-{number}" for number in range(1, count + 1)]


def _sorted(stem: str, sources: Mapping[str, str]) -> list[str]:
    """The names among `sources` that belong to `stem`, in their order."""
    if stem in sources:
        return [stem]
    count = sum(name.startswith(f"{stem}-") for name in sources)
    names = [f"{stem}-{number}" for number in range(1, count + 1)]
    return names if all(name in sources for name in names) else []


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is one of a type: of those that planners have for their settings."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin in {typing.Union, types.UnionType}:
        return any(_fits(value, each) for each in args)
    if origin is not None:  # a sequence
        return isinstance(value, list) and all(_fits(each, args[0]) for each in value)
    if value is None:
        return hint is types.NoneType
    if hint is float:
        return type(value) in {int, float}
    return type(value) is hint
