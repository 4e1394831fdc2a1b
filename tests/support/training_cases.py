"""What training frameworks left, and what becomes of each: the oracle's bits, or a refusal."""

import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.paths import VECTORS
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.opening import open_checkpoint, open_weight_file
from weightsmith.errors import WeightsmithError
from weightsmith.ops.convert import convert

LEFT: Final = VECTORS / "training"
FP32: Final = {"weights": "fp32"}


@dataclass(frozen=True, slots=True)
class Case:
    """One output of a framework."""

    source: str
    """Below `LEFT`."""
    what: str
    """A cell of the table."""
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    """Of the error that it gets; empty where it is converted."""
    oracle: str = "oracle.safetensors"
    tied: tuple[str, ...] = ()
    """Tensors that are not written, for the config ties them."""

    @property
    def id(self) -> str:
        """The folder, and what tells the case from others in it."""
        name, _, rest = self.source.partition("/ckpt")
        return f"{name}{rest}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What converting a case gave."""

    wrong: tuple[str, ...]
    """Tensors that are not the oracle's; empty where all are, or where it was refused."""
    error: WeightsmithError | None
    published: bool


HEAD: Final = ("lm_head.weight",)

CASES: Final = (
    Case("fsdp2_fp32/ckpt", "FSDP2, bf16 compute, float32 weights; verl's files"),
    Case("fsdp2_bf16_tied/ckpt", "FSDP2, bf16, tied embeddings", tied=HEAD),
    Case("fsdp2_buffers/ckpt", "FSDP2, buffers, scalars, empty shards"),
    Case("fsdp2_hsdp/ckpt", "FSDP2, HSDP 2 x 2"),
    Case("fsdp2_hsdp_torch26/ckpt", "FSDP2, HSDP 2 x 2, torch 2.6"),
    Case("fsdp2_tp/ckpt", "FSDP2 over tensor parallelism 2 x 2"),
    Case("fsdp1_dtensor/ckpt", "FSDP1 with a mesh"),
    Case("fsdp1_sharded_buffers/ckpt", "FSDP1, sharded state dict (ShardedTensor)"),
    Case("fsdp1_full/ckpt", "FSDP1, full state dict"),
    Case("fsdp1_wrapped_names/ckpt", "FSDP1, the wrappers' words within names"),
    Case("fsdp1_local/ckpt", "FSDP1, local state dict", reference="model-unnamed"),
    Case("fsdp1_local_orig/ckpt", "FSDP1, local, original names", reference="model-unnamed"),
    Case("dcp_plain_w1/ckpt", "DCP, one process"),
    Case("dcp_plain_w4/ckpt", "DCP, four processes"),
    Case("dcp_tied/ckpt", "DCP, tied embeddings"),
    Case("dcp_buffers/ckpt", "DCP, buffers, scalars, empty chunks"),
    Case("dcp_wrapped/ckpt", "DCP, `{'model': ...}` beside other values"),
    Case("dcp_wrapped_torch26/ckpt", "DCP, `{'model': ...}`, torch 2.6"),
    Case("dcp_app/ckpt", "DCP, a Stateful with model and optimizer"),
    Case("dcp_async/ckpt", "DCP, saved asynchronously"),
    Case("dcp_hf_buffers/ckpt", "DCP in safetensors, four processes"),
    Case("dcp_hf_consolidated/ckpt", "DCP in safetensors, consolidated"),
    Case("dcp_hf_consolidated/ckpt/sharded", "its shards"),
    Case("dcp_hf_whole/ckpt", "DCP in safetensors, one process"),
    Case("accelerate_fsdp2_sharded/ckpt", "accelerate, FSDP2, from the folder above"),
    Case("accelerate_fsdp2_sharded/ckpt/pytorch_model_fsdp_0", "and the folder itself"),
    Case(
        "accelerate_fsdp2_sharded/ckpt/optimizer_0",
        "its optimizer",
        reference="no-model-inside",
    ),
    Case("ds_zero0/ckpt", "ZeRO-0"),
    Case("ds_zero0/ckpt", "ZeRO-0, float32 weights", FP32, reference="precision-missing"),
    Case("ds_zero1_bf16opt/ckpt", "ZeRO-1, bf16 with float32 gradients", FP32),
    Case("ds_zero2_buffers/ckpt", "ZeRO-2, buffers", FP32),
    Case("ds_zero2_fp16/ckpt", "ZeRO-2, fp16", FP32),
    Case("ds_zero2_frozen/ckpt", "ZeRO-2, frozen weights", FP32),
    Case("ds_zero2_groups/ckpt", "ZeRO-2, groups of the optimizer", FP32),
    Case("ds_zero3_buffers/ckpt", "ZeRO-3, buffers", FP32),
    Case("ds_zero3_frozen/ckpt", "ZeRO-3, frozen weights", FP32),
    Case("ds_zero3_subgroups/ckpt", "ZeRO-3, subgroups", FP32),
    Case("ds_zero3_tied/ckpt", "ZeRO-3, tied embeddings", FP32, tied=HEAD),
    Case("ds_zero3_w3/ckpt", "ZeRO-3, three processes", FP32),
    Case("hf_trainer/ckpt", "Trainer, from above `checkpoint-4`"),
    Case("hf_trainer_ds3/ckpt", "Trainer with ZeRO-3", FP32),
    Case("peft_zero3/ckpt", "PEFT with ZeRO-3, the empty adapter", reference="no-parameters"),
    Case("peft_zero3/ckpt/zero", "its states", FP32, oracle="oracle-zero.safetensors"),
    Case("lightning/ckpt/last.ckpt", "Lightning"),
    Case("lightning/ckpt", "two of them in a folder", reference="several-outputs"),
    Case("prefixes/ckpt/ddp.pt", "`module.` before names"),
    Case("prefixes/ckpt/compiled.pt", "`_orig_mod.` before names"),
    Case("prefixes/ckpt/compiled_layers.pt", "`_orig_mod.` within names"),
    Case("prefixes/ckpt/ddp_of_compiled.pt", "both, under `state_dict`"),
    Case("wrappers/ckpt/recipe_model.pt", "`{'model': ...}` beside an optimizer"),
    Case("wrappers/ckpt/module.pt", "`{'module': ...}`"),
    Case("wrappers/ckpt/whole_module.pt", "a pickled module", reference="pickle-forbidden"),
)


