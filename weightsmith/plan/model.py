"""The plan: the complete frozen description of a run, JSON in and out.

It holds no paths, no times and no run options: those are bindings, passed beside it. Its digest is
the key by which an unfinished output is continued, and a finished one recognised.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.layout import ADAPTER_WEIGHTS
from weightsmith.codecs.base import Codec, Work
from weightsmith.codecs.registry import codec
from weightsmith.formats.safetensors_header import layout, parse_header
from weightsmith.formats.tensors import SUMMABLE, StoredTensor, TensorInfo
from weightsmith.plan.align import NewRows

SCHEMA: Final = "weightsmith/plan@1"
METADATA: Final = {"format": "pt"}
"""The metadata of a shard, in any case; loaders before transformers 5 refuse a file without it."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """A tensor that a rule reads."""

    role: str
    """Which input holds it: ``"base"`` or ``"delta"``."""
    info: TensorInfo
    digest: str = ""
    """What its digest must be, where that is known."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One output tensor: which rule makes it, from which input tensors."""

    output: TensorInfo
    codec: str
    """Id in `codecs.registry`."""
    params: Mapping[str, str]
    """The codec's settings, all strings."""
    inputs: tuple[InputTensor, ...]
    digest: str = ""
    """What the output's digest must be, where that is known."""

    @classmethod
    def make(
        cls,
        codec_id: str,
        params: Mapping[str, str],
        inputs: Iterable[InputTensor],
        *,
        name: str | None = None,
        digest: str = "",
    ) -> "TensorPlan":
        """The tensor that a rule makes of `inputs`, under another `name` where one is given.

        Raises: a Mismatch, if the rule does not apply to such inputs.
        """
        given = tuple(inputs)
        output = codec(codec_id, params).signature([each.info for each in given])
        if name is not None:
            output = replace(output, name=name)
        return cls(output, codec_id, params, given, digest)

    @classmethod
    def cast_or_copy(
        cls, source: InputTensor, dtype: str, *, name: str | None = None, digest: str = ""
    ) -> "TensorPlan":
        """`source` in `dtype`; byte for byte, with its `digest`, where it is that already or holds
        no floats of 16 bits or more.
        """
        if dtype == source.info.dtype or source.info.dtype not in SUMMABLE:
            return cls.make("copy@1", {}, [source], name=name, digest=digest)
        return cls.make("cast@1", {"dtype": dtype}, [source], name=name)

    @property
    def rule(self) -> Codec:
        """The codec with its settings."""
        return codec(self.codec, self.params)

    @property
    def work(self) -> Work:
        """What the codec works on; nothing is prepared."""
        return Work(tuple(each.info for each in self.inputs), self.output)


@dataclass(frozen=True)
class ShardPlan:
    """One output file; tensors in the order in which they are computed."""

    name: str
    tensors: tuple[TensorPlan, ...]
    published: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the whole file that its release gives for it, hex by algorithm."""
    metadata: Mapping[str, str] = field(default_factory=lambda: METADATA)
    """What the file says beside its tensors."""

    @cached_property
    def header(self) -> bytes:
        """The file's first bytes, known before any data."""
        return self._layout[0]

    @cached_property
    def places(self) -> Mapping[str, StoredTensor]:
        """Where each tensor lies in the file."""
        return {stored.info.name: stored for stored in self._layout[1]}

    @cached_property
    def _layout(self) -> tuple[bytes, tuple[StoredTensor, ...]]:
        return layout((tensor.output for tensor in self.tensors), self.metadata)

    @property
    def data_nbytes(self) -> int:
        """Bytes of tensors in the file."""
        return sum(tensor.output.nbytes for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.header) + self.data_nbytes


@dataclass(frozen=True)
class FilePlan(ShardPlan):
    """One output file made whole by a file rule: its one tensor of bytes, without a header."""

    @cached_property
    def _layout(self) -> tuple[bytes, tuple[StoredTensor, ...]]:
        return b"", tuple(StoredTensor(tensor.output, 0) for tensor in self.tensors)


@dataclass(frozen=True)
class RestoredPlan(ShardPlan):
    """One output file byte for byte as its publisher wrote it; its header is given."""

    given: bytes = b""
    """The header, with its length field."""

    @cached_property
    def _layout(self) -> tuple[bytes, tuple[StoredTensor, ...]]:
        size = len(self.given) + self.data_nbytes
        return self.given, parse_header(self.given, size, Path(self.name)).tensors


