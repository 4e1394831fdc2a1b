"""The address of a model in an object store: ``s3://BUCKET/PREFIX``."""

import re
from dataclasses import dataclass
from typing import Final

from weightsmith.errors import ObjectAddressInvalid

_ADDRESS: Final = re.compile(r"(s3|gs|az)://", re.IGNORECASE)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """A place in a store, without any secret in it."""

    scheme: str
    """``s3``, ``gs`` or ``az``."""
    bucket: str
    """In Azure's words a container."""
    prefix: str
    """The beginning of the keys of the model's files, without a slash at its end; may be empty."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of one of the model's files."""
        return f"{self.prefix}/{name}" if self.prefix else name


def is_object_address(text: str) -> bool:
    """Whether `text` is the address of something in an object store."""
    return _ADDRESS.match(text) is not None


def parse_address(text: str) -> ObjectAddress:
    """Raises: ObjectAddressInvalid, also for an address with a password or a signature in it, which
    is not repeated then.
    """
    scheme, _, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or "?" in rest or "#" in bucket:
        shown = f"{scheme.lower()}://..."
        raise ObjectAddressInvalid(address=shown, reason="it holds more than bucket and prefix")
    if not _BUCKET.fullmatch(bucket):
        raise ObjectAddressInvalid(address=text, reason="it names no bucket")
    prefix = prefix.strip("/")
    if any(part in {"", ".", ".."} for part in prefix.split("/") if prefix):
        raise ObjectAddressInvalid(address=text, reason="its prefix has an empty part or dots")
    return ObjectAddress(scheme.lower(), bucket, prefix)
