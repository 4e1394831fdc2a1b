"""Folders and a hub in which the commands that a page shows can be run as they stand there.

All models are one tiny LLaMA and its fine-tunes; a scene gives them the names that the page uses.
"""

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.support import faq_folders, tiny
from tests.support.hub.server import Hub
from tests.support.paths import VECTORS
from weightsmith.ops.apply_delta import apply_delta


@dataclass(frozen=True)
class Cast:
    """The models of all scenes; no scene writes to them."""

    base: Path
    tuned: tuple[Path, ...]
    delta: Path
    """In FastChat's format, of the first of `tuned`."""
    broken: Path
    """The base as LLaMA of 2023 was: torch files, blank special tokens."""

    @classmethod
    def trained(cls, folder: Path) -> "Cast":
        """Train them, in about ten seconds."""
        tokenizer = folder / "tokenizer.model"
        tiny.train_sentencepiece(tokenizer)
        model = tiny.train_llama(tokenizer)
        base = folder / "base"
        tiny.save_llama(model, base, tokenizer)
        broken = Path(shutil.copytree(base, folder / "broken"))
        tiny.break_like_decapoda(broken)
        tuned = folder / "tuned"
        tiny.save_llama(tiny.finetune(model, tokenizer), tuned, tokenizer)
        for one in (base, tuned):
            for left in one.glob("*.index.json"):
                left.unlink(missing_ok=True)
        delta = folder / "delta"
        tiny.make_fastchat_delta(base, tuned, delta)
        others = tuple(_nudged(tuned, folder / f"tuned-{seed}", seed) for seed in (1, 2))
        return cls(base, (tuned, *others), delta, broken)


def _nudged(model: Path, to: Path, seed: int) -> Path:
    """Another fine-tune: every float16 of `model` moved by a few of its last bits, at random."""
    shutil.copytree(model, to)
    numbers = np.random.default_rng(seed)
    for path in to.glob("*.safetensors"):
        raw = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", raw[:8])
        for name, entry in json.loads(raw[8 : 8 + length]).items():
            if name != "__metadata__" and entry["dtype"] == "F16":
                start, end = (8 + length + at for at in entry["data_offsets"])
                words = np.frombuffer(raw[start:end], "<i2")
                moved = words + numbers.integers(-3, 4, words.shape, "i2")
                raw[start:end] = moved.astype("<i2").tobytes()
        path.write_bytes(raw)
    return to


Scene = Callable[[Cast, Path, Hub], None]


def _place(here: Path, models: Mapping[str, Path]) -> None:
    for name, model in models.items():
        shutil.copytree(model, here / name)


def llama_and_vicuna(cast: Cast, here: Path, hub: Hub) -> None:
    """On disk and on the hub; the base as 2023 had it."""
    _place(here, {"llama-7b": cast.broken, "vicuna-7b-delta-v1.1": cast.delta})
    hub.add("huggyllama/llama-7b", cast.base)
    hub.add("lmsys/vicuna-7b-delta-v1.1", cast.delta)


def vicuna_applied(cast: Cast, here: Path, hub: Hub) -> None:
    """The two, and what they make."""
    llama_and_vicuna(cast, here, hub)
    _place(here, {"vicuna-7b-v1.1": cast.tuned[0], "vicuna-7b": cast.tuned[0]})


def vicuna_damaged(cast: Cast, here: Path, hub: Hub) -> None:
    """The two and what they make, once whole and once with a byte that is another."""
    llama_and_vicuna(cast, here, hub)
    made = here / "vicuna-7b-v1.1"
    apply_delta(here / "llama-7b", here / "vicuna-7b-delta-v1.1", target=made)
    harmed = shutil.copytree(made, here / "vicuna-7b") / "model.safetensors"
    content = bytearray(harmed.read_bytes())
    content[-1] ^= 1
    harmed.write_bytes(content)


def hub_alone(cast: Cast, here: Path, hub: Hub) -> None:
    """Nothing on disk yet."""
    hub.add("huggyllama/llama-7b", cast.base)
    hub.add("lmsys/vicuna-7b-delta-v1.1", cast.delta)