@dataclass(frozen=True, slots=True)
class SidecarPlan:
    """A file beside the weights, as it will be published."""

    name: str
    role: str
    """The input that it comes from."""
    nbytes: int
    digest: str
    """blake3 of the content that is published."""
    changes: tuple[str, ...] = ()
    """What differs from the input's file, as sentences; empty when verbatim."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A weight file that the plan was made from, by what it is and not where it is."""

    name: str
    size: int
    header_digest: str


@dataclass(frozen=True, slots=True)
class InputPlan:
    """One input of the run."""

    role: str
    files: tuple[InputFile, ...]
    rules: str = ""
    """Of a derived input, the digest of the rules by which its tensors follow from its files."""
    origin: str = ""
    """``org/name@commit`` of an input from the hub."""


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """Form, base id and settings of any make-delta plan."""

    form: str = ""
    """``exact_record.FORM`` or ``add_record.FORM``; empty, where no delta is made."""
    base_id: str = ""
    """``ORG/NAME@COMMIT`` of the base on the hub; empty, where that is not known."""
    new_rows: NewRows | None = None
    """Of an additive delta: what the base's missing vocabulary rows count as in it."""
    index: str = ""
    """Of an exact delta whose target has an index: the blake3 of that."""
    coded: bool = False
    """Of an exact delta: whether its spans may be coded by class."""
    products: Mapping[str, str] = field(default_factory=dict)
    """Of an exact delta, by name of the base's tensors: what an adapter that was given adds to
    them, as `codecs.lora.steps` spells it.
    """
    version: Mapping[str, str] = field(default_factory=dict)
    """Of a version as training runs publish them: what its index says of it."""
    record: Mapping[str, Any] | None = None
    """Of an additive delta that has been measured: what its manifest will say of it."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values: the record, once it is known."""
        if not self.form:
            return {}
        if self.record is not None:
            return dict(self.record)
        settings = {
            "new_rows": self.new_rows,
            "index": self.index,
            "coded": self.coded,
            "products": dict(self.products),
            "version": dict(self.version),
        }
        given = {key: value for key, value in settings.items() if value}
        return {"form": self.form, "base_id": self.base_id, **given}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "DeltaPlan":
        """The inverse of `to_document`.

        Raises: KeyError, TypeError, if it is no such document.
        """
        if "base" in document:
            base_id = document["base"]["id"]
            return cls(document["form"], base_id, document["new_rows"], record=document)
        return cls(**document)


