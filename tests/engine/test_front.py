"""One who reads a file while it is being filled never gets ahead of what is written."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.engine.file_hashes import hash_files
from weightsmith.engine.front import Front
from weightsmith.engine.spans import Buffers


def test_pieces_count_once_all_before_them_are_written() -> None:
    front = Front()
    front.written(4, 9)
    front.written(9, 10)
    front.close()
    with pytest.raises(InterruptedError):
        front.wait(1)
    front.written(0, 4)
    front.wait(10)
    with pytest.raises(InterruptedError):
        front.wait(11)


def test_a_file_is_hashed_while_it_is_filled(tmp_path: Path) -> None:
    content = bytes(range(256)) * (SPAN_NBYTES // 256) * 3 + b"the rest"
    path, front = tmp_path / "file", Front()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(hash_files, {path: {"sha256"}}, [Buffers()], lambda _: None, front.wait)
        file = fs.create(path)
        file.reserve(len(content))
        for start in (SPAN_NBYTES, 0, 3 * SPAN_NBYTES, 2 * SPAN_NBYTES):
            piece = memoryview(content)[start : start + SPAN_NBYTES]
            file.write_from(start, piece)
            front.written(start, start + len(piece))
        assert found.result()[path] == {"sha256": sha256(content).hexdigest()}


def test_who_follows_a_file_that_is_given_up_is_let_go(tmp_path: Path) -> None:
    path, front = tmp_path / "file", Front()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(hash_files, {path: {"sha256"}}, [Buffers()], lambda _: None, front.wait)
        fs.create(path).reserve(2 * SPAN_NBYTES)
        front.written(0, SPAN_NBYTES)
        front.close()
        with pytest.raises(InterruptedError):
            found.result()
