"""Pair the tensors of adapters with those of a base: what each output tensor is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS
from weightsmith.checkpoint.tied import HEADS
from weightsmith.codecs.lora_steps import Step, grown_rows
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.adapter_parts import parse_part
from weightsmith.formats.tensors import SUMMABLE, TensorInfo
from weightsmith.plan.adapter_steps import FINDERS, Change
from weightsmith.plan.model import InputTensor

RENAMED: Final = (
    ("", ""),
    ("model.", ""),
    ("", "model."),
    ("transformer.", ""),
    ("", "transformer."),
    ("model.language_model.", "language_model.model."),
    ("model.language_model.", "model."),
    ("", "language_model."),
    ("lm_head.", "embed_out."),
)
"""How a module's name in memory (first) may begin otherwise in the base's files (second).

A base saved without its head lacks the first word (``h.0.attn`` for ``transformer.h.0.attn``), an
adapter trained without it too; models of several modalities, and GPT-NeoX's output layer, were
renamed in transformers 5.
"""
_TWICE: Final = ("whole", "lora_magnitude_vector")
"""What peft itself may save under two names: as what was trained, and with the layer as it is."""
_ROUTER: Final = (".mlp.gate.", ".block_sparse_moe.gate.")
"""Mixtral's router, likewise."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, opened."""

    role: str
    config: AdapterConfig
    tensors: Mapping[str, TensorInfo]
    same_head: bool = False
    """Whether it holds input embedding and output layer whole, or what a product for the embedding
    starts from, and both are the same bytes.
    """


@dataclass(frozen=True, slots=True)
class Chain:
    """How one output tensor comes about: where it starts, and what is done to it in order."""

    output: TensorInfo
    """Its name and shape, and the dtype that the base gives it."""
    start: InputTensor
    steps: tuple[Step, ...] = ()
    inputs: tuple[InputTensor, ...] = ()
    """What the steps take."""


@dataclass(slots=True)
class Merging:
    """The base's tensors and what adapters do to them, adapter by adapter."""

    chains: dict[str, Chain]
    """By output name, in the base's order."""
    vocabulary: frozenset[str]
    """Names of the tensors that have one row a token."""
    tied: tuple[str, str] | None
    """Input embedding, and the name that the output layer will have that is tied to it for now."""
    dropped: tuple[str, ...] = ()
    """Known buffers of the base, left out."""
    parted: bool = False
    """Whether they were tied and are no longer."""
    problems: list[str] = field(default_factory=list)
    """Why an adapter does not fit, as sentences."""
    notes: list[str] = field(default_factory=list)
    """What the user should know, as sentences."""

    @property
    def uneven(self) -> list[str]:
        """Sentences about vocabulary tensors whose numbers of rows differ, where they do."""
        rows = {name: self.chains[name].output.shape[0] for name in self.vocabulary}
        if len(set(rows.values())) < 2:
            return []
        return [f"{name} would have {count} rows" for name, count in sorted(rows.items())]


def begin(base: Mapping[str, TensorInfo], *, tied: bool, head: str = "") -> Merging:
    """The base as it is; `tied` says that its output layer, which is not among these tensors, is
    its input embedding, and `head` what it is called, where its files say that.
    """
    chains = {
        name: Chain(info, InputTensor("base", info))
        for name, info in base.items()
        if not is_buffer(name, info.shape)
    }
    matrices = [name for name, chain in chains.items() if len(chain.output.shape) == 2]
    embedding = next((name for name in matrices if name.endswith(INPUT_EMBEDDINGS)), "")
    rows = chains[embedding].output.shape[:1] if embedding else None
    prefix = "language_model." if embedding.startswith("language_model.") else ""
    return Merging(
        chains=chains,
        vocabulary=frozenset(
            name
            for name, chain in chains.items()
            if name.endswith((*INPUT_EMBEDDINGS, *HEADS)) and chain.output.shape[:1] == rows
        ),
        tied=(embedding, head or f"{prefix}{HEADS[0]}") if embedding and tied else None,
        dropped=tuple(sorted(base.keys() - chains.keys())),
    )


def add(merging: Merging, adapter: Adapter, *, as_peft: bool) -> None:
    """Put an adapter behind what is there; each tensor of it finds its place or is a problem.

    Where the output layer is tied to the input embedding and the adapter changes one of them, the
    two part, for so it was trained. With `as_peft` a product for either changes both, as in peft.
    """
    changes = _placed(merging, adapter)
    for target, change in _parted(merging, adapter, changes, as_peft=as_peft):
        changed = _changed(merging, merging.chains[target], change, adapter)
        if isinstance(changed, str):
            merging.problems.append(changed)
        else:
            merging.chains[target] = changed


