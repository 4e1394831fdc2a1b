"""The files of a model in an object store: safetensors read in ranges, all others copied first."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint import sidecars
from weightsmith.checkpoint.layout import KINDS, LayoutKind, layout_of, looks_like_weights
from weightsmith.checkpoint.store import LocalStore
from weightsmith.errors import DownloadTooLarge, ShardTruncated, SourceIsFile, SourceNotFound
from weightsmith.objects.bucket import Bucket, Object
from weightsmith.progress import Progress
from weightsmith.units import format_size

AHEAD_NBYTES: Final = 64 * 1024
"""Asked for at a time where headers are read: one request or two, and what the next read wants."""
_RANGED: Final = ".safetensors"
_SMALL: Final = (".json", ".chk")
"""Files that are read besides sidecars: indexes, manifests, configs, lists of checksums."""


class ObjectStore:
    """The files of one address.

    Files of safetensors are read where they are, a range at a time, and take no disk. Config,
    tokenizer and index lie in `folder`, and so do torch files where the model has no others: these
    are not read from front to back.
    """

    cache: Path
    """Nothing is kept after this store: the folder itself."""
    missing_nbytes: Final = 0
    """Bytes that would be fetched first."""

    def __init__(
        self, bucket: Bucket, *, spool: Path | None, adapter: bool, progress: Progress
    ) -> None:
        """List the objects and copy those that are not read in ranges, into a directory of our own,
        in `spool` or among the system's temporary ones, that is gone with this store.

        Raises: SourceNotFound, SourceIsFile, DownloadTooLarge; as `Bucket.list` and `Bucket.copy`.
        """
        self._bucket = bucket
        objects, folders = bucket.list()
        if not objects and not folders:
            raise _nothing(bucket)
        for folder in filter(sidecars.is_sidecar_folder, folders):
            objects += bucket.list(folder)[0]
        self._ranged = {
            each.name: each
            for each in objects
            if each.name.endswith(_RANGED) and "/" not in each.name
        }
        kinds: tuple[LayoutKind, ...] = ("adapter",) if adapter else KINDS
        layout = layout_of([each.name for each in objects], kinds=kinds)
        weights = {*layout.files} if layout is not None else set()
        copied = [
            each
            for each in objects
            if each.name not in self._ranged
            and (
                each.name in weights
                or sidecars.is_sidecar(each.name)
                or (each.name.endswith(_SMALL) and not looks_like_weights(each.name))
            )
        ]
        self.left = sorted(
            {each.name for each in objects} - {each.name for each in copied} - {*self._ranged}
        )
        """Names of objects that are nobody's business here."""
        if spool is not None:
            spool.mkdir(parents=True, exist_ok=True)
        own = tempfile.mkdtemp(prefix="weightsmith-", dir=spool)
        self._gone = weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        # Who may look into an output is asked of its inputs' directories; `own` is ours alone.
        self.folder = self.cache = Path(own, "model")
        self.folder.mkdir()
        self._local = LocalStore(self.folder)
        self._copy(copied, progress)

    def _copy(self, files: list[Object], progress: Progress) -> None:
        needed, free = sum(each.nbytes for each in files), fs.free_nbytes(self.folder)
        if free is not None and needed > free:
            raise DownloadTooLarge(
                where=self.folder,
                free=format_size(free),
                needed=format_size(needed),
                hint="make room there, or name another directory for what is temporary: TMPDIR=DIR",
            )
        progress.begin(f"copying from {self._bucket.address.scheme}", needed)
        for each in files:
            self._bucket.copy(each, self.folder / each.name, progress.advance)

    @property
    def weights(self) -> list[str]:
        """Names of the files that are not in the folder: those that are read in ranges, and what is
        left.
        """
        return [*self._ranged, *self.left]

    def is_far(self, name: str) -> bool:
        """Whether a file is read in ranges."""
        return name in self._ranged

    def nbytes(self, name: str) -> int:  # noqa: ARG002
        """None: nothing is fetched to be read."""
        return 0

    def identity(self, name: str) -> tuple[int, int, int]:
        """Size, and when it was written, to the second and its ETag's number in place of the rest.

        It is what the listing said: whatever takes its place since is refused as it is read.
        """
        file = self._ranged.get(name)
        return self._local.identity(name) if file is None else file.identity

    def open(self, name: str) -> fs.Readable:
        """The file, for any number of threads."""
        file = self._ranged.get(name)
        return self._local.open(name) if file is None else RangedObject(self._bucket, file)

    def peek(self, name: str) -> fs.Readable:
        """The file for reading its header: a little more is asked for at a time."""
        file = self._ranged.get(name)
        if file is None:
            return self._local.open(name)
        return RangedObject(self._bucket, file, ahead_nbytes=AHEAD_NBYTES)

    def expect(self, name: str) -> None:
        """Nothing to do: ranges are asked for when they are read."""

    def release(self, name: str) -> None:
        """Close the file, where it is a local one."""
        self._local.release(name)


class RangedObject(fs.Readable):
    """An object, read in ranges, each of which has to be of the object that was listed.

    With `ahead_nbytes`, what a request brought beyond what was asked for serves the next read; it
    is then for one thread.
    """

    def __init__(self, bucket: Bucket, file: Object, *, ahead_nbytes: int = 0) -> None:
        """Nothing is asked for yet."""
        self.path = Path(file.name)
        self._bucket, self._file, self._ahead_nbytes = bucket, file, ahead_nbytes
        self._start, self._ahead = 0, b""

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._file.nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`.

        Raises: ShardTruncated, if the object ends first; as `Bucket.read`.
        """
        stop = offset + len(buffer)
        if stop > self.size:
            reason = f"it ends at byte {self.size}"
            raise ShardTruncated(file=f"{self._bucket.address}/{self._file.name}", reason=reason)
        if not self._ahead_nbytes:
            self._bucket.read(self._file, offset, buffer)
            return
        if not self._start <= offset or stop > self._start + len(self._ahead):
            ahead = bytearray(min(max(len(buffer), self._ahead_nbytes), self.size - offset))
            self._bucket.read(self._file, offset, memoryview(ahead))
            self._start, self._ahead = offset, bytes(ahead)
        buffer[:] = self._ahead[offset - self._start : stop - self._start]


def _nothing(bucket: Bucket) -> SourceIsFile | SourceNotFound:
    """The error for an address under which there are no objects."""
    address = bucket.address
    if address.prefix and bucket.is_object():
        above = str(address).rpartition("/")[0]
        return SourceIsFile(source=address, directory=above)
    hint = "check bucket and prefix"
    if address.scheme == "s3":
        hint += ", and AWS_ENDPOINT_URL for a store that is not Amazon's"
    return SourceNotFound(source=address, hint=hint)
