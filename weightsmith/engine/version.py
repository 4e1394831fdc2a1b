"""Make a version of a model as training runs publish them: what each tensor changed by."""

import json
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, cast

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import span_count, span_digest, tensor_digest
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.codecs.checksums import Algorithm, hasher
from weightsmith.codecs.disk_delta import Encoding, Packer, payload_limit
from weightsmith.engine.inputs import File as InputFile
from weightsmith.engine.manifest import File, Manifest, manifest_of
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Making, Outcome, require_same
from weightsmith.engine.receipts import Receipt, machine, made_from
from weightsmith.engine.shard import read_back
from weightsmith.engine.spans import Buffers, span_range
from weightsmith.errors import NothingChanged, VerificationFailed
from weightsmith.formats.index import parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, layout, widened
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import Plan, RestoredPlan, ShardPlan, TensorPlan
from weightsmith.progress import SILENCE, Progress

INDEX: Final = INDEXES[0]
_CHECKSUM_LENGTH: Final = 64
"""Digits of the longest checksum."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """What became of a tensor that changed."""

    info: TensorInfo
    payload: bytes
    checksum: str


def make_version(
    plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE
) -> Outcome:
    """Make the planned version and publish it under its final name, whole or not at all.

    `plan.delta.version` is what its index says of it.
    Memory: for each worker three spans and the payload of one tensor, unpacked where it overwrites.
    Raises: NothingChanged; as `Making.run`.
    """
    return _Version(plan, bindings, options, progress).run()


class _Version(Making):
    """One file, however large, and the index; both inputs have tensors of one table."""

    def make(self, kept: Mapping[str, Receipt]) -> Manifest:  # noqa: ARG002  (none is)
        """Pack the tensors by name, write those that changed, and read it all back.

        Raises: NothingChanged; VerificationFailed.
        """
        (shard,) = self.plan.shards
        inputs = self.bindings.inputs
        identity = made_from(shard, inputs)
        infos = sorted((each.output for each in shard.tensors), key=lambda i: i.name.encode())
        room = _room(infos)
        file = fs.create(self.staging.output / shard.name)
        self.progress.begin("packing and checking", sum(info.nbytes for info in infos))
        payloads: list[TensorInfo] = []
        sums: dict[str, str] = {}
        at = room
        for packed in self._pack_all(infos):
            file.write_from(at, memoryview(packed.payload))
            at += len(packed.payload)
            payloads.append(TensorInfo(packed.info.name, "U8", (len(packed.payload),)))
            sums[packed.info.name] = packed.checksum
        if not payloads:
            raise NothingChanged(base=inputs["base"].label, target=inputs["target"].label)
        header = widened(layout(payloads, sums)[0], room)
        file.write_from(0, memoryview(header))
        file.sync()
        self.staging.synced(shard.name, file.stat())
        rules = tuple(TensorPlan(info, "copy@1", {}, ()) for info in payloads)
        written = RestoredPlan(shard.name, rules, given=header)
        digests = read_back(file.path, written, self.buffers, lambda _: None)
        receipt = Receipt(
            self.plan.digest, shard.name, file.size, machine(self.plan), identity, digests
        )
        self.require_unchanged({shard.name: receipt})
        index = {
            "metadata": dict(self.plan.delta.version),
            "weight_map": {info.name: shard.name for info in payloads},
        }
        raw = (json.dumps(index, indent=2) + "\n").encode()
        self.write_beside({INDEX: raw})
        found = self.digests(self.open(self.staging.output), digests)
        require_same(file.path, found, digests)
        return self._manifest(digests, raw, self.staging.output)

    def kept(self) -> Mapping[str, Receipt]:
        """Nothing: a step is one file."""
        super().kept()
        return {}

    def open(self, directory: Path) -> Checkpoint:
        """As the payloads that it holds."""
        return open_checkpoint(directory)

    def expected(self, manifest: Manifest) -> Manifest:
        """All of it follows from plan, file and index."""
        directory = self.bindings.target
        raw = fs.read_small(directory / INDEX, MAX_HEADER_NBYTES)
        said = parse_index(raw, directory / INDEX).metadata
        if said != dict(self.plan.delta.version):
            raise VerificationFailed(file=directory / INDEX, reason="it says another version")
        return self._manifest(manifest.tensors, raw, directory)

    def still_gives(
        self,
        shard: ShardPlan,  # noqa: ARG002
        made: Receipt,  # noqa: ARG002
        files: Collection[InputFile],  # noqa: ARG002
    ) -> bool:
        """Not known: it would have to be packed anew."""
        return False

    def gives(self, finished: Manifest) -> bool:
        """Pack what changed anew, and compare the digests of the payloads."""
        (shard,) = self.plan.shards
        infos = [each.output for each in shard.tensors]
        self.progress.begin("comparing with its inputs", sum(info.nbytes for info in infos))
        found = {each.info.name: _payload_digest(each) for each in self._pack_all(infos)}
        return found == finished.tensors

    def _manifest(self, digests: Mapping[str, str], index: bytes, directory: Path) -> Manifest:
        there = self.open(directory).files
        files = {file.name: File(file.size, file.header_digest) for file in there}
        return replace(manifest_of(self.plan, digests, {INDEX: index}), files=files)

    def _pack_all(self, infos: Sequence[TensorInfo]) -> Iterator[_Packed]:
        """Those that changed, in order; as many are packed ahead as there are workers."""
        workers = len(self.buffers)
        waiting: deque[Future[_Packed | None]] = deque()
        left = iter(infos)
        with ThreadPoolExecutor(workers) as pool:
            try:
                waiting.extend(pool.submit(self._pack, info) for info in islice(left, workers))
                while waiting:
                    packed = waiting.popleft().result()
                    waiting.extend(pool.submit(self._pack, info) for info in islice(left, 1))
                    if packed is not None:
                        yield packed
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _pack(self, info: TensorInfo) -> _Packed | None:
        """A tensor's payload, which is unpacked again and compared; None where nothing changed.

        Raises: VerificationFailed.
        """
        base, target = self.bindings.inputs["base"], self.bindings.inputs["target"]
        said, own = self.plan.delta.version, Buffers()
        encoding = cast("Encoding", said["delta_encoding"])
        packer = Packer(encoding)
        checksum = hasher(cast("Algorithm", said["checksum_format"]))
        for number in range(span_count(info.nbytes)):
            span = span_range(number, info.nbytes)
            old, new = own.block(0, span.nbytes), own.block(1, span.nbytes)
            base.read_into(info.name, span.start, old)
            target.read_into(info.name, span.start, new)
            packer.add(old, new)
            checksum.update(new)
            self.progress.advance(span.nbytes)
        if not packer.changed:
            return None
        payload = packer.finish()
        if not packer.restores(payload):
            raise VerificationFailed(file=self.staging.output, reason=f"tensor {info.name}")
        return _Packed(info, payload, checksum.hexdigest())


def _payload_digest(packed: _Packed) -> str:
    """That of the tensor of bytes which the version holds."""
    nbytes = len(packed.payload)
    spans = [span_range(number, nbytes) for number in range(span_count(nbytes))]
    digests = [span_digest(memoryview(packed.payload)[each.start : each.stop]) for each in spans]
    return tensor_digest(TensorInfo(packed.info.name, "U8", (nbytes,)), digests)


def _room(infos: Sequence[TensorInfo]) -> int:
    """The most that the header can need, whatever changed."""
    limits = [TensorInfo(info.name, "U8", (payload_limit(info.nbytes),)) for info in infos]
    return len(layout(limits, {info.name: "0" * _CHECKSUM_LENGTH for info in infos})[0])
