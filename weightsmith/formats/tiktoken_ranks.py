"""The byte-pair table that Llama 3 keeps in ``tokenizer.model``: one token a line, by rank."""

import base64
import binascii
from pathlib import Path

from weightsmith.errors import TokenizerInvalid


def parse_tiktoken(raw: bytes, file: Path | str) -> tuple[bytes, ...]:
    """The tokens' bytes, in the order of their ranks, which are their ids.

    Raises: TokenizerInvalid, if a line is none, a rank or a single byte is missing, or a token is
    there twice.
    """
    tokens: list[bytes] = []
    for number, line in enumerate(raw.splitlines()):
        text, _, rank = line.partition(b" ")
        if rank != str(number).encode():
            reason = f"line {number + 1} does not have the rank {number}"
            raise TokenizerInvalid(file=file, reason=reason)
        if not text:
            raise TokenizerInvalid(file=file, reason=f"line {number + 1} has no token")
        try:
            tokens.append(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise TokenizerInvalid(file=file, reason=f"line {number + 1}: {error}") from error
    known = set(tokens)
    if len(known) < len(tokens):
        raise TokenizerInvalid(file=file, reason="a token is there twice")
    if not all(bytes([value]) in known for value in range(256)):
        raise TokenizerInvalid(file=file, reason="it lacks single bytes; is it cut short?")
    return tuple(tokens)
