from typing_extensions import Buffer

INTERFACE: int
MOST: int
USABLE: int

def weighted_sum(
    factors: Buffer, dtypes: bytes, blocks: tuple[Buffer, ...], out: Buffer, dtype: str, /
) -> None: ...
