"""Adapters of experts: trained on one parameter that held all experts of a layer, and merged into
files that hold each expert by itself, or all of them.

Source: peft 0.17 to 0.21 ``ParamWrapper``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from weightsmith.catalogue.experts import ExpertFamily, Order, Parameter
from weightsmith.codecs.lora.steps import Experts, Flag, Step
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.adapter_names import Names
from weightsmith.plan.adapter_steps import Change

_NESTED: Final = ".base_layer"
"""What peft puts between a module and the wrapper of each further parameter of it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One parameter's factors, and the base's tensors that they change."""

    name: str
    """The parameter, as the adapter's config may name it."""
    a: TensorInfo
    """``(experts * rank, ...)``, expert by expert."""
    b: TensorInfo
    """``(..., rank * experts)``, rank by rank."""
    targets: tuple[tuple[TensorInfo, ...], ...]
    """Of each expert the tensors that share its outputs; or one tensor of all experts."""
    order: Order
    """How these lie, where their shapes do not show it."""
    stacked: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one expert's matrix, as it lies in the files."""
        if self.stacked:
            *_, rows, columns = self.targets[0][0].shape
            return rows, columns
        parts = self.targets[0]
        return sum(each.shape[0] for each in parts), parts[0].shape[1]

    @property
    def by_row(self) -> bool | None:
        """Whether rows of the tensors are rows of B; None where the shapes fit both ways, or
        neither.
        """
        b, a = self.b.shape[0], self.a.shape[1]
        straight, turned = self.shape == (b, a), self.shape == (a, b)
        return straight if straight != turned else None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is done to one tensor of the base."""

    target: str
    step: Step
    experts: Experts | None
    """Which of them the tensor holds; None for a parameter that has none of its own for each."""
    a: TensorInfo
    b: TensorInfo
    """Regrouped, as ``(experts, ..., rank)``, where there are `experts`."""


def is_parameter(module: str, config: AdapterConfig) -> bool:
    """Whether an adapter was trained on a module's ``weight`` as a parameter, not as a layer."""
    return _names(f"{module}.weight", config)


def expert_modules(
    changes: dict[str, Change], config: AdapterConfig, family: ExpertFamily | None
) -> dict[str, list[Change]]:
    """Take the changes of experts out of `changes`, which are by the adapter's own names: by
    module, the changes of its parameters, the one that was wrapped last first.
    """
    modules: dict[str, list[Change]] = {}
    for name in sorted(changes, key=len):
        module = changes[name].module
        root = re.sub(rf"({re.escape(_NESTED)})+$", "", module)
        if root != module or _holds_experts(root, config, family):
            modules.setdefault(root, []).append(changes.pop(name))
    return modules


def _holds_experts(module: str, config: AdapterConfig, family: ExpertFamily | None) -> bool:
    """Whether a module's parameters, and not its weight as a layer's, were trained."""
    if family is not None:
        return bool(config.parameters) and f".{module}".endswith(f".{family.module}")
    ends = (name.rpartition(".") for name in config.parameters)
    return any(
        end and last != "weight" and f".{module}".endswith(f".{end}") for end, _, last in ends
    )


def expert_steps(
    modules: dict[str, list[Change]],
    config: AdapterConfig,
    family: ExpertFamily,
    names: Names,
    infos: dict[str, TensorInfo],
) -> Iterator[Fitted | str]:
    """What is done to which tensor of the base, or sentences about what does not fit.

    `infos` are the base's tensors.
    """
    placed: list[Placed] = []
    for module, changes in modules.items():
        layer = module.removesuffix(family.module)
        trained = [p for p in family.parameter if _names(f"{module}.{p.name}", config)]
        if len(trained) != len(changes):
            yield (
                f"{module} has factors for {len(changes)} parameters, where target_parameters name "
                f"{', '.join(p.name for p in trained) or 'none'}"
            )
            continue
        # Wrapped one by one in the order of the class, so that the last one is the outermost.
        for parameter, change in zip(reversed(trained), changes, strict=True):
            found = _place(
                f"{module}.{parameter.name}", layer, parameter, change, family, names, infos
            )
            if isinstance(found, str):
                yield found
            else:
                placed.append(found)
    shown = {each.by_row for each in placed} - {None}
    for each in placed:
        by_row = each.by_row
        if by_row is None and each.shape == (each.b.shape[0], each.a.shape[1]):
            square = next(iter(shown)) if len(shown) == 1 else _by_version(each, config, family)
            yield from _steps(each, config, by_row=square)
        else:
            yield from _steps(each, config, by_row=by_row)


