"""What is written is read back behind the writing: never ahead of it, and never left out."""

import contextlib
import ctypes
import errno
import sys
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.bench.report import file_system
from tests.support.delta_models import write_pair
from tests.support.folders import sparse_model
from tests.support.memory import cached_nbytes
from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_digest
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine import expected
from weightsmith.engine.background import Background
from weightsmith.engine.executors import local
from weightsmith.engine.file_hashes import Hashes, hash_file
from weightsmith.engine.options import Options
from weightsmith.engine.read_back import AHEAD_NBYTES, TRAIL_NBYTES, Follower, Front, Piece, Trail
from weightsmith.engine.spans import Buffers
from weightsmith.errors import DiskFull, TargetUnwritable, VerificationFailed
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.plan.model import ShardPlan


def written(start: int, stop: int) -> Piece:
    """What a worker says of bytes that it wrote."""
    return Piece("a tensor", start, stop - start, b"")


def hashing(
    pool: ThreadPoolExecutor, file: fs.PositionedFile, nbytes: int, front: Front
) -> Future[Hashes]:
    def hash_it() -> Hashes:
        with Follower(file, nbytes, front) as follower:
            return hash_file(follower, {"sha256"}, Buffers(), lambda _: None)

    return pool.submit(hash_it)


def test_pieces_count_once_all_before_them_are_written() -> None:
    with Front(2) as front:
        front.add(written(4, 9))
        front.add(written(9, 10))
    with pytest.raises(InterruptedError):
        front.wait(3)
    front.add(written(2, 4))
    front.wait(10)
    with pytest.raises(InterruptedError):
        front.wait(11)


