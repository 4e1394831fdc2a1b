"""What a base's tensors become by adapters, adapter by adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from weightsmith.catalogue.experts import ExpertFamily, expert_family
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS
from weightsmith.checkpoint.tied import HEADS
from weightsmith.codecs.lora.steps import Experts, Step
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.adapter_heads import Head
from weightsmith.plan.model import InputTensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, opened."""

    role: str
    config: AdapterConfig
    tensors: Mapping[str, TensorInfo]
    weight: float = 1.0
    """What everything that it adds is multiplied with."""
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
    experts: Experts | None = None
    """Which experts the tensor holds, where an adapter changes all of a layer at once."""


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
    family: ExpertFamily | None = None
    """How models like this one hold their experts, where that is known."""
    model_type: str = ""
    """As the base's config has it, for what is told to the user."""
    head: Head | None = None
    """The classifier that took the output layer's place, where an adapter brought one."""
    grouped: dict[str, dict[str, int]] = field(default_factory=dict)
    """Names of factors that are taken expert by expert, and of how many experts; by role."""
    parted: bool = False
    """Whether they were tied and are no longer."""
    problems: list[str] = field(default_factory=list)
    """Why an adapter does not fit, as sentences."""
    notes: list[str] = field(default_factory=list)
    """What the user should know, as sentences."""

    def holds(self, name: str) -> bool:
        """Whether there is such a tensor, or can be, where it is tied to another for now."""
        return name in self.chains or (self.tied is not None and name == self.tied[1])

    @property
    def uneven(self) -> list[str]:
        """Sentences about vocabulary tensors whose numbers of rows differ, where they do."""
        rows = {name: self.chains[name].output.shape[0] for name in self.vocabulary}
        if len(set(rows.values())) < 2:
            return []
        return [f"{name} would have {count} rows" for name, count in sorted(rows.items())]


def begin(
    base: Mapping[str, TensorInfo],
    *,
    tied: bool,
    head: str = "",
    config: Mapping[str, object] | None = None,
) -> Merging:
    """The base as it is; `tied` says that its output layer, which is not among these tensors, is
    its input embedding, and `head` what it is called, where its files say that. By its `config` it
    is known how it holds experts.
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
        family=expert_family(config or {}),
        model_type=str((config or {}).get("model_type", "")),
    )
