from typing_extensions import Buffer

INTERFACE: int
SIMD: int

def encode(
    base: Buffer | None, target: Buffer, width: int, shift: int, mask: int, simd: int, /
) -> tuple[bytes, int, int]: ...
def decode(
    payload: Buffer,
    base: Buffer | None,
    out: Buffer,
    width: int,
    shift: int,
    mask: int,
    simd: int,
    /,
) -> None: ...
