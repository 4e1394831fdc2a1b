"""Ask a bucket for its objects: a listing, a range of one, or all of one in pieces."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from weightsmith import fs
from weightsmith.errors import (
    InputChanged,
    ObjectNameUnsafe,
    ShardTruncated,
    SourceNotFound,
    StoreDenied,
    StoreUnreachable,
    cut,
    masked,
)
from weightsmith.objects.address import ObjectAddress

FIRST_WAIT_S = 1.0
"""Before the second try; then twice as long each time, up to eight times as long: as for the hub.
"""
RETRIES: Final = 5
MAX_OBJECTS: Final = 10_000
"""Objects at one level of a prefix; a model has hundreds."""

_PIECE_NBYTES: Final = 8 * 1024 * 1024
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_QUERY: Final = re.compile(r"\?[^\s\"']*")
_RETRIED: Final = "s  - "
"""Comes before the last of several causes in the library's messages."""
_SAID: Final = 200
"""Most characters of the library's message that are passed on."""
_UNSAFE_PART: Final = re.compile(r"\.{0,2}|.*[\\:\x00-\x1f\x7f].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Object:
    """One object, as it was when it was listed."""

    name: str
    """Its key behind the prefix."""
    nbytes: int
    etag: str
    """What the store calls this content, in quotes; it is asked for with every range."""
    modified_s: int
    """When it was written, in seconds since 1970."""

    @property
    def identity(self) -> tuple[int, int, int]:
        """Size, time of modification in ns, and none of change: what a file is recognised by.

        A store knows the time to the second; the ETag's number takes the place of the rest.
        """
        below = int.from_bytes(blake3(self.etag.encode()).digest()[:8], "little") % 1_000_000_000
        return self.nbytes, self.modified_s * 1_000_000_000 + below, 0


class Bucket:
    """The objects behind one address."""

    def __init__(self, address: ObjectAddress) -> None:
        """Nothing is asked for yet; credentials are found as obstore finds them.

        Raises: ModuleNotFoundError, without the extra ``s3``; StoreDenied, where the settings in
        the environment make no sense.
        """
        self.address = address
        url = f"{address.scheme}://{address.bucket}"
        from obstore.store import from_url

        with self._translated(""):
            self._store: Any = from_url(
                url,
                client_options={"allow_http": _is_plain_http(address.scheme)},
                retry_config={
                    "max_retries": RETRIES,
                    "backoff": {
                        "init_backoff": timedelta(seconds=FIRST_WAIT_S),
                        "max_backoff": timedelta(seconds=8 * FIRST_WAIT_S),
                        "base": 2,
                    },
                    "retry_timeout": timedelta(minutes=3),
                },
                credential_provider=_credentials(address.scheme),
            )

    def list(self, folder: str = "") -> tuple[list[Object], list[str]]:
        """The objects at one level behind the prefix, and the names of what looks like folders
        there.

        Raises: SourceNotFound, for a bucket that is not there; ObjectNameUnsafe, StoreDenied,
        StoreUnreachable.
        """
        import obstore

        within = "/".join(filter(None, [self.address.prefix, folder]))
        start = f"{within}/" if within else ""
        with self._translated(""):
            found = obstore.list_with_delimiter(self._store, within or None)
        objects = [
            Object(
                name="/".join(filter(None, [folder, each["path"].removeprefix(start)])),
                nbytes=each["size"],
                etag=quoted(each["e_tag"]),
                modified_s=int(each["last_modified"].timestamp()),
            )
            for each in found["objects"]
            if each["path"].removeprefix(start)  # the prefix itself, as consoles mark folders
        ]
        for each in objects:
            if any(_UNSAFE_PART.fullmatch(part) for part in each.name.split("/")):
                raise ObjectNameUnsafe(address=self.address, name=each.name)
        if len(objects) > MAX_OBJECTS:
            reason = f"{len(objects)} objects lie there, as of no model"
            raise SourceNotFound(source=self.address, context=[reason])
        return objects, [path.rstrip("/").removeprefix(start) for path in found["common_prefixes"]]

    def read(self, file: Object, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of an object from `start`, as long as it is what was listed.

        Raises: InputChanged; ShardTruncated, if less arrives; StoreDenied, StoreUnreachable.
        """
        if not len(buffer):
            return
        done = 0
        for piece in self._pieces(file, start, start + len(buffer)):
            if done + len(piece) > len(buffer):
                raise StoreUnreachable(
                    address=f"{self.address}/{file.name}", reason="it sends another range"
                )
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        if done < len(buffer):
            reason = f"{len(buffer) - done} bytes from byte {start + done} did not come"
            raise ShardTruncated(file=f"{self.address}/{file.name}", reason=reason)

    def is_object(self) -> bool:
        """Whether the prefix is no prefix, but an object's whole key.

        Raises: StoreDenied, StoreUnreachable.
        """
        import obstore

        with contextlib.suppress(SourceNotFound), self._translated(""):
            obstore.head(self._store, self.address.prefix)
            return True
        return False

    def copy(self, file: Object, path: Path, advance: Callable[[int], None]) -> None:
        """Write all of an object to a new file, in pieces.

        Raises: as `read`; DiskFull.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        out = fs.create(path, exclusive=True)
        buffer = memoryview(bytearray(min(file.nbytes, _PIECE_NBYTES)))
        for start in range(0, file.nbytes, _PIECE_NBYTES):
            piece = buffer[: min(_PIECE_NBYTES, file.nbytes - start)]
            self.read(file, start, piece)
            out.write_from(start, piece)
            advance(len(piece))

    def _pieces(self, file: Object, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes of one request, after comparing its ETag with that of the listing."""
        import obstore

        options: obstore.GetOptions = {"range": (start, stop)}
        if file.etag:
            options["if_match"] = file.etag
        with self._translated(file.name):
            found = obstore.get(self._store, self.address.key(file.name), options=options)
            meta = found.meta
            # Some servers look at no condition, and send what is there now.
            if meta["size"] != file.nbytes or (file.etag and quoted(meta["e_tag"]) != file.etag):
                raise InputChanged(file=f"{self.address}/{file.name}")
            for piece in found.stream(min_chunk_size=_PIECE_NBYTES):
                yield memoryview(piece)

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn what obstore raises into our errors, without an address's query in them: it may be a
        signature.
        """
        from obstore import exceptions

        where = f"{self.address}/{name}" if name else str(self.address)
        try:
            yield
        except FileNotFoundError as error:
            if name:  # it was there when it was listed
                raise InputChanged(file=where) from error
            raise SourceNotFound(source=where) from error
        except exceptions.PreconditionError as error:
            raise InputChanged(file=where) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StoreDenied(address=where, reason=_said(error)) from error
        except exceptions.UnknownConfigurationKeyError as error:
            raise StoreDenied(address=where, reason=_said(error)) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            # A refused listing has no class of its own, only a status in the text.
            match _status(error):
                case 404 if not name:
                    raise SourceNotFound(source=where) from error
                case 401 | 403:
                    raise StoreDenied(address=where, reason=_said(error)) from error
            raise StoreUnreachable(address=where, reason=_said(error)) from error


def quoted(etag: str | None) -> str:
    """An ETag as headers have it, in quotes: Azure's listings leave them out. Empty for none."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag or ""


def _status(error: Exception) -> int:
    """The HTTP status that an exception reports; 0 if it reports none."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def _said(error: Exception) -> str:
    """The library's message, shortened, and without passwords and signatures."""
    text = str(error)
    if status := _status(error):
        code = _CODE.search(text)
        return f"HTTP status {status}" + (f", {code[1]}" if code else "")
    text = text.partition("\n")[0].rpartition(_RETRIED)[2]
    return cut(_QUERY.sub("?...", masked(text)), _SAID)


def _is_plain_http(scheme: str) -> bool:
    """Whether the user's own settings name an endpoint without TLS."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") if scheme == "s3" else ()
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _credentials(scheme: str) -> Any:
    """Where boto3 is installed, what it finds: profiles, single sign-on; obstore itself knows the
    environment and the machine's own role.
    """
    if scheme != "s3" or "AWS_ACCESS_KEY_ID" in os.environ or not importlib.util.find_spec("boto3"):
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # it finds none
        return None