def test_a_file_is_hashed_while_it_is_filled(tmp_path: Path) -> None:
    content = bytes(range(256)) * (SPAN_NBYTES // 256) * 3 + b"the rest"
    file = fs.create(tmp_path / "file")
    file.reserve(len(content))
    with Front() as front, ThreadPoolExecutor(1) as pool:
        found = hashing(pool, file, len(content), front)
        for start in (SPAN_NBYTES, 0, 3 * SPAN_NBYTES, 2 * SPAN_NBYTES):
            piece = memoryview(content)[start : start + SPAN_NBYTES]
            file.write_from(start, piece)
            front.add(written(start, start + len(piece)))
        assert found.result() == {"sha256": sha256(content).hexdigest()}


def test_who_follows_a_file_that_is_given_up_is_let_go(tmp_path: Path) -> None:
    file = fs.create(tmp_path / "file")
    file.reserve(2 * SPAN_NBYTES)
    with ThreadPoolExecutor(1) as pool:
        with Front() as front:
            found = hashing(pool, file, 2 * SPAN_NBYTES, front)
            front.add(written(0, SPAN_NBYTES))
        with pytest.raises(InterruptedError):
            found.result()


def test_who_writes_waits_for_a_hash_that_falls_behind() -> None:
    with ThreadPoolExecutor(1) as pool, Front() as front:
        front.add(written(0, AHEAD_NBYTES))
        front.add(
            written(AHEAD_NBYTES + 1, 2 * AHEAD_NBYTES)
        )  # the reader waits for what is before
        waiting = pool.submit(front.add, written(AHEAD_NBYTES, AHEAD_NBYTES + 1))
        front.wait(2 * AHEAD_NBYTES)
        assert wait([waiting], timeout=0.05).not_done
        front.note_read(AHEAD_NBYTES)
        waiting.result()


def test_who_writes_does_not_wait_for_a_hash_that_has_ended(tmp_path: Path) -> None:
    file = fs.create(tmp_path / "file")
    with Front() as front:
        with contextlib.suppress(VerificationFailed), Follower(file, 8, front) as follower:
            front.add(written(0, 8))
            follower.read(0, 8)  # of an empty file
        front.add(written(8, 2 * AHEAD_NBYTES))


def test_what_is_hashed_is_given_back_some_way_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(fs.PositionedFile, "give_back", lambda _, *at: given.append(at))
    file, size = fs.create(tmp_path / "file"), TRAIL_NBYTES + 2 * SPAN_NBYTES
    with Front() as front, Follower(file, size, front) as follower:
        for read in (0, TRAIL_NBYTES + SPAN_NBYTES - 1, TRAIL_NBYTES + SPAN_NBYTES, size, size):
            front.note_read(read)
            follower.follow(written(0, 0), Buffers())
    assert given == [(0, SPAN_NBYTES), (SPAN_NBYTES, SPAN_NBYTES)]


def test_a_file_is_hashed_while_the_one_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medium takes as long over the first of two as making and hashing the second takes."""
    base, target = write_pair(tmp_path)
    make_delta(base=base, target=target, delta=tmp_path / "delta")
    require, sync, hashed = expected.require_file, Background.sync, list[str]()
    both = threading.Event()

    def require_and_tell(file: fs.Readable, shard: ShardPlan, *rest: Any) -> None:
        require(file, shard, *rest)
        hashed.append(shard.name)
        if len(hashed) == 2:
            both.set()

    def arrive() -> None:
        if not both.wait(60):
            raise TimeoutError

    def slow_sync(background: Background, *args: Any, **options: Any) -> None:
        sync(background, *args, **options)
        background.submit(arrive)

    monkeypatch.setattr(local, "require_file", require_and_tell)
    monkeypatch.setattr(Background, "sync", slow_sync)
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert hashed == sorted(path.name for path in target.glob("*.safetensors"))


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("damaged", [0, 20, 39])
def test_each_piece_is_read_back_wherever_the_file_ends(
    reads: bool, damaged: int, tmp_path: Path
) -> None:
    count = TRAIL_NBYTES // SPAN_NBYTES + 8
    file, block = fs.create(tmp_path / "file"), memoryview(bytes(SPAN_NBYTES))
    file.reserve(count * SPAN_NBYTES)
    checked: list[int] = []
    trail, own = Trail(file, checked.append, reads=reads), Buffers()

    def fill_and_finish() -> None:
        for number in range(count):
            offset = number * SPAN_NBYTES
            digest = span_digest(block)
            trail.follow(Piece(f"tensor {number}", offset, SPAN_NBYTES, digest), own)
        trail.finish([own])

    file.write_from(damaged * SPAN_NBYTES + 7, memoryview(b"!"))
    if not reads:
        fill_and_finish()
        assert not checked
        return
    with pytest.raises(VerificationFailed, match=f"tensor {damaged}"):
        fill_and_finish()
    assert sum(checked) == damaged * SPAN_NBYTES
    file.write_from(damaged * SPAN_NBYTES + 7, memoryview(b"\0"))
    trail = Trail(file, checked.append, reads=reads)
    checked.clear()
    fill_and_finish()
    assert sum(checked) == count * SPAN_NBYTES


def test_what_is_read_back_is_given_back_some_way_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(fs.PositionedFile, "give_back", lambda _, *at: given.append(at))
    behind = TRAIL_NBYTES // SPAN_NBYTES
    file, block = fs.create(tmp_path / "file"), memoryview(bytes(SPAN_NBYTES))
    file.reserve((behind + 16) * SPAN_NBYTES)
    trail, own = Trail(file, lambda _: None, reads=True), Buffers()
    for number in range(behind + 16):
        piece = Piece("a tensor", number * SPAN_NBYTES, SPAN_NBYTES, span_digest(block))
        trail.follow(piece, own)
        spans = range(max(number + 1 - behind, 0))
        assert given == [(span * SPAN_NBYTES, SPAN_NBYTES) for span in spans]


def test_of_tiny_tensors_many_are_given_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order they are made: each call costs as much as to write one of them."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(fs.PositionedFile, "give_back", lambda _, *at: given.append(at))
    nbytes, file = 4096, fs.create(tmp_path / "file")
    count = (TRAIL_NBYTES + 2 * SPAN_NBYTES) // nbytes
    file.reserve(count * nbytes)
    trail, own, digest = (
        Trail(file, lambda _: None, reads=True),
        Buffers(),
        span_digest(bytes(nbytes)),
    )
    for number in (n ^ 1 for n in range(count)):
        trail.follow(Piece("a tensor", number * nbytes, nbytes, digest), own)
    assert given == [(0, SPAN_NBYTES), (SPAN_NBYTES, SPAN_NBYTES)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what its page cache holds")
def test_what_is_given_back_leaves_the_page_cache(on_disk: Path) -> None:
    if (found := file_system(on_disk)) not in {"ext4", "xfs"}:
        pytest.skip(f"{found} may keep it")
    file = fs.create(on_disk / "file")
    file.write_from(0, memoryview(bytes(SPAN_NBYTES)))
    held = file.is_cached(0, SPAN_NBYTES)
    for _ in range(1000):  # a page that the system has in hand at this moment stays
        file.give_back(0, SPAN_NBYTES)
        if not cached_nbytes(file.path):
            break
    assert not cached_nbytes(file.path)
    if file.is_cached(0, SPAN_NBYTES):
        pytest.skip("this system does not tell what its page cache holds")
    assert held


@pytest.mark.parametrize("low_cpu_mem", [False, True])
def test_inputs_leave_the_page_cache_as_it_was(
    low_cpu_mem: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that is not in it, and a delta that is; the system may drop either at any time."""
    base, delta = (sparse_model(tmp_path / n, 16 * SPAN_NBYTES, dtype="F16") for n in "bd")
    dropped: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    monkeypatch.setattr(fs.PositionedFile, "is_cached", lambda file, *_: file.path.parent == delta)
    monkeypatch.setattr(
        fs.PositionedFile, "drop_cache", lambda file, *at: dropped[file.path.parent].append(at)
    )
    options = Options(low_cpu_mem=low_cpu_mem)
    apply_delta(base, delta, target=tmp_path / "out", options=options)
    places = open_checkpoint(base).tensors.values()
    everything = [(each.stored.offset, each.info.nbytes) for each in places]
    assert sorted(dropped[base]) == everything
    assert sorted(dropped[delta]) == (everything if low_cpu_mem else [])


def test_output_that_cannot_be_read_back_is_not_called_a_source(tmp_path: Path) -> None:
    file = fs.create(tmp_path / "file")
    trail, own = Trail(file, lambda _: None, reads=True), Buffers()
    trail.follow(Piece("a tensor", 0, 8, b""), own)
    with pytest.raises(VerificationFailed, match="it ends at byte 0"):
        trail.finish([own])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sync is told")
@pytest.mark.parametrize(
    "code, fault",
    [
        *((errno.ENOSPC, DiskFull), (errno.EIO, TargetUnwritable)),
        *((errno.ENODATA, OSError), (errno.ETIMEDOUT, OSError)),  # a bad sector, a lost path
        *((errno.ENOSYS, None), (errno.EINVAL, None), (errno.EPERM, None)),
    ],
)
def test_an_error_of_the_medium_is_told_where_it_is_met(
    code: int, fault: type[Exception] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    file = fs.create(tmp_path / "file")
    monkeypatch.setattr(fs, "_libc_function", lambda _: failing)
    with pytest.raises(fault) if fault else contextlib.nullcontext():
        file.give_back(0, 1)
