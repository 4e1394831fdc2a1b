"""A merged LoRA in an exact delta: its size with factors and without, and what finding them takes.

    python -m tests.bench.low_rank [--rows 2048 --columns 3072 --rank 16 --rank 64]

Sizes are shares of the target's bytes, times seconds of one thread of this machine, the fastest of
three, with the compiled part where there is one. *alone* has base and target only, *given* the
adapter too, *without* is coded weight by weight; *hits* are the weights that are predicted bit for
bit, alone after each round of the fit.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.exact_payloads import Content
from tests.support.exact_payloads import encode as encode_plain
from tests.support.low_rank_matrices import Changed, decode, encode, merged
from weightsmith.codecs.exact import kernel
from weightsmith.codecs.low_rank.making import Prediction
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair
from weightsmith.codecs.low_rank.one_thread import one_thread
from weightsmith.codecs.low_rank.range_finder import begin, may_be_low_rank
from weightsmith.codecs.low_rank.weighted_fit import fit

Found = TypeVar("Found")
HEADS = ("dtype", "rank", "without", "alone", "factors", "given", "factors")
TIMES = ("code without", "glance", "find alone", "find given", "code", "decode")


def timed(work: Callable[[], Found], rounds: int = 3) -> tuple[float, Found]:
    """Seconds of this thread, the fewest of several, and what came of it."""
    times = []
    for _ in range(rounds):
        started_s = time.thread_time()
        found = work()
        times.append(time.thread_time() - started_s)
    return min(times), found


def hits(changed: Changed) -> tuple[float, ...]:
    """After each round of the fit, of a few rows."""
    dtypes = changed.base.dtype, changed.target.dtype
    pair = MatrixPair(changed.geometry, 0, dtypes, changed.reads)
    with one_thread():
        start = begin(pair)
        return () if start is None else fit(pair, start).hits


def glance(changed: Changed) -> bool:
    """What a tensor costs that did not change by a product."""
    dtypes = changed.base.dtype, changed.target.dtype
    return may_be_low_rank(MatrixPair(changed.geometry, 0, dtypes, changed.reads))


def shares(changed: Changed, prediction: Prediction) -> list[float]:
    """Of the payload, and of the factors in it."""
    payload = encode(changed, prediction, kernel.find())
    # As the payload of a target that is what is predicted, all but its spans.
    factors = prediction.start_nbytes
    for number in range(-(-changed.target.nbytes // (2 << 20))):
        place = slice(number * (2 << 20), (number + 1) * (2 << 20))
        factors += len(prediction.span(number, memoryview(changed.base_data)[place])[1])
    return [part / changed.target.nbytes for part in (len(payload), factors)]


def report(dtype: str, rows: int, columns: int, rank: int) -> None:
    """One case, as lines of two tables."""
    changed = merged((rows, columns), rank, dtype)
    base, target = (
        Content(info, data)
        for info, data in (
            (changed.base, changed.base_data),
            (changed.target, changed.target_data),
        )
    )
    coded_s, plain = timed(lambda: encode_plain(base, target))
    with one_thread():
        glance_s, _ = timed(lambda: glance(changed))
        alone_s, alone = timed(changed.predicted, rounds=1)
        given_s, given = timed(lambda: changed.predicted(given=True))
    encode_s, payload = timed(lambda: encode(changed, alone, kernel.find()))
    decode_s, restored = timed(lambda: decode(changed, payload, alone.rank))
    assert restored == changed.target_data
    sizes = [len(plain) / changed.target.nbytes, *shares(changed, alone), *shares(changed, given)]
    print(f"| {dtype} | {rank} | " + " | ".join(f"{size:.4f}" for size in sizes) + " |")
    times = (coded_s, glance_s, alone_s, given_s, encode_s, decode_s)
    print("    " + ", ".join(f"{n} {s:.3f} s" for n, s in zip(TIMES, times, strict=True)))
    print("    hits " + ", ".join(f"{share:.4f}" for share in hits(changed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--columns", type=int, default=3072)
    parser.add_argument("--rank", type=int, action="append")
    asked = parser.parse_args()
    print("| " + " | ".join(HEADS) + " |\n" + "| --- " * len(HEADS) + "|")
    for dtype in ("F16", "BF16"):
        for rank in asked.rank or [8, 16, 64]:
            report(dtype, asked.rows, asked.columns, rank)


if __name__ == "__main__":
    main()