def _placed(merging: Merging, adapter: Adapter) -> dict[str, Change]:
    """Each tensor of the adapter under the base's tensor that it changes."""
    changes: dict[str, Change] = {}
    problems = merging.problems
    copies = 0
    # The plain name first: the same tensor may follow as `modules_to_save`, and is left then.
    for name, info in sorted(adapter.tensors.items(), key=lambda each: len(each[0])):
        part = parse_part(name)
        target = _place(part.tensor, merging)
        if part.kind == "original":
            copies += 1
            continue
        if target is None:
            problems.append(f"no {part.tensor} in the base for {name}")
            continue
        parts = changes.setdefault(target, Change(part.module, {})).parts
        if part.kind not in parts:
            parts[part.kind] = info
        elif part.kind in _TWICE:
            copies += 1
        else:
            problems.append(f"{part.kind} of {part.tensor} is there twice, once as {name}")
    if copies:
        merging.notes.append(f"{adapter.role} holds {copies} second copies of tensors: left")
    return changes


def _place(name: str, merging: Merging) -> str | None:
    """The output tensor that an adapter means by a name."""
    for memory, files in RENAMED:
        if name.startswith(memory):
            target = files + name.removeprefix(memory)
            for each in (target, target.replace(*_ROUTER)):
                if each in merging.chains or (merging.tied and each == merging.tied[1]):
                    return each
    return None


def _parted(
    merging: Merging, adapter: Adapter, changes: dict[str, Change], *, as_peft: bool
) -> Iterator[tuple[str, Change]]:
    """The changes in order, those of a tied input embedding and output layer sorted out."""
    if merging.tied is None or not changes.keys() & set(merging.tied):
        yield from changes.items()
        return
    embedding, head = merging.tied
    ours = changes.pop(embedding, Change("", {}))
    heads = changes.pop(head, Change("", {}))
    yield from changes.items()
    # What a tied pair was trained on is one matrix, even where it was saved twice.
    stored = [each.parts.pop("base_layer", None) for each in (ours, heads)]
    matrix = stored[0] or stored[1]
    start = Change(ours.module, {"base_layer": matrix} if matrix else {})
    if adapter.same_head and stored[0] and heads.parts.keys() == {"whole"}:
        heads.parts.clear()
    wholes = [each.parts.get("whole") for each in (ours, heads)]
    resized = wholes[0] is not None and wholes[0].shape != merging.chains[embedding].output.shape
    if ours.parts and heads.parts and "token_rows" in ours.parts.keys() | heads.parts.keys():
        problem = f"{embedding} and {head} are tied, and one has token rows, the other a change"
        merging.problems.append(problem)
    elif as_peft and wholes == [None, None] and (ours.is_product or heads.is_product):
        note = f"{adapter.role} changes {embedding}, and with it the output layer, as in peft"
        merging.notes.append(note)
        yield from ((embedding, each) for each in (start, ours, heads) if each.parts)
    elif adapter.same_head and ours.parts.keys() == heads.parts.keys() == {"whole"}:
        yield embedding, ours
    elif not heads.parts and not ours.is_product and (wholes[0] is None or resized):
        yield from ((embedding, each) for each in (start, ours) if each.parts)
    else:
        merging.notes.append(f"{head} is no longer tied to {embedding}: {adapter.role} changes one")
        chain = merging.chains[embedding]
        merging.chains[head] = replace(chain, output=replace(chain.output, name=head))
        merging.vocabulary |= {head}
        merging.tied, merging.parted = None, True
        pairs = ((embedding, start), (head, start), (embedding, ours), (head, heads))
        yield from ((target, each) for target, each in pairs if each.parts)


def _changed(merging: Merging, chain: Chain, change: Change, adapter: Adapter) -> Chain | str:
    """The chain with one adapter's change behind it, or why that cannot be."""
    stored = change.parts.get("base_layer") or change.parts.get("whole")
    grows = chain.output.name in merging.vocabulary
    if stored is not None:
        same = stored.dtype == chain.output.dtype or {stored.dtype, chain.output.dtype} <= SUMMABLE
        if stored.shape[int(grows) :] != chain.output.shape[int(grows) :] or not same:
            return f"{chain.output.name} is {chain.output} in the base, not {stored}"
        output = replace(chain.output, shape=stored.shape)
        chain = Chain(output, InputTensor(adapter.role, stored))
    for find in FINDERS:
        found = find(chain.output, change, adapter.config)
        if isinstance(found, str):
            return found
        if found is None:
            continue
        step, infos = found
        for info in (chain.start.info, *infos):
            if info.dtype not in SUMMABLE:
                return f"{info.name} is {info.dtype}, which is no float that can be added to"
        rows = chain.output.shape[0]
        grown = max(rows, grown_rows(step))
        if grown > rows and not (grows and set(step.rows).issuperset(range(rows, grown))):
            return f"{chain.output.name} has {rows} rows, and the adapter not all that it lacks"
        chain = Chain(
            output=replace(chain.output, shape=(grown, *chain.output.shape[1:])),
            start=chain.start,
            steps=(*chain.steps, step),
            inputs=(*chain.inputs, *(InputTensor(adapter.role, info) for info in infos)),
        )
    return chain
