"""An S3 server on loopback, and the settings of a user of it."""

from collections.abc import Iterator

import pytest

from tests.support.s3_server import S3, s3_server


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(running_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server with an empty bucket, which the environment names."""
    running_s3.reset()
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("weightsmith.objects.bucket.FIRST_WAIT_S", 0.001)
    return running_s3
