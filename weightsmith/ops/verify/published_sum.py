"""Hold a result against the sum of all weights that its release published."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightsmith.catalogue.schema import PublishedSum, Release
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.kind import floats
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.spans import Buffers
from weightsmith.ops.verify.sum_tensors import sum_tensors
from weightsmith.progress import SILENCE, Progress

INV_FREQ = ".rotary_emb.inv_freq"


@dataclass(frozen=True, slots=True)
class SumReport:
    """The sums of a result, and what was published."""

    float32: float
    """Without ``inv_freq``, added as the published scripts do."""
    float64: float
    """Without ``inv_freq``."""
    inv_freq: float
    """What the rotary buffers add, which old transformers counted and new ones do not hold."""
    release: str = ""
    published: PublishedSum | None = None

    @property
    def agrees(self) -> bool:
        """Whether one of the sums is the published one within its tolerance."""
        if self.published is None:
            return False
        sums = (self.float32, self.float64)
        ours = {
            "included": [each + self.inv_freq for each in sums],
            "excluded": list(sums),
        }.get(self.published.inv_freq, [e + part for e in sums for part in (0, self.inv_freq)])
        return any(abs(each - self.published.value) <= self.published.tolerance for each in ours)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        published = self.published
        return {
            "release": self.release,
            "published": published.value if published else None,
            "tolerance": published.tolerance if published else None,
            "agrees": self.agrees if published else None,
            "float32_without_inv_freq": self.float32,
            "float32_with_inv_freq": self.float32 + self.inv_freq,
            "float64_without_inv_freq": self.float64,
            "float64_with_inv_freq": self.float64 + self.inv_freq,
        }


def sum_report(
    directory: Path,
    release: Release | None,
    inputs: Mapping[str, Checkpoint],
    *,
    threads: int,
    progress: Progress = SILENCE,
) -> SumReport:
    """`sum_checkpoint` of a finished model."""
    model = open_checkpoint(directory)
    return sum_checkpoint(model, release, inputs, threads=threads, progress=progress)


def sum_checkpoint(
    model: Checkpoint,
    release: Release | None,
    inputs: Mapping[str, Checkpoint],
    *,
    threads: int,
    progress: Progress = SILENCE,
) -> SumReport:
    """Sum the weights of a model, reading all of it once.

    `inputs` are those that it was made from, whose ``inv_freq`` counts where they hold it.
    Memory: one span and its float64 copy a worker.
    """
    progress.begin("summing", model.nbytes)
    sums = sum_tensors(
        [tensor.info for tensor in model.tensors.values()],
        model.read_into,
        [Buffers() for _ in range(threads)],
        progress.advance,
    )
    return SumReport(
        float32=sums.float32,
        float64=sums.float64,
        inv_freq=_stored_inv_freq(inputs) or _computed_inv_freq(model.config),
        release=release.name if release else "",
        published=release.sums[0] if release and release.sums else None,
    )


def _stored_inv_freq(inputs: Mapping[str, Checkpoint]) -> float:
    """The sum of the inputs' buffers: base plus delta is what the published tools counted."""
    return math.fsum(
        value
        for checkpoint in inputs.values()
        for tensor in checkpoint.tensors.values()
        if tensor.info.name.endswith(INV_FREQ)
        for value in floats(checkpoint, tensor)
    )


def _computed_inv_freq(config: Mapping[str, Any]) -> float:
    """What the buffers of a LLaMA of this config hold, summed; 0 where the config does not say."""
    try:
        head_dim = config["hidden_size"] // config["num_attention_heads"]
        theta = float(config.get("rope_theta", 10000.0))
        layers = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ZeroDivisionError):
        return 0.0
    return layers * math.fsum(theta ** (-each / head_dim) for each in range(0, head_dim, 2))