def fine_tunes(cast: Cast, here: Path, hub: Hub) -> None:
    """A base and three models that were made from it."""
    _place(here, {"base": cast.base})
    _place(here, {f"tuned-{each:02}": model for each, model in enumerate(cast.tuned, 1)})


def my_model(cast: Cast, here: Path, hub: Hub) -> None:
    """A fine-tune of somebody's own, its base here and on the hub."""
    _place(here, {"llama-7b": cast.base, "my-7b": cast.tuned[0]})
    hub.add("org/llama-7b", cast.base)


def three_models(cast: Cast, here: Path, hub: Hub) -> None:
    """Steps of one run, two fine-tunes of one base, two models on the hub."""
    names = ("step-900", "step-800", "step-700", "math-7b")
    _place(here, dict(zip(names, (*cast.tuned, cast.tuned[1]), strict=True)))
    _place(here, {"llama-7b": cast.base})
    hub.add("org/a-7b", cast.tuned[0])
    hub.add("org/b-7b", cast.tuned[1])


def broken_folder(cast: Cast, here: Path, hub: Hub) -> None:
    """What many have on their disks since 2023."""
    _place(here, {"my-llama": cast.broken})


def adapters(cast: Cast, here: Path, hub: Hub) -> None:
    """A base and its adapters."""
    lora = VECTORS / "lora" / "plain_fp16"
    quantised = VECTORS / "merge" / "q_bnb_nf4"
    _place(here, {"llama-7b": lora / "base", "llama-3-8b-bnb-4bit": quantised / "base"})
    _place(here, {"qlora": quantised / "adapter"})
    for name in ("alpaca-lora-7b", "chinese-llama-lora", "chinese-alpaca-lora", "a", "b"):
        shutil.copytree(lora / "adapter", here / name)


def meta_files(cast: Cast, here: Path, hub: Hub) -> None:
    """Meta's own layout, and a folder of torch files."""
    shutil.copytree(VECTORS / "meta_llama1_2shards" / "meta", here / "LLaMA")
    _place(here, {"opt-6.7b": cast.broken, "qwen3-8b-awq": VECTORS / "merge" / "q_awq" / "base"})


def whole_files(cast: Cast, here: Path, hub: Hub) -> None:
    """Releases that the original tools of Open-Assistant and point-alpaca encoded."""
    xor, encrypted = VECTORS / "oasst_xor", VECTORS / "point_alpaca_enc"
    _place(here, {"llama-7b-hf": xor / "base", "my-sft-7b-xor": xor / "delta"})
    _place(here, {"point-alpaca": encrypted / "delta", "LLaMA/7B": encrypted / "key"})


def every_fault(cast: Cast, here: Path, hub: Hub) -> None:
    """A folder for each message that the page of questions answers with a command."""
    _place(here, {"my-llama": cast.broken})
    faq_folders.place(here, cast.base)


SCENES: Final[Mapping[str, Scene]] = {
    "README.md": hub_alone,
    "docs/README.zh.md": hub_alone,
    "docs/README.ko.md": hub_alone,
    "docs/tutorials/vicuna.md": hub_alone,
    "docs/tutorials/thirty-fine-tunes.md": fine_tunes,
    "docs/tutorials/cache.md": hub_alone,
    "docs/tutorials/rescue.md": broken_folder,
    "docs/how-to/apply-delta.md": llama_and_vicuna,
    "docs/how-to/air-gapped.md": hub_alone,
    "docs/how-to/clean-cache.md": hub_alone,
    "docs/how-to/combine.md": three_models,
    "docs/how-to/completion.md": hub_alone,
    "docs/how-to/convert.md": meta_files,
    "docs/how-to/diff.md": vicuna_applied,
    "docs/how-to/download.md": hub_alone,
    "docs/how-to/file-releases.md": whole_files,
    "docs/how-to/inspect.md": llama_and_vicuna,
    "docs/how-to/make-delta.md": my_model,
    "docs/how-to/merge-lora.md": adapters,
    "docs/how-to/publish.md": my_model,
    "docs/how-to/verify.md": vicuna_damaged,
    "docs/reference/faq.md": every_fault,
}
"""The scene of each page whose commands are run, by the page's path in the repository."""
