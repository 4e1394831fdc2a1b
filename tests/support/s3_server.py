"""A real S3 server on loopback, and a bucket of it."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

KEY: Final = "AKIAEXAMPLE"
SECRET: Final = "secret-of-nobody"


@dataclass(frozen=True)
class S3:
    """A server with one bucket, ``models``."""

    endpoint: str
    client: Any
    """boto3's, which knows nothing of ours."""

    def upload(self, folder: Path, prefix: str) -> str:
        """The address of a folder's files, once they are there."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client.upload_file(str(path), "models", key)
        return f"s3://models/{prefix}"

    def put(self, key: str, content: bytes) -> None:
        """One object."""
        self.client.put_object(Bucket="models", Key=key, Body=content)

    def ask_for_login(self, *, after: int) -> None:
        """Refuse all but known users, after so many more requests."""
        self._call("reset-auth", str(after))

    def reset(self) -> None:
        """Forget everything, and make the bucket anew."""
        self._call("reset-auth", "inf")
        self._call("reset", "")
        self.client.create_bucket(Bucket="models")

    def _call(self, what: str, body: str) -> None:
        url = f"{self.endpoint}/moto-api/{what}"
        request = urllib.request.Request(  # noqa: S310  (of our own server)
            url, body.encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            json.load(answer)

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this server sets."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def s3_server() -> Iterator[S3]:
    """moto's server, on a port of its own, until the end."""
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        yield S3(endpoint, client)
    finally:
        server.stop()
