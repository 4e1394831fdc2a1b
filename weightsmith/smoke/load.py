"""Make a transformers model of a checkpoint whose bytes come through our own reader.

Transformers is given values: what may be known of the sidecars, in a scratch directory, and
tensors. It opens no file of the checkpoint, so that torch files are never unpickled, and whatever
opens as a checkpoint can run, also one that is nowhere written.
"""

import dataclasses
import errno
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.errors import (
    ArchitectureConverted,
    ArchitectureUnknown,
    ModelNotRunnable,
    OutOfMemory,
    WeightsmithError,
)
from weightsmith.formats.tensors import TORCH_NAMES
from weightsmith.smoke.allowed import chooses_code
from weightsmith.smoke.weights import Given, Weights
from weightsmith.units import counted

_NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "can't start new thread")
"""How torch, on Linux and Windows, and Python say it where they have no class for it."""


_ATTENTION: Final = "eager"
"""Plain torch: others may be native code that is fetched."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run, in transformers' own types."""

    model: Any
    tokenizer: Any


def load(given: Given, where: str, *, low_cpu_mem: bool) -> Loaded:
    """The model in the dtype that most of its weights have, and its tokenizer.

    Memory: the model; with `low_cpu_mem`, for as long as it computes, one tensor at a time, each
    read anew whenever it is needed.
    Raises: ArchitectureUnknown, ArchitectureConverted; ModelNotRunnable, if files or tensors are
    not what transformers wants; OutOfMemory; what reading the checkpoint meets.
    """
    import transformers

    library: Any = transformers
    with translated(given):
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        config = library.AutoConfig.from_pretrained(given.folder, **safe)
        _require_settings(given, config)
        model_class = library.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if model_class is None:
            raise ArchitectureUnknown(model_type=config.model_type)
        tokenizer = library.AutoTokenizer.from_pretrained(given.folder, **safe)
        make = _offloaded if low_cpu_mem else _whole
        model = make(model_class, config, given, where)
        if (given.folder / "generation_config.json").exists():
            model.generation_config = library.GenerationConfig.from_pretrained(given.folder)
        model.eval()
    return Loaded(model, tokenizer)


def require_known(model_type: object) -> None:
    """Raises: ArchitectureUnknown, if transformers itself has no code for such a model."""
    import transformers

    library: Any = transformers
    if model_type not in library.CONFIG_MAPPING:
        raise ArchitectureUnknown(model_type=model_type or "no model_type")


def _require_settings(given: Given, config: Any) -> None:
    """Raises: ModelNotRunnable, if a setting that the architecture knows was not handed on: what it
    falls back to would make another model.
    """
    for setting in given.left:
        *outer, name = setting.split(".")
        part = config
        for each in outer:
            part = getattr(part, each, None)
        if name in _declared(part) and not chooses_code(name):
            reason = f"{setting} in its config is no value that may be handed on"
            raise ModelNotRunnable(source=given.label, reason=reason)


def _declared(config: Any) -> set[str]:
    """Names of the settings that an architecture declares."""
    if dataclasses.is_dataclass(config):
        return {each.name for each in dataclasses.fields(config)}
    return {*inspect.signature(type(config).__init__).parameters}


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
def translated(given: Given) -> Iterator[None]:
    """Turn whatever transformers and the libraries below it raise into errors of ours.

    Raises: ModelNotRunnable, OutOfMemory.
    """
    import torch

    try:
        yield
    except WeightsmithError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(source=given.label) from error
    except Exception as error:  # a config that makes no sense can raise anything
        if getattr(error, "errno", 0) == errno.ENOMEM or any(w in str(error) for w in _NO_MEMORY):
            raise OutOfMemory(source=given.label) from error
        raise ModelNotRunnable(source=given.label, reason=in_a_line(error)) from error


def in_a_line(error: Exception) -> str:
    """What a library says went wrong, on one line: its first, or all where that announces more.

    Names in backticks are arguments of ours to whoever shows the message.
    """
    lines = str(error).replace("`", "'").strip().splitlines() or [type(error).__name__]
    return " ".join(map(str.strip, lines)) if lines[0].rstrip().endswith(":") else lines[0]


def _whole(model_class: Any, config: Any, given: Given, where: str) -> Any:
    """All of it on the device, one tensor after the other.

    Raises: ModelNotRunnable.
    """
    placed: dict[str, Any] = {} if where == "cpu" else {"device_map": {"": where}}
    model, found = model_class.from_pretrained(
        None,
        config=config,
        state_dict=Weights(given).lazily(),
        dtype=_dtype(given),
        attn_implementation=_ATTENTION,
        ignore_mismatched_sizes=True,  # so that they are told by name
        output_loading_info=True,
        **placed,
    )
    others = [f"{name} has another shape" for name, *_ in found["mismatched_keys"]]
    _require_all(given, [*found["missing_keys"], *others])
    return model


def _offloaded(model_class: Any, config: Any, given: Given, where: str) -> Any:
    """The model without its weights; accelerate asks for each when it is needed.

    Raises: ModelNotRunnable, ArchitectureConverted.
    """
    import accelerate

    how = {"dtype": _dtype(given), "attn_implementation": _ATTENTION}
    with accelerate.init_empty_weights(include_buffers=False):
        model = model_class._from_config(config, **how)  # noqa: SLF001  (what AutoModel calls)
    model.tie_weights()  # each parameter was made anew, without its storage
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    copies: dict[str, str] = {}
    prefix = f"{model.base_model_prefix}."  # what a model that was saved without its head lacks
    for tied in names.values():
        known = [each for name in tied for each in (name, name.removeprefix(prefix))]
        held = next((name for name in known if name in given.tensors), tied[0])
        copies |= {name: held for name in tied if name not in given.tensors and name != held}
    weights = Weights(given, copies)
    lacking = [name for name in model.state_dict() if name not in weights]
    unused = given.tensors.keys() - model.state_dict().keys() - {*copies.values()}
    if lacking and any(not is_buffer(each, given.tensors[each].shape) for each in unused):
        raise ArchitectureConverted(count=len(lacking), context=lacking)
    _require_all(given, lacking)
    accelerate.cpu_offload(model, execution_device=where, state_dict=weights)
    return model


def _require_all(given: Given, lacking: list[str]) -> None:
    """Raises: ModelNotRunnable."""
    if lacking:
        reason = f"it lacks {counted(len(lacking), 'tensor')} that it wants"
        raise ModelNotRunnable(source=given.label, reason=reason, context=sorted(lacking))


def _dtype(given: Given) -> Any:
    """The dtype that holds most of the bytes among the floats that a model can compute in."""
    import torch

    held = Counter({"F32": 0})
    for info in given.tensors.values():
        if info.dtype in TORCH_NAMES:
            held[info.dtype] += info.nbytes
    return getattr(torch, TORCH_NAMES[held.most_common(1)[0][0]])
