"""Choose the files that travel beside a merged model: the base's, and an adapter's tokenizer."""

from collections.abc import Mapping, Sequence

from weightsmith.checkpoint.checkpoint import Checkpoint, embedding_rows
from weightsmith.checkpoint.sidecars import TOKENIZER, VOCABULARY, matches
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.sidecars import Sidecars, publish_sidecars


def merged_sidecars(
    base: Checkpoint,
    loras: Mapping[str, Checkpoint],
    outputs: Sequence[TensorInfo],
    settings: Mapping[str, object],
) -> Sidecars:
    """The base's files; of the last adapter that brings a vocabulary, its whole tokenizer instead.

    The config is made to say how many tokens there are, where adapters changed that, and what
    `settings` are.
    Raises: JsonInvalid, if the config is none.
    """
    origins = dict.fromkeys(base.sidecars, "base")
    notes = []
    for role, lora in loras.items():
        tokenizer = [name for name in lora.sidecars if matches(name, TOKENIZER)]
        if any(matches(name, VOCABULARY) for name in tokenizer):
            origins = {name: had for name, had in origins.items() if not matches(name, TOKENIZER)}
            origins |= dict.fromkeys(tokenizer, role)
        elif tokenizer:
            notes.append(f"{role}: {', '.join(tokenizer)} without a vocabulary: left")
    true = dict(settings)
    rows = embedding_rows(outputs)
    if rows is not None and rows != base.embedding_rows:
        true["vocab_size"] = rows
    return publish_sidecars(
        {"base": base, **loras}, origins, outputs, notes=tuple(notes), settings=true
    )