def outcome_of(case: Case) -> Outcome:
    """Convert it, and hold what was written against the oracle."""
    with tempfile.TemporaryDirectory(prefix="weightsmith-") as directory:
        target = Path(directory, "target")
        try:
            convert(LEFT / case.source, target, **case.options)
        except WeightsmithError as error:
            return Outcome((), error, target.exists())
        oracle = open_weight_file(LEFT / case.source.split("/", maxsplit=1)[0], case.oracle)
        wrong = tuple(differences(oracle, open_checkpoint(target), case.tied))
        shutil.rmtree(target)
        return Outcome(wrong, None, published=True)


def differences(oracle: Checkpoint, made: Checkpoint, tied: tuple[str, ...] = ()) -> Iterator[str]:
    """Tensors that are not the same to the last bit; those that are `tied` may be left out."""
    for name in sorted({*oracle.tensors} ^ {*made.tensors} - {*tied}):
        if name not in tied:
            yield f"{name} is in one of the two"
    for name in sorted({*oracle.tensors} & {*made.tensors}):
        if oracle.tensors[name].info != made.tensors[name].info:
            yield f"{name} is {made.tensors[name].info}, not {oracle.tensors[name].info}"
        elif oracle.read_small(name) != made.read_small(name):
            yield f"{name} has other bytes"


# --- how a distributed checkpoint is damaged ------------------------------------------------------


def edit_metadata(source: Path, edit: Callable[[Any], object]) -> None:
    """Change what ``.metadata`` says, in place."""
    metadata = pickle.loads((source / ".metadata").read_bytes())
    edit(metadata)
    (source / ".metadata").write_bytes(pickle.dumps(metadata))


def first_place(metadata: Any) -> Any:
    """Where the first piece of a tensor lies."""
    return next(iter(metadata.storage_data.values()))
