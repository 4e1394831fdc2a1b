"""Make an exact delta: encode file by file, prove that it decodes, record, publish."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from threading import Event

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layout import DELTA_INDEX
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.codecs.exact import kernel
from weightsmith.engine.background import Background
from weightsmith.engine.exact_delta_file import EncodedFile, encode_file, header_of
from weightsmith.engine.file_hashes import hash_file
from weightsmith.engine.inputs import File as InputFile
from weightsmith.engine.manifest import File, Manifest, manifest_of
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Making, Outcome, require_same
from weightsmith.engine.receipts import Receipt, machine, made_from
from weightsmith.engine.shard import read_back
from weightsmith.engine.spans import Advance, Buffers
from weightsmith.engine.target_files import Originals, originals_of
from weightsmith.errors import DamagedInput, VerificationFailed
from weightsmith.formats.index import build_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.base_record import BaseRecord, BaseTensor
from weightsmith.plan.exact_record import DeltaRecord, TargetFile, TargetTensor
from weightsmith.plan.model import Plan, RestoredPlan, ShardPlan, TensorPlan
from weightsmith.progress import SILENCE, Progress


def encode(
    plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE
) -> Outcome:
    """Make the planned delta and publish it under its final name, whole or not at all.

    `plan.delta` holds the base's id.
    Raises: as `Making.run`.
    """
    return _ExactDelta(plan, bindings, options, progress).run()


def encode_again(
    plan: Plan,
    inputs: Mapping[str, Checkpoint],
    name: str,
    record: DeltaRecord,
    file: fs.PositionedFile,
    buffers: Sequence[Buffers],
    advance: Advance,
) -> None:
    """Write one file of a delta that is made already; its `record` says what the files before this
    one hold, for a tensor that is the same as one of theirs is stored there alone.

    Raises: KeyError, if the record is that of another plan; as `encode_file`.
    """
    made = {each.info.name: each for each in record.tensors}
    seen: dict[str, TargetTensor] = {}
    for shard in takewhile(lambda each: each.name != name, plan.shards):
        names = (tensor.output.name for tensor in shard.tensors)
        for each in sorted(names, key=lambda text: text.encode("utf-8")):  # as they were made
            seen.setdefault(made[each].digest, made[each])
    encode_file(
        next(each for each in plan.shards if each.name == name),
        inputs,
        file,
        seen,
        buffers,
        advance,
        writer=kernel.find() if plan.delta.coded else None,
        products=plan.delta.products,
        drop_cache=False,
    )


class _ExactDelta(Making):
    """A delta, one file for each weight file of the target."""

    def make(self, kept: Mapping[str, Receipt]) -> Manifest:
        """Encode the files, record what they hold, and open all of it as a reader will.

        Raises: VerificationFailed, if a reader would find anything but what was made.
        """
        receipts = self._encode_files(kept)
        made = [EncodedFile.from_document(each.encoded) for each in receipts.values()]
        digests = {n: each for r in receipts.values() for n, each in r.digests.items()}
        record = self._record(made)
        self.require_unchanged(receipts)
        payloads: dict[str, TensorInfo] = {}
        holders: dict[str, str] = {}
        for shard, file in zip(self.plan.shards, made, strict=True):
            payloads |= {info.name: info for info in file.payloads}
            holders |= dict.fromkeys((info.name for info in file.payloads), shard.name)
        index = build_index(holders, sum(info.nbytes for info in payloads.values()))
        self.write_beside({DELTA_INDEX: index})
        output = self.staging.output
        try:
            delta = self.open(output)
            if {name: each.info for name, each in delta.tensors.items()} != payloads:
                raise VerificationFailed(file=output / DELTA_INDEX, reason="other payloads")
            _require_tables(record, delta)
        except DamagedInput as error:
            raise VerificationFailed(file=output, reason=error) from error
        return self._manifest(digests, delta, index, record)

    def open(self, directory: Path) -> Checkpoint:
        """As a delta."""
        return open_checkpoint(directory, kind="exact-delta")

    def expected(self, manifest: Manifest) -> Manifest:
        """All of it follows from plan, files and record."""
        directory = self.bindings.target
        record = DeltaRecord.from_document(manifest.delta or {})
        index = fs.read_small(directory / DELTA_INDEX, MAX_HEADER_NBYTES)
        return self._manifest(manifest.tensors, self.open(directory), index, record)

    def kept(self) -> Mapping[str, Receipt]:
        """Up to the first file that has to be made again: those after it may lean on it, for a
        tensor that is the same as one of its own.
        """
        found = super().kept()
        names = [shard.name for shard in self.plan.shards]
        return {name: found[name] for name in takewhile(found.__contains__, names)}

    @cached_property
    def _originals(self) -> Originals:
        return originals_of(self.bindings.inputs["target"])

    def _manifest(
        self, digests: Mapping[str, str], delta: Checkpoint, index: bytes, record: DeltaRecord
    ) -> Manifest:
        return replace(
            manifest_of(self.plan, digests, {DELTA_INDEX: index}),
            files={file.name: File(file.size, file.header_digest) for file in delta.files},
            delta=record.to_document(),
        )

    def still_gives(self, shard: ShardPlan, made: Receipt, files: Collection[InputFile]) -> bool:
        """Read the tensors that lie in these files again, and compare their digests."""
        encoded = EncodedFile.from_document(made.encoded)
        inputs = self.bindings.inputs
        known = {
            "base": encoded.base_digests,
            "target": {name: each.digest for name, each in encoded.tensors.items()},
        }
        for role, digests in known.items():
            own = {name for holder, name in files if holder == role}
            read = (each.info.name for t in shard.tensors for each in t.inputs if each.role == role)
            names = {name for name in read if not inputs[role].files_of(name).isdisjoint(own)}
            # Of a base's tensor that was not read whole no digest is known.
            if not names <= digests.keys():
                return False
            found = self.digests(inputs[role], names)
            if any(found[name] != digests[name] for name in names):
                return False
        original = encoded.original
        if original is None or ("target", original.name) not in files:
            return True
        return _describe(inputs["target"], original.name, Event()) == original

    def gives(self, finished: Manifest) -> bool:
        """Digest base and target, and compare with what the record says of them."""
        record = DeltaRecord.from_document(finished.delta or {})
        known = {
            "base": {each.info.name: each.digest for each in record.base.tensors},
            "target": {each.info.name: each.digest for each in record.tensors},
        }
        inputs = self.bindings.inputs
        near = [role for role in known if not inputs[role].is_pinned]
        self.progress.begin("comparing with its inputs", sum(inputs[r].nbytes for r in near))
        return all(self.digests(inputs[role], known[role]) == known[role] for role in near)

    def _encode_files(self, kept: Mapping[str, Receipt]) -> dict[str, Receipt]:
        """Make every file that is not kept; returns the receipts of all, which say what each holds
        and the digests of its payloads.
        """
        shards = self.plan.shards
        known = {name: EncodedFile.from_document(each.encoded) for name, each in kept.items()}
        to_read = sum(info.nbytes for file in known.values() for info in file.payloads)
        to_make = sum(shard.data_nbytes for shard in shards if shard.name not in kept)
        self.progress.begin("encoding and checking", to_read + to_make)
        originals = [*self._originals.headers]
        receipts: dict[str, Receipt] = {}
        seen: dict[str, TargetTensor] = {}
        # Two threads: a file is hashed while the one before it is brought to the medium.
        with Background() as background, Background() as hashing:
            for number, shard in enumerate(shards):
                if shard.name in kept:
                    encoded = known[shard.name]
                    path = self.staging.output / shard.name
                    if encoded.payloads:
                        self.staging.synced(shard.name, path.lstat())
                    found = self._read_back(shard, encoded.payloads, self.progress.advance)
                    require_same(path, found, kept[shard.name].digests)
                    for tensor in encoded.tensors.values():
                        seen.setdefault(tensor.digest, tensor)
                    receipts[shard.name] = kept[shard.name]
                else:
                    original = originals[number] if originals else None
                    receipt = self._encode_file(shard, original, seen, background, hashing)
                    receipts[shard.name] = receipt
                    self.require_unchanged(receipts)
                    background.leave(receipt, self.staging.receipts)
            background.wait()
        return receipts

    def _encode_file(
        self,
        shard: ShardPlan,
        original: str | None,
        seen: dict[str, TargetTensor],
        background: Background,
        hashing: Background,
    ) -> Receipt:
        """Make one file; the receipt says what it holds, and is to be left once it is synced."""
        plan, inputs, drop_cache = self.plan, self.bindings.inputs, self.options.low_cpu_mem
        identity = made_from(shard, inputs)
        described = None
        if original is not None:
            stopped = hashing.stopped
            described = hashing.submit(partial(_describe, inputs["target"], original, stopped))
        file = fs.create(self.staging.output / shard.name)
        advance = self.progress.advance
        encoded = encode_file(
            shard,
            inputs,
            file,
            seen,
            self.buffers,
            advance,
            writer=kernel.find() if plan.delta.coded else None,
            products=plan.delta.products,
            drop_cache=drop_cache,
        )
        if described is not None:
            encoded = replace(encoded, original=described.result())
        if encoded.payloads:
            nbytes = file.size
            background.sync(file, self.staging, nbytes=nbytes, drop_cache=drop_cache)
        else:
            nbytes = None
            file.path.unlink()
        digests = self._read_back(shard, encoded.payloads, lambda _: None)
        receipt = Receipt(plan.digest, shard.name, nbytes, machine(plan), identity, digests)
        return replace(receipt, encoded=encoded.to_document())

    def _read_back(
        self, shard: ShardPlan, payloads: Sequence[TensorInfo], advance: Advance
    ) -> dict[str, str]:
        """The digests of a file's payloads, by name.

        Raises: VerificationFailed, if its header is not the one that belongs to them.
        """
        if not payloads:
            return {}
        tensors = tuple(TensorPlan(info, "copy@1", {}, ()) for info in payloads)
        written = RestoredPlan(shard.name, tensors, given=header_of(shard, payloads))
        return read_back(self.staging.output / shard.name, written, self.buffers, advance)

    def _record(self, files: Sequence[EncodedFile]) -> DeltaRecord:
        """The record, for which the rest of the base is digested too."""
        base, target = self.bindings.inputs["base"], self.bindings.inputs["target"]
        digests = {name: digest for file in files for name, digest in file.base_digests.items()}
        rest = [name for name in base.tensors if name not in digests]
        if rest:
            self.progress.begin("digesting", sum(base.tensors[n].info.nbytes for n in rest))
            digests |= self.digests(base, rest)
        restored = {name: each for file in files for name, each in file.tensors.items()}
        originals = tuple(file.original for file in files if file.original is not None)
        return DeltaRecord(
            base=BaseRecord(
                self.plan.delta.base_id,
                tuple(BaseTensor(each.info, digests[name]) for name, each in base.tensors.items()),
            ),
            tensors=tuple(restored[name] for name in target.tensors),
            files=originals,
            index=self._originals.index,
            coded=any(file.coded for file in files),
        )


def _describe(target: Checkpoint, name: str, stopped: Event) -> TargetFile:
    """All that restoring a file needs beside its tensors; reads the whole file for its hash."""

    def go_on(_: int) -> None:
        if stopped.is_set():
            raise InterruptedError

    file = target.peek(name)
    sha256 = hash_file(file, {"sha256"}, Buffers(), go_on)["sha256"]
    return TargetFile(name, file.size, sha256, read_header(file)[1])


def _require_tables(record: DeltaRecord, delta: Checkpoint) -> None:
    """Raises: DamagedInput, if a payload's table does not say where its spans are."""
    infos = {name: each.info for name, each in delta.tensors.items()}
    for rule in record.rules(infos):
        own = rule.work.inputs

        def read(
            number: int, start: int, buffer: memoryview, own: Sequence[TensorInfo] = own
        ) -> None:
            delta.read_into(own[number].name, start, buffer)

        rule.rule.prepare(rule.work, read)