@dataclass(frozen=True)
class Plan:
    """What a run will write, from what, by which rules."""

    verb: str
    """The command, ``"apply-delta"``."""
    inputs: tuple[InputPlan, ...]
    shards: tuple[ShardPlan, ...]
    sidecars: tuple[SidecarPlan, ...]
    dropped: tuple[str, ...] = ()
    """Names of input tensors that the output leaves out on purpose."""
    notes: tuple[str, ...] = ()
    """Decisions worth a sentence to the user."""
    repairs: tuple[str, ...] = ()
    """Ids of the catalogue's repairs that were made to the sidecars."""
    release: str = ""
    """The catalogue's id of the published delta that was applied, where it is certain."""
    delta: DeltaPlan = DeltaPlan()
    """Of a plan of make-delta, what kind of delta it makes."""

    @cached_property
    def digest(self) -> str:
        """Hex blake3 over the plan's canonical bytes."""
        found = blake3()
        for piece in self._pieces():
            found.update(piece)
        return found.hexdigest()

    @property
    def multiplies(self) -> bool:
        """Whether some rule takes products of matrices."""
        return any(tensor.rule.multiplies for tensor in self.tensors)

    @property
    def makes_files(self) -> bool:
        """Whether file rules make the output; what tensors are in it shows when it is decoded."""
        return any(isinstance(shard, FilePlan) for shard in self.shards)

    @property
    def makes_adapter(self) -> bool:
        """Whether the output is an adapter, and no model."""
        return any(shard.name in ADAPTER_WEIGHTS for shard in self.shards)

    @property
    def tensors(self) -> tuple[TensorPlan, ...]:
        """All output tensors, shard by shard."""
        return tuple(tensor for shard in self.shards for tensor in shard.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all files that will be written, but for index and manifest."""
        return sum(s.nbytes for s in self.shards) + sum(s.nbytes for s in self.sidecars)

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**self._frame(), "shards": [_shard_document(shard) for shard in self.shards]}

    def _frame(self) -> dict[str, Any]:
        """The same without the shards."""
        return {
            "schema": SCHEMA,
            "verb": self.verb,
            "inputs": [
                {
                    "role": each.role,
                    "files": [[f.name, f.size, f.header_digest] for f in each.files],
                    "rules": each.rules,
                    "origin": each.origin,
                }
                for each in self.inputs
            ],
            "sidecars": [
                {
                    "name": s.name,
                    "role": s.role,
                    "nbytes": s.nbytes,
                    "digest": s.digest,
                    "changes": list(s.changes),
                }
                for s in self.sidecars
            ],
            "dropped": list(self.dropped),
            "notes": list(self.notes),
            "repairs": list(self.repairs),
            "release": self.release,
            "delta": self.delta.to_document(),
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same plan gives the same bytes."""
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        """Canonical JSON in pieces: of one shard's tensors at a time there are values."""
        frame = self._frame()
        before = _canonical({key: frame[key] for key in frame if key < "shards"})
        after = _canonical({key: frame[key] for key in frame if key > "shards"})
        yield before.removesuffix(b"}") + b',"shards":['
        for number, shard in enumerate(self.shards):
            yield (b"," if number else b"") + _canonical(_shard_document(shard))
        yield b"]," + after.removeprefix(b"{")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Plan":
        """The inverse of `to_document`, for plans that weightsmith wrote.

        Raises: KeyError, TypeError, ValueError, if it is no such document.
        """
        if document["schema"] != SCHEMA:
            unknown = f"unknown schema {document['schema']}"
            raise ValueError(unknown)
        return cls(
            verb=document["verb"],
            inputs=tuple(
                InputPlan(
                    each["role"],
                    tuple(InputFile(*file) for file in each["files"]),
                    each["rules"],
                    each["origin"],
                )
                for each in document["inputs"]
            ),
            shards=tuple(map(_shard_plan, document["shards"])),
            sidecars=tuple(
                SidecarPlan(**{**each, "changes": tuple(each["changes"])})
                for each in document["sidecars"]
            ),
            dropped=tuple(document["dropped"]),
            notes=tuple(document["notes"]),
            repairs=tuple(document["repairs"]),
            release=document["release"],
            delta=DeltaPlan.from_document(document["delta"]),
        )


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _shard_document(shard: ShardPlan) -> dict[str, object]:
    document: dict[str, object] = {
        "name": shard.name,
        "header_digest": bytes_digest(shard.header),
        "tensors": [_tensor_document(tensor) for tensor in shard.tensors],
        "published": dict(shard.published),
        "kind": type(shard).__name__,
    }
    if shard.metadata != METADATA:
        document["metadata"] = dict(shard.metadata)
    if isinstance(shard, RestoredPlan):
        document["given"] = base64.b64encode(shard.given).decode("ascii")
    return document


def _shard_plan(document: Mapping[str, Any]) -> ShardPlan:
    tensors = tuple(map(_tensor_plan, document["tensors"]))
    metadata = document.get("metadata", METADATA)
    common = document["name"], tensors, document["published"], metadata
    match document["kind"]:
        case "RestoredPlan":
            return RestoredPlan(*common, given=base64.b64decode(document["given"]))
        case "FilePlan":
            return FilePlan(*common)
        case _:
            return ShardPlan(*common)


def rules_digest(tensors: Iterable[TensorPlan]) -> str:
    """Hex blake3 over rules: which tensors they make, from which inputs, by which codecs."""
    documents = [_tensor_document(tensor) for tensor in tensors]
    return bytes_digest(json.dumps(documents, sort_keys=True).encode())


def _info_document(info: TensorInfo) -> list[object]:
    return [info.name, info.dtype, list(info.shape)]


def _info(document: Sequence[Any]) -> TensorInfo:
    name, dtype, shape = document
    return TensorInfo(name, dtype, tuple(shape))


def _tensor_document(tensor: TensorPlan) -> dict[str, object]:
    return {
        "output": _info_document(tensor.output),
        "codec": tensor.codec,
        "params": dict(tensor.params),
        "inputs": [[each.role, *_info_document(each.info), each.digest] for each in tensor.inputs],
        "digest": tensor.digest,
    }


def _tensor_plan(document: Mapping[str, Any]) -> TensorPlan:
    return TensorPlan(
        output=_info(document["output"]),
        codec=document["codec"],
        params=dict(document["params"]),
        inputs=tuple(
            InputTensor(role, _info(info), digest) for role, *info, digest in document["inputs"]
        ),
        digest=document["digest"],
    )
