"""Encode files the way releases of 2023 were: the inverse of decoding, in plain Python."""

import gzip
import hashlib
from pathlib import Path

CHUNK = 10 * 1024 * 1024


def xor(left: bytes, right: bytes) -> bytes:
    """As long as `left`; where `right` has ended, `left` as it is."""
    short = right[: len(left)].ljust(len(left), b"\0")
    return (int.from_bytes(left, "little") ^ int.from_bytes(short, "little")).to_bytes(
        len(left), "little"
    )


def write_xor(target: Path, base: Path, payload: Path, *, packed: bool = False) -> Path:
    """A release of `target`'s files against those of `base`; ``added_tokens.json`` plain."""
    payload.mkdir(parents=True)
    for path in target.iterdir():
        raw = path.read_bytes()
        if path.name != "added_tokens.json":
            raw = xor(raw, (base / path.name).read_bytes())
            raw = gzip.compress(raw, mtime=0) if packed else raw
        (payload / path.name).write_bytes(raw)
    return payload


def key_stream(key: bytes, nbytes: int) -> bytes:
    """The bytes that a file of `nbytes` is XORed with: the key's, chunk by chunk, from its start
    again where it has ended; a chunk that is too short is repeated.
    """
    stream, position = bytearray(), 0
    while len(stream) < nbytes:
        chunk = key[position : position + CHUNK]
        position += CHUNK
        if not chunk:
            position = CHUNK
            chunk = key[:CHUNK]
        need = min(CHUNK, nbytes - len(stream))
        stream += (chunk * (need // len(chunk) + 1))[:need]
    return bytes(stream)


def write_encrypted(folder: Path, files: dict[str, bytes], key: bytes) -> Path:
    """Each file under the name that gives its sha256, behind the same in its first 32 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        digest = hashlib.sha256(raw)
        content = digest.digest() + xor(raw, key_stream(key, len(raw)))
        (folder / f"{name}.{digest.hexdigest()}.enc").write_bytes(content)
    return folder