def _place(
    name: str,
    layer: str,
    parameter: Parameter,
    change: Change,
    family: ExpertFamily,
    names: Names,
    infos: dict[str, TensorInfo],
) -> Placed | str:
    a, b = change.parts.pop("lora_A", None), change.parts.pop("lora_B", None)
    if a is None or b is None or change.parts:
        return f"{name} has not lora_A and lora_B alone, of which its experts are made"
    if len(a.shape) != 2 or len(b.shape) != 2 or not a.numel * b.numel:
        return f"{name} has no two factors: {a.name} is {a}, {b.name} {b}"
    for file in parameter.stacked:
        target = names.place(layer + file)
        if target and len(infos[target].shape) in {2, 3}:
            order = family.stack or family.memory
            return Placed(name, a, b, ((infos[target],),), order, stacked=True)
    experts: list[tuple[TensorInfo, ...]] = []
    while parameter.single:
        parts = [names.place(layer + each.format(len(experts))) for each in parameter.single]
        if None in parts:
            break
        experts.append(tuple(infos[each] for each in parts if each))
    if odd := [part for parts in experts for part in parts if len(part.shape) != 2]:
        return f"{odd[0].name} is {odd[0]}, no matrix of an expert"
    if experts:
        return Placed(name, a, b, tuple(experts), "out in", stacked=False)
    looked = (*parameter.stacked, *(each.format(0) for each in parameter.single))
    return f"no {' or '.join(layer + each for each in looked)} in the base for {a.name}"


def _steps(
    placed: Placed, config: AdapterConfig, *, by_row: bool | str | None
) -> Iterator[Fitted | str]:
    a, b, rank = placed.a, placed.b, config.rank_of(placed.name)
    scale = config.scale_of(placed.name)
    flat = placed.stacked and len(placed.targets[0][0].shape) == 2
    there = 1 if flat else placed.targets[0][0].shape[0] if placed.stacked else len(placed.targets)
    experts, rest = divmod(a.shape[0], rank)
    if a.shape[0] != b.shape[1]:
        yield f"{a.name} is {list(a.shape)}, and {b.name} {list(b.shape)}: other ranks"
    elif rest:
        yield f"{a.name} has {a.shape[0]} rows, which are no experts of rank {rank} each"
    elif experts != there:
        yield f"{a.name} is for {experts} experts of rank {rank}, and the base has {there}"
    elif by_row is None:
        yield (
            f"{placed.name} is {list(placed.shape)} an expert, "
            f"the adapter's product {[b.shape[0], a.shape[1]]}"
        )
    elif isinstance(by_row, str):
        yield by_row
    elif flat:
        step = Step("linear", scale, frozenset({"rounded"}))
        yield Fitted(placed.targets[0][0].name, step, None, a, b)
    else:
        grouped = replace(b, shape=(experts, b.shape[0], rank))
        flags: frozenset[Flag] = frozenset() if by_row else frozenset({"turned"})
        for number, parts in enumerate(placed.targets):
            first = 0
            for target in parts:
                rows = target.shape[0]
                part = None if len(parts) == 1 else (first, first + rows)
                which = Experts(experts, None if placed.stacked else number, part)
                yield Fitted(target.name, Step("experts", scale, flags), which, a, grouped)
                first += rows


def _by_version(placed: Placed, config: AdapterConfig, family: ExpertFamily) -> bool | str:
    """Which way a square lies, by what peft did when it was trained.

    Since 0.19 B has the outputs, but where a class holds its experts as (in, out) and does not say
    so; until 0.18, which wrote no version before that, B had a parameter's last dimension.
    """
    today = family.transposed or family.memory == "out in"
    once = family.memory == "in out"
    match = re.fullmatch(r"0\.(\d+)(?:\.\d+)?", config.peft_version)
    if today == once:
        has_outputs = today
    elif not config.peft_version or (match and int(match[1]) < 19):
        has_outputs = once
    elif match or not config.peft_version.startswith("0."):
        has_outputs = today
    else:
        return (
            f"{placed.name} is square, {list(placed.shape)}, and peft {config.peft_version} may "
            "have meant either of it and its transpose"
        )
    return has_outputs == (placed.order == "out in")


def _names(parameter: str, config: AdapterConfig) -> bool:
    """Whether the config says that a parameter was trained."""
    return any(parameter == each or parameter.endswith(f".{each}") for each in config.parameters)
