"""Compute the fingerprints of two models that are compared, reading as little as possible twice."""

from collections.abc import Iterable, Mapping, Sequence

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import fingerprint
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.ops.diff_pairs import Comparison, Measured
from weightsmith.progress import Progress


def digests_known(
    pairs: Iterable[Comparison], measured: Mapping[str, Measured], a: Checkpoint, b: Checkpoint
) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of whole tensors of A and of B that the comparison has computed, by their names."""
    of_a: dict[str, str] = {}
    of_b: dict[str, str] = {}
    for pair in pairs:
        name = pair.a.name
        if a.tensors[name].info == pair.a:
            of_a[name] = measured[name].a
        if b.tensors[name].info == pair.b and measured[name].b:
            of_b[name] = measured[name].b
    return of_a, of_b


def fingerprint_all(
    models: Sequence[tuple[Checkpoint, Mapping[str, str]]],
    buffers: Sequence[Buffers],
    progress: Progress,
) -> list[str]:
    """The fingerprint of each model; tensors whose digests are not known yet are read for it."""
    rests = [
        [tensor.info for name, tensor in model.tensors.items() if name not in known]
        for model, known in models
    ]
    progress.begin("reading the rest", sum(info.nbytes for rest in rests for info in rest))
    return [
        fingerprint({**known, **digest_tensors(rest, model.read_into, buffers, progress.advance)})
        for (model, known), rest in zip(models, rests, strict=True)
    ]
