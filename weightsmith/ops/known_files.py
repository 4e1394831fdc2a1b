"""Compare a source's files with the hashes that were published for them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weightsmith.catalogue.load import load_bases
from weightsmith.catalogue.schema import Checksums
from weightsmith.engine.file_hashes import Hashes, hash_files
from weightsmith.engine.spans import Buffers
from weightsmith.errors import FilesNotAsPublished
from weightsmith.progress import SILENCE, Progress

Verdict = Literal["known", "differs", "not known"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the catalogue knows of one file."""

    file: str
    verdict: Verdict
    reason: str

    def __str__(self) -> str:
        """``params.json: known, LLaMA 13B's by md5 (shawwn/llama-dl#4)``."""
        return f"{self.file}: {self.verdict}, {self.reason}"


def check_known(
    files: Mapping[str, Path], weights: Iterable[str], *, threads: int, progress: Progress = SILENCE
) -> tuple[Finding, ...]:
    """Hash files, given by name, and compare them with the hashes of the catalogue's bases;
    `weights` are the names of those that hold tensors.

    Files are compared with a base only if the hash of one of them proves that they are that base's:
    an equal name proves nothing, nor does a file that several models share.
    Raises: FilesNotAsPublished, if a weight file differs from the base that its neighbours are of.
    """
    groups = [
        (base.name, group)
        for base in load_bases()
        for group in base.checksums
        if group.of in {"meta", "huggingface"}
    ]
    hashes = _hashed(files, [group for _, group in groups], threads, progress)
    shared = Counter(
        digest for _, digest in {(name, d) for name, g in groups for d in g.files.values()}
    )
    findings = {name: Finding(name, "not known", "no hash is published") for name in files}
    findings |= {
        name: Finding(name, "not known", "it has none of the published hashes") for name in hashes
    }
    for base, group in groups:
        ours = {n: h[group.algorithm] for n, h in hashes.items() if n in group.files}
        if not any(group.files[n] == d and shared[d] == 1 for n, d in ours.items()):
            continue
        by = f"by {group.algorithm} ({group.source})"
        for name, digest in ours.items():
            if digest == group.files[name]:
                findings[name] = Finding(name, "known", f"{base}'s {by}")
            elif findings[name].verdict != "known":  # another conversion of the same base
                findings[name] = Finding(name, "differs", f"not {base}'s {by}")
    wrong = [str(findings[name]) for name in weights if findings[name].verdict == "differs"]
    if wrong:
        raise FilesNotAsPublished(count=len(wrong), context=wrong)
    return tuple(findings.values())


def _hashed(
    files: Mapping[str, Path], groups: Sequence[Checksums], threads: int, progress: Progress
) -> dict[str, Hashes]:
    """Hash the files that have published hashes, by the algorithms of those."""
    algorithms: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        for name in files.keys() & group.files.keys():
            algorithms[name].add(group.algorithm)
    wanted = {files[name]: names for name, names in algorithms.items()}
    progress.begin("hashing the source", sum(path.stat().st_size for path in wanted))
    buffers = [Buffers() for _ in range(threads)]
    found = hash_files(wanted, buffers, progress.advance)
    return {name: found[files[name]] for name in algorithms}
