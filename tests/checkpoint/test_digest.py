"""Digests name a tensor's dtype, shape and bytes, and nothing of the file around them."""

import itertools
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from tests.support.folders import write_model
from tests.support.spans import random_tensor, raw
from weightsmith.checkpoint.digest import (
    SPAN_NBYTES,
    bytes_digest,
    fingerprint,
    span_count,
    span_digest,
    tensor_digest,
)
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.spans import Buffers, digest_tensors, span_range
from weightsmith.formats.tensors import TensorInfo


def test_a_span_is_two_mebibytes_for_ever() -> None:
    """Digests in manifests and deltas depend on it."""
    assert SPAN_NBYTES == 2 * 1024 * 1024


@pytest.mark.parametrize("nbytes", [0, 1, SPAN_NBYTES - 1, SPAN_NBYTES, SPAN_NBYTES + 1, 10**8])
def test_spans_cover_a_tensor_once(nbytes: int) -> None:
    ranges = [span_range(number, nbytes) for number in range(span_count(nbytes))]
    edges = [0, *(each.stop for each in ranges)]
    assert edges[-1] == nbytes
    assert [each.start for each in ranges] == edges[:-1]
    assert all(each.nbytes == SPAN_NBYTES for each in ranges[:-1])
    assert all(each.nbytes for each in ranges)


def test_a_digest_is_what_its_description_says() -> None:
    """Written out here, so that any other program can check it."""
    content = raw(random_tensor("F16", 3, 5))
    info = TensorInfo("any.name", "F16", (3, 5))
    expected = blake3(b"F16 3,5\n" + blake3(content).digest()).hexdigest()
    assert tensor_digest(info, [span_digest(content)]) == expected
    scalar = TensorInfo("s", "F32", ())
    assert tensor_digest(scalar, [span_digest(b"\0\0\0\0")]) == (
        blake3(b"F32 \n" + blake3(b"\0\0\0\0").digest()).hexdigest()
    )
    assert bytes_digest(b"abc") == blake3(b"abc").hexdigest()


def test_dtype_shape_and_order_of_spans_count_and_the_name_does_not() -> None:
    spans = [span_digest(b"one"), span_digest(b"two")]
    infos = [
        TensorInfo("w", "F16", (2, 6)),
        TensorInfo("w", "BF16", (2, 6)),
        TensorInfo("w", "F16", (6, 2)),
        TensorInfo("w", "F16", (12,)),
        TensorInfo("w", "F16", (1, 2, 6)),
    ]
    digests = [tensor_digest(info, spans) for info in infos]
    digests.append(tensor_digest(infos[0], spans[::-1]))
    assert len(set(digests)) == len(digests)
    assert tensor_digest(TensorInfo("other", "F16", (2, 6)), spans) == digests[0]


def test_a_fingerprint_depends_on_names_and_digests_and_not_on_their_order() -> None:
    digests = {"b": "22", "a": "11", "c": "33"}
    orders = [dict(items) for items in itertools.permutations(digests.items())]
    assert {fingerprint(order) for order in orders} == {fingerprint(digests)}
    others = [{"a": "11", "b": "22"}, {**digests, "a": "12"}, {"x": "11", "b": "22", "c": "33"}]
    assert len({fingerprint(each) for each in [digests, *others]}) == 4


def test_a_tensor_has_one_digest_in_every_container(tmp_path: Path) -> None:
    """Several spans long, in four files of two formats, read by one worker and by three."""
    tensor = torch.arange(1_500_000, dtype=torch.int32).to(torch.float32)
    tensors = {"w": tensor, "v": random_tensor("F16", 100)}
    found = set()
    for suffix, shards in itertools.product(("safetensors", "bin"), (1, 2)):
        folder = write_model(tmp_path / f"{suffix}{shards}", tensors, suffix=suffix, shards=shards)
        checkpoint = open_checkpoint(folder)
        for workers in (1, 3):
            digests = digest_tensors(
                [each.info for each in checkpoint.tensors.values()],
                checkpoint.read_into,
                [Buffers() for _ in range(workers)],
                lambda _: None,
            )
            found.add(fingerprint(digests))
    content = raw(tensor)
    leaves = [
        blake3(content[start : start + SPAN_NBYTES]).digest()
        for start in range(0, len(content), SPAN_NBYTES)
    ]
    assert len(leaves) == 3
    assert digests["w"] == blake3(b"F32 1500000\n" + b"".join(leaves)).hexdigest()
    assert len(found) == 1
