"""What the system refuses to somebody who is not root: named, and never a traceback."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import NOBODY, Answer, Children
from tests.support.folders import contents, hidden, staging


class Shared:
    """Inputs, and a directory for outputs, that everybody can reach."""

    def __init__(self, home: Path, vectors: Path, children: Children) -> None:
        home.chmod(0o755)
        self.base, self.delta = home / "base", home / "delta"
        for side in (self.base, self.delta):
            shutil.copytree(vectors / "vicuna_v1_1" / side.name, side)
        self.outputs = home / "outputs"
        self.outputs.mkdir()
        self.outputs.chmod(0o777)
        self.target = self.outputs / "out"
        self._children = children

    def run(self, **request: Any) -> Answer:
        as_nobody = {"uid": NOBODY} if os.geteuid() == 0 else {}
        answer = self._children.apply(
            self.base, self.delta, request.pop("target", self.target), **as_nobody, **request
        )
        assert answer.unknown == ""
        return answer


@pytest.fixture
def shared(vectors: Path, children: Children) -> Iterator[Shared]:
    home = Path(tempfile.mkdtemp(prefix="weightsmith-shared-"))
    try:
        yield Shared(home, vectors, children)
    finally:
        for folder, names, _ in os.walk(home):  # lists a folder after it has yielded the one above
            for name in names:
                Path(folder, name).chmod(0o755)
        shutil.rmtree(home)


def test_somebody_who_is_not_root_gets_the_job_done(shared: Shared) -> None:
    answer = shared.run()
    assert answer.error == ""
    assert (shared.target / "weightsmith.json").is_file()


@pytest.mark.parametrize(
    "locked, mode",
    [
        ("base", 0),
        ("base", 0o444),
        ("delta/pytorch_model-00001-of-00002.bin", 0),
        ("base/pytorch_model.bin.index.json", 0),
        ("delta/config.json", 0),
        ("delta/tokenizer.model", 0),
    ],
)
def test_an_input_that_may_not_be_read_is_named(locked: str, mode: int, shared: Shared) -> None:
    path = shared.base.parent / locked
    path.chmod(mode)
    answer = shared.run()
    path.chmod(0o755)
    assert (answer.error, answer.exit_code) == ("source-unreadable", 3)
    assert str(path) in answer.message
    assert "Permission denied" in answer.message
    assert contents(shared.outputs) == {}


def test_a_source_in_a_directory_that_may_not_be_entered_is_named(shared: Shared) -> None:
    closed = shared.base.parent / "closed"
    closed.mkdir()
    shared.base = shared.base.rename(closed / "base")
    closed.chmod(0)
    answer = shared.run()
    assert (answer.error, answer.exit_code) == ("source-unreadable", 3)
    assert str(shared.base) in answer.message


def test_links_that_may_not_be_followed_are_left_if_nobody_needs_them(shared: Shared) -> None:
    closed = shared.base.parent / "closed"
    closed.mkdir()
    (closed / "secret").touch()
    (shared.base / "somewhere").symlink_to(closed / "secret")
    (shared.base / "loop").symlink_to(shared.base / "loop")
    closed.chmod(0)
    assert shared.run().error == ""


@pytest.mark.parametrize("target", ["out", "new/out"])
def test_a_parent_that_may_not_be_written_to_is_named(target: str, shared: Shared) -> None:
    shared.outputs.chmod(0o555)
    answer = shared.run(target=shared.outputs / target)
    assert (answer.error, answer.exit_code) == ("target-unwritable", 9)
    assert str(shared.outputs) in answer.message
    assert "Permission denied" in answer.message
    assert list(shared.outputs.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"overwrite": True}], ids=str)
def test_a_target_that_may_not_be_looked_into_is_in_the_way(
    options: dict[str, bool], shared: Shared
) -> None:
    shared.target.mkdir()
    (shared.target / "secret").touch()
    shared.target.chmod(0)
    answer = shared.run(options=options)
    assert answer.exit_code == (9 if not options else 0)
    if not options:
        assert answer.error == "target-exists"
        shared.target.chmod(0o755)
        assert list(contents(shared.target)) == ["secret"]


def test_staging_of_somebody_else_is_named(shared: Shared) -> None:
    partial = staging(shared.target)
    partial.mkdir()
    (partial / "lock").touch()
    partial.chmod(0o500)
    if os.geteuid() != 0:
        (partial / "lock").chmod(0)
    answer = shared.run()
    assert (answer.error, answer.exit_code) == ("target-unwritable", 9)


def test_an_old_target_that_cannot_be_deleted_does_not_spoil_the_new_one(shared: Shared) -> None:
    """A folder in it belongs to somebody else; the new target is whole, with nothing of the old."""
    (shared.target / "theirs").mkdir(parents=True)
    (shared.target / "theirs" / "file").touch()
    (shared.target / "theirs").chmod(0o555)
    if os.geteuid() == 0:
        os.chown(shared.target, NOBODY, NOBODY)
    answer = shared.run(options={"overwrite": True})
    assert answer.error == ""
    assert "theirs/file" not in contents(shared.target)
    again = shared.run()
    assert (again.error, again.already_done) == ("", True)
    # Nobody can clear what is left of the old one away, and nothing is built on top of it.
    other = shared.run(plan={"dtype": "float32"}, options={"overwrite": True})
    assert other.error == ""
    assert "theirs/file" not in contents(shared.target)
    assert hidden(shared.outputs) == [staging(shared.target).name]
    (left,) = staging(shared.target).iterdir()
    assert contents(left) == {"theirs/file": b""}
