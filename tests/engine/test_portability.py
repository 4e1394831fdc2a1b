"""What other systems lack changes no byte: Windows has no ``preadv``, macOS no ``renameat2``."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.children import Children
from tests.support.folders import contents, hidden

POSITIONED = ["preadv", "pwrite"]
ADVICE = ["posix_fadvise", "posix_fallocate"]
NOTHING = [*POSITIONED, *ADVICE, "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "fcntl"]

LACKING: dict[str, dict[str, Any]] = {
    "positional access": {"absent": POSITIONED},
    "cache advice": {"absent": ADVICE},
    "directory fsync": {"absent": ["O_DIRECTORY"]},
    "locks": {"absent": ["fcntl"]},
    "exchange of names": {"no_exchange": True},
    "all of it": {"absent": NOTHING, "no_exchange": True},
}


@pytest.fixture(scope="module")
def expected(
    vectors: Path, children: Children, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Every file, as a system that lacks nothing makes it."""
    target = tmp_path_factory.mktemp("complete") / "out"
    answer = _apply(children, vectors, target)
    assert answer == ("", "")
    return contents(target)


def _apply(children: Children, vectors: Path, target: Path, **request: Any) -> tuple[str, str]:
    vector = vectors / "vicuna_v1_1"
    request = {"plan": {"max_shard_nbytes": 30_000}, **request}
    answer = children.apply(vector / "base", vector / "delta", target, **request)
    return answer.error, answer.unknown


@pytest.mark.parametrize("lacking", LACKING)
def test_a_system_that_lacks_something_makes_the_same_bytes(
    lacking: str, vectors: Path, tmp_path: Path, children: Children, expected: dict[str, bytes]
) -> None:
    target = tmp_path / "out"
    options: dict[str, Any] = {"workers": 4, "low_cpu_mem": lacking == "cache advice"}
    assert _apply(children, vectors, target, options=options, **LACKING[lacking]) == ("", "")
    assert contents(target) == expected
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("lacking", LACKING)
def test_a_system_that_lacks_something_continues_and_replaces(
    lacking: str, vectors: Path, tmp_path: Path, children: Children, expected: dict[str, bytes]
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    request = {"options": {"overwrite": True}, **LACKING[lacking]}
    vector = vectors / "vicuna_v1_1"
    plan = {"max_shard_nbytes": 30_000}
    died = children.apply(
        vector / "base", vector / "delta", target, die_at_step=9, plan=plan, **request
    )
    assert died.exit != 0
    again = children.apply(vector / "base", vector / "delta", target, plan=plan, **request)
    assert (again.error, again.unknown, again.kept) == ("", "", 2)
    assert contents(target) == expected
    assert hidden(tmp_path) == []


@pytest.mark.sampled(4)
@pytest.mark.parametrize("left", ["file", "link", "broken link", "folder"])
@pytest.mark.parametrize("no_exchange", [False, True], ids=["exchange", "two renames"])
def test_whatever_has_the_name_is_replaced_when_asked_for(
    left: str,
    no_exchange: bool,
    vectors: Path,
    tmp_path: Path,
    children: Children,
    expected: dict[str, bytes],
) -> None:
    target, elsewhere = tmp_path / "outputs" / "out", tmp_path / "elsewhere"
    target.parent.mkdir()
    elsewhere.mkdir()
    (elsewhere / "theirs.txt").write_text("of somebody else")
    match left:
        case "file":
            target.write_text("a file")
        case "link":
            target.symlink_to(elsewhere)
        case "broken link":
            target.symlink_to(tmp_path / "gone")
        case _:
            (target / "within").mkdir(parents=True)
    refused = _apply(children, vectors, target, no_exchange=no_exchange)
    assert refused == ("target-exists", "")
    overwrite = {"overwrite": True}
    done = _apply(children, vectors, target, no_exchange=no_exchange, options=overwrite)
    assert done == ("", "")
    assert contents(target) == expected
    assert not target.is_symlink()
    assert hidden(target.parent) == []
    assert contents(elsewhere) == {"theirs.txt": b"of somebody else"}
    assert not (tmp_path / "gone").exists()


def test_exchange_swaps_two_names_or_says_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightsmith import fs

    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "one").touch()
    (tmp_path / "right").mkdir()
    (tmp_path / "right" / "two").touch()
    before = contents(tmp_path).keys()
    assert not fs.exchange(tmp_path / "left", tmp_path / "absent")
    with monkeypatch.context() as patch:
        patch.setattr(fs, "_libc_function", lambda _: None)  # a C library without renameat2
        assert not fs.exchange(tmp_path / "left", tmp_path / "right")
    assert contents(tmp_path).keys() == before
    if not fs.exchange(tmp_path / "left", tmp_path / "right"):
        pytest.skip("this system or file system cannot exchange two names")
    assert sorted(contents(tmp_path)) == ["left/two", "right/one"]
