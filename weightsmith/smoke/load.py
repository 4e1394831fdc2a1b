"""Make a transformers model of a checkpoint whose bytes come through our own reader.

Transformers is given values: the sidecars' content in a scratch directory, without any code among
them, and tensors. It opens no file of the checkpoint, so that torch files are never unpickled, and
whatever opens as a checkpoint can run, also one that is nowhere written.
"""

import errno
import importlib.util
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import (
    ArchitectureConverted,
    ArchitectureUnknown,
    ModelNotRunnable,
    NoCuda,
    OutOfMemory,
    PackageMissing,
    WeightsmithError,
)
from weightsmith.formats.tensors import TORCH_NAMES
from weightsmith.smoke.weights import Weights

Device = Literal["auto", "cpu", "cuda"]

_NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "can't start new thread")
"""How torch, on Linux and Windows, and Python say it where they have no class for it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run, in transformers' own types."""

    model: Any
    tokenizer: Any


def choose_device(device: Device, *, low_cpu_mem: bool = False) -> str:
    """Where torch is to run the model: ``"cpu"`` or ``"cuda"``.

    Raises: NoCuda; PackageMissing, if that takes accelerate and it is not installed.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise NoCuda
    where = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if (low_cpu_mem or where == "cuda") and importlib.util.find_spec("accelerate") is None:
        wish = "`low_cpu_mem`" if low_cpu_mem else "a smoke test on a GPU"
        raise PackageMissing(wish=wish, package="accelerate")
    return where


def load(checkpoint: Checkpoint, where: str, *, low_cpu_mem: bool) -> Loaded:
    """The model in the dtype that most of its weights have, and its tokenizer.

    Memory: the model; with `low_cpu_mem`, for as long as it computes, one tensor at a time, each
    read anew whenever it is needed.
    Raises: ArchitectureUnknown, ArchitectureConverted; ModelNotRunnable, if files or tensors are
    not what transformers wants; OutOfMemory; what reading the checkpoint meets.
    """
    import transformers

    library: Any = transformers
    model_type = checkpoint.config.get("model_type")
    if model_type not in library.CONFIG_MAPPING:
        raise ArchitectureUnknown(model_type=model_type or "no model_type")
    with translated(checkpoint), _sidecars(checkpoint) as folder:
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        config = library.AutoConfig.from_pretrained(folder, **safe)
        model_class = library.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if model_class is None:
            raise ArchitectureUnknown(model_type=model_type)
        tokenizer = library.AutoTokenizer.from_pretrained(folder, **safe)
        if low_cpu_mem:
            model = _offloaded(config, checkpoint, where)
        else:
            model = _whole(model_class, config, checkpoint, where)
        if (folder / "generation_config.json").exists():
            model.generation_config = library.GenerationConfig.from_pretrained(folder)
        model.eval()
    return Loaded(model, tokenizer)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's notes, bars and warnings off the terminal: what they say is judged."""
    import transformers

    library: Any = transformers
    library.utils.logging.set_verbosity(library.utils.logging.CRITICAL)
    library.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def translated(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn whatever transformers and the libraries below it raise into errors of ours.

    Raises: ModelNotRunnable, OutOfMemory.
    """
    import torch

    try:
        yield
    except WeightsmithError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(source=checkpoint.label) from error
    except Exception as error:  # a config that makes no sense can raise anything
        if getattr(error, "errno", 0) == errno.ENOMEM or any(w in str(error) for w in _NO_MEMORY):
            raise OutOfMemory(source=checkpoint.label) from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotRunnable(source=checkpoint.label, reason=first) from error


@contextmanager
def _sidecars(checkpoint: Checkpoint) -> Iterator[Path]:
    """The files beside the weights, but for code, in a directory for as long as they are read."""
    with tempfile.TemporaryDirectory(prefix="weightsmith-") as scratch:
        folder = Path(scratch)
        for name in checkpoint.sidecars:
            if not name.endswith(".py"):
                (folder / name).write_bytes(checkpoint.read_sidecar(name))
        yield folder


def _whole(model_class: Any, config: Any, checkpoint: Checkpoint, where: str) -> Any:
    """All of it on the device, one tensor after the other.

    Raises: ModelNotRunnable.
    """
    placed: dict[str, Any] = {} if where == "cpu" else {"device_map": {"": where}}
    model, found = model_class.from_pretrained(
        None,
        config=config,
        state_dict=Weights(checkpoint).lazily(),
        dtype=_dtype(checkpoint),
        ignore_mismatched_sizes=True,  # so that they are told by name
        output_loading_info=True,
        **placed,
    )
    others = [f"{name} has another shape" for name, *_ in found["mismatched_keys"]]
    _require_all(checkpoint, [*found["missing_keys"], *others])
    return model


def _offloaded(config: Any, checkpoint: Checkpoint, where: str) -> Any:
    """The model without its weights; accelerate asks for each when it is needed.

    Raises: ModelNotRunnable, ArchitectureConverted.
    """
    import accelerate
    import transformers

    library: Any = transformers
    with accelerate.init_empty_weights(include_buffers=False):
        model = library.AutoModelForCausalLM.from_config(config, dtype=_dtype(checkpoint))
    model.tie_weights()  # each parameter was made anew, without its storage
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    copies: dict[str, str] = {}
    prefix = f"{model.base_model_prefix}."  # what a model that was saved without its head lacks
    for tied in names.values():
        known = [each for name in tied for each in (name, name.removeprefix(prefix))]
        held = next((name for name in known if name in checkpoint.tensors), tied[0])
        copies |= {name: held for name in tied if name not in checkpoint.tensors and name != held}
    weights = Weights(checkpoint, copies)
    lacking = [name for name in model.state_dict() if name not in weights]
    unused = checkpoint.tensors.keys() - model.state_dict().keys() - {*copies.values()}
    if lacking and any(not is_buffer(each, checkpoint.tensors[each].info.shape) for each in unused):
        raise ArchitectureConverted(count=len(lacking), context=lacking)
    _require_all(checkpoint, lacking)
    accelerate.cpu_offload(model, execution_device=where, state_dict=weights)
    return model


def _require_all(checkpoint: Checkpoint, lacking: list[str]) -> None:
    """Raises: ModelNotRunnable."""
    if lacking:
        reason = f"{len(lacking)} tensor(s) that it wants are not there"
        raise ModelNotRunnable(source=checkpoint.label, reason=reason, context=sorted(lacking))


def _dtype(checkpoint: Checkpoint) -> Any:
    """The dtype that holds most of the bytes among the floats that a model can compute in."""
    import torch

    held = Counter({"F32": 0})
    for tensor in checkpoint.tensors.values():
        if tensor.info.dtype in TORCH_NAMES:
            held[tensor.info.dtype] += tensor.info.nbytes
    return getattr(torch, TORCH_NAMES[held.most_common(1)[0][0]])
