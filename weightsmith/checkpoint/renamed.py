"""The same model under the longer or shorter names that it has with its head or without it."""

from collections.abc import Iterable, Iterator

from weightsmith.checkpoint.checkpoint import Checkpoint


def named_like(checkpoint: Checkpoint, names: Iterable[str]) -> Checkpoint:
    """The checkpoint, its tensors renamed if most of them are among `names` with one word more
    before their names, or with one less, and only then.

    Transformers gives a model that is saved without its head, as the first GPT-2 and BLOOM were,
    ``h.0.ln_1.weight``, and what is trained from it ``transformer.h.0.ln_1.weight``.
    """
    own, wanted = set(checkpoint.tensors), set(names)
    half = len(own) / 2
    if len(own & wanted) >= half:
        return checkpoint
    for word in sorted({f"{name.partition('.')[0]}." for name in own | wanted}):
        for how, renamed in _renamings(own - wanted, word):
            found = {name: new for name, new in renamed.items() if new in wanted - own}
            if len(found) > half:
                note = f"its tensors' names are read {how} before them"
                return checkpoint.renamed(found, note)
    return checkpoint


def _renamings(names: Iterable[str], word: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Names with a word before them, and without it, and how it is."""
    yield f"with {word}", {name: word + name for name in names}
    shorter = {name: name.removeprefix(word) for name in names if name.startswith(word)}
    yield f"without {word}", shorter
