"""Azurite, the emulator of Azure's object store, on loopback: ``npm install -g azurite``."""

import base64
import hashlib
import hmac
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = shutil.which("azurite-blob")
ACCOUNT: Final = "devstoreaccount1"
PUBLIC_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The same in every Azurite, and in its documentation."""
_API: Final = "2021-08-06"
_LISTENS: Final = "successfully listens on "


@dataclass(frozen=True)
class Azurite:
    """A server with one container, ``models``."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this server sets."""
        return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": self.endpoint}

    def upload(self, folder: Path, prefix: str) -> str:
        """The address of a folder's files, once they are there; the environment names us."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"az://models/{prefix}"

    def put(self, key: str, content: bytes) -> None:
        """One object."""
        import obstore
        from obstore.store import from_url

        store: Any = from_url("az://models")
        obstore.put(store, key, content)

    def make_container(self) -> None:
        """Once; obstore makes none."""
        now = formatdate(usegmt=True)
        headers = [f"x-ms-date:{now}", f"x-ms-version:{_API}"]
        resource = [f"/{ACCOUNT}/{ACCOUNT}/models", "restype:container"]
        signed = "\n".join(["PUT", *[""] * 11, *headers, *resource])
        key = base64.b64decode(PUBLIC_KEY)
        signature = base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()
        request = urllib.request.Request(  # noqa: S310  (of our own server)
            f"{self.endpoint}/{ACCOUNT}/models?restype=container",
            headers={
                "x-ms-date": now,
                "x-ms-version": _API,
                "Authorization": f"SharedKey {ACCOUNT}:{signature}",
            },
            method="PUT",
        )
        urllib.request.urlopen(request).close()  # noqa: S310


@contextmanager
def azurite() -> Iterator[Azurite]:
    """Azurite on a port of its own, all in memory, until the end."""
    assert PROGRAM is not None
    argv = [PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]
    argv += ["--disableTelemetry", "--silent"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            said = []
            for line in running.stdout:
                said.append(line)
                if _LISTENS in line:
                    server = Azurite(line.partition(_LISTENS)[2].strip())
                    server.make_container()
                    yield server
                    return
            raise AssertionError("".join(said))
        finally:
            running.terminate()
