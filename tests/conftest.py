"""The same small world for every test: no network, no colours, no settings of whoever runs them."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import forked, forked_reader
from tests.support.children import Children
from tests.support.cpu_report import CpuReport
from tests.support.loopback import refuse_far_connections
from tests.support.pace import mark_samples
from tests.support.paths import VECTORS
from weightsmith.smoke import runner, tokenizer

_MEMORY = Path("/dev/shm")  # noqa: S108  (pytest makes a folder of its own there)
_ROOM_NBYTES = 4_000_000_000
_HOME = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Pin the environment before any test module, and with it any library, is imported."""
    _write_to_memory(config)
    home = config.stash[_HOME] = tempfile.TemporaryDirectory(
        prefix="weightsmith-tests-", ignore_cleanup_errors=True
    )
    for name in [*os.environ]:
        if name.startswith(("WEIGHTSMITH_", "HF_", "TRANSFORMERS_")) or name == "FORCE_COLOR":
            del os.environ[name]
    os.environ |= {
        "HF_HOME": home.name,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",  # so small tensors gain nothing from more
    }
    os.fsync = _trust_the_machine
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell starts with "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine is no failure of the code under test, and a commit has one verdict: whoever
    # searches for new examples says so with --hypothesis-seed=random.
    settings.register_profile(
        "weightsmith",
        max_examples=25 if _is_fast(config) else 100,
        deadline=None,
        derandomize=config.getoption("--hypothesis-seed") is None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("weightsmith")
    sys.addaudithook(refuse_far_connections)
    config.pluginmanager.register(CpuReport())


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave of sampled tests a few cases fast; let a slow test take its time on a busy machine."""
    mark_samples(items)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


def pytest_collection_finish() -> None:
    """Keep thousands of tests, which stay to the end, out of every collection of garbage."""
    gc.collect()
    gc.freeze()


def _is_fast(config: pytest.Config) -> bool:
    return "not slow" in config.option.markexpr


def _write_to_memory(config: pytest.Config) -> None:
    """Let the files of the fast tests lie in memory, unless TMPDIR says where: a disk costs a third
    of all their time. Before ext4 makes a file it looks through those that were deleted in the last
    seconds, and here that is thousands.
    """
    fast = _is_fast(config) and not config.option.basetemp
    if fast and "TMPDIR" not in os.environ and _has_room(_MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > _ROOM_NBYTES


def _trust_the_machine(fd: Any) -> None:
    """A sync that does not wait: what it guards against, a power cut, comes in no test. Processes
    of their own do wait.
    """
    os.fstat(fd)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what `pytest_configure` made."""
    config.stash[_HOME].cleanup()


@pytest.fixture(autouse=True)
def forked_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of smoke tests and of readers of tokenizers are forked where that can be;
    ``fresh``: started, as they are for users.
    """
    if hasattr(os, "fork") and request.node.get_closest_marker("fresh") is None:
        monkeypatch.setattr(runner, "start", forked.start)
        monkeypatch.setattr(tokenizer, "run_reader", forked_reader.run_reader)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Inputs and results of the original tools; never written to."""
    return VECTORS


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder that lies on a disk wherever `tmp_path` lies, for what memory has no part in."""
    with tempfile.TemporaryDirectory(dir="/var/tmp" if os.name == "posix" else None) as folder:  # noqa: S108
        yield Path(folder)


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    """A process that runs commands in forks of itself."""
    started = Children()
    yield started
    started.close()
