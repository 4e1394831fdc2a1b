"""When a run is over, nothing of it writes any more: the next one has staging to itself."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from weightsmith import fs
from weightsmith.engine.background import Background
from weightsmith.engine.receipts import Receipt
from weightsmith.engine.staging import Staging
from weightsmith.errors import DiskFull, VerificationFailed

HERE = Path()
FULL = DiskFull(file=HERE, reason="full")
RECEIPT = Receipt("plan", "model.safetensors", 0, "", {}, {})


class Receipts:
    """What is left of them is half written until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()
        self.written: list[str] = []

    def write(self, receipt: Receipt) -> None:
        self.begun.set()
        self.release.wait()
        self.written.append(receipt.shard)


@pytest.fixture
def receipts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receipts]:
    held = Receipts()
    monkeypatch.setattr(Receipt, "write", lambda receipt, _: held.write(receipt))
    yield held
    held.release.set()


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_receipt_in_hand_is_waited_for_and_no_other_is_left(
    error: BaseException, receipts: Receipts
) -> None:
    background = Background()
    for _ in range(2):
        background.leave(RECEIPT, HERE)
    receipts.begun.wait()
    leaving = threading.Thread(target=background.__exit__, args=(type(error), error, None))
    leaving.start()
    leaving.join(0.05)
    assert leaving.is_alive()
    receipts.release.set()
    leaving.join()
    background._pool.shutdown()
    assert receipts.written == [RECEIPT.shard]


def test_an_error_waits_for_the_work_in_hand_and_begins_no_other() -> None:
    begun, done = threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        background.stopped.wait()
        done.append("in hand")

    with contextlib.suppress(DiskFull), Background() as background:
        background.submit(work)
        background.submit(lambda: done.append("another"))
        begun.wait()
        raise FULL
    assert done == ["in hand"]


def test_an_interrupt_does_not_wait_for_the_medium_and_nothing_is_vouched_for_later(
    receipts: Receipts,
) -> None:
    begun, arrived = threading.Event(), threading.Event()

    def sync() -> None:
        begun.set()
        arrived.wait()

    receipts.release.set()
    with contextlib.suppress(KeyboardInterrupt), Background() as background:
        background.submit(sync)
        background.leave(RECEIPT, HERE)
        begun.wait()
        raise KeyboardInterrupt
    arrived.set()
    background._pool.shutdown()
    assert receipts.written == []


def test_a_file_that_grew_before_it_was_synced_is_not_vouched_for(tmp_path: Path) -> None:
    file = fs.create(tmp_path / "file")
    file.write_from(0, memoryview(b"ours"))
    staging = Staging(tmp_path / "out")
    with file.path.open("ab") as theirs:
        theirs.write(b"more")
    with Background() as background:
        background.sync(file, staging, nbytes=4, drop_cache=False)
        with pytest.raises(VerificationFailed, match="it has 8 bytes"):
            background.wait()
    assert not staging._synced
