"""What is fuzzed: every reader of what strangers write, a row each.

A target takes any bytes. It may raise a `WeightsmithError`, and nothing else; a difference from a
reference reader is a `Differs`, and a defect unless `differences.MEANT` says why it is meant.
"""

import atexit
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.fuzz import mutate, mutate_tokenizers, vocabularies
from tests.fuzz.differences import COMPARED, Differs, count, meant
from tests.fuzz.folders import REPAIRS, run_one
from tests.support.paths import VECTORS
from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.table import read_table
from weightsmith.errors import ShardTruncated, WeightsmithError
from weightsmith.formats.tensors import StoredTensor


@dataclass(frozen=True, slots=True)
class Target:
    """A reader, and what to begin with."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    mutator: mutate.Mutator = mutate.flip
    limit_s: int = 5
    """Of processor time, that one input may take."""


class Memory(fs.Readable):
    """Bytes as a file."""

    def __init__(self, raw: bytes, name: str) -> None:
        self.path = Path(name)
        self._raw = raw

    @property
    def size(self) -> int:
        return len(self._raw)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        part = self._raw[offset : offset + len(buffer)]
        if len(part) < len(buffer):
            raise ShardTruncated(file=self.path, reason="it ends")
        buffer[:] = part


@cache
def scratch() -> Path:
    """A directory in memory for what reads folders, gone with the process."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  (a name of its own there)
    made = Path(tempfile.mkdtemp(prefix="weightsmith-fuzz-", dir=where))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


# --- weight files ---------------------------------------------------------------------------------


def _table(raw: bytes, name: str) -> dict[str, StoredTensor]:
    tensors, _ = read_table(Memory(raw, name), [])
    for each in tensors:
        if not 0 <= each.offset <= len(raw):
            raise Differs(f"{each.info} lies outside of the file")
        if each.strides is None and each.offset + each.info.nbytes > len(raw):
            raise Differs(f"{each.info} ends outside of the file")
    return {each.info.name: each for each in tensors}


def read_safetensors(raw: bytes) -> None:
    """Our parser beside the library's."""
    import safetensors

    try:
        found = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
        theirs: dict[str, Any] | None = dict(found)
    except (safetensors.SafetensorError, ValueError, OverflowError):
        theirs = None
    try:
        ours = _table(raw, "x.safetensors")
    except WeightsmithError as error:
        if theirs is not None:
            meant("safetensors", "refused here", error)
        raise
    if theirs is None:
        meant("safetensors", "taken here", "")
        return
    count(COMPARED)
    if ours.keys() != theirs.keys():
        raise Differs(f"tensors: {sorted(ours)[:5]}, the library {sorted(theirs)[:5]}")
    for name, each in ours.items():
        their = theirs[name]
        mine = raw[each.offset : each.offset + each.info.nbytes]
        if list(each.info.shape) != list(their["shape"]) or mine != bytes(their["data"]):
            raise Differs(f"{each.info}: the library has {their['shape']}")


def read_torch(raw: bytes) -> None:
    """Our machine beside torch's ``weights_only``."""
    import numpy as np
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
    except Exception:  # noqa: BLE001  (torch refuses in many ways)
        theirs = None
    try:
        ours = _table(raw, "x.bin")
    except WeightsmithError as error:
        if theirs is not None:
            meant("torch", "refused here", error)
        raise
    if not isinstance(theirs, dict):
        meant("torch", "taken here", "")
        return
    count(COMPARED)
    for name, each in ours.items():
        tensor = theirs.get(name)
        if not isinstance(tensor, torch.Tensor):
            continue
        if tuple(tensor.shape) != each.info.shape:
            raise Differs(f"{each.info}: torch has {tuple(tensor.shape)}")
        if each.strides is not None or tensor.is_sparse or tensor.is_quantized:
            continue
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        mine = np.frombuffer(raw, np.uint8, each.info.nbytes, each.offset)
        if not np.array_equal(flat.numpy(), mine):
            raise Differs(f"{each.info}: torch has other bytes")


def read_pickle(raw: bytes) -> None:
    """A pickle in a sound torch file with the storages 0 to 3."""
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/data.pkl", raw)
        archive.writestr("a/byteorder", "little")
        for number in range(4):
            archive.writestr(f"a/data/{number}", bytes(range(64)))
        archive.writestr("a/version", "3\n")
    read_torch(made.getvalue())


def _safetensors_seeds() -> Iterable[bytes]:
    from weightsmith.formats.safetensors_header import layout
    from weightsmith.formats.tensors import TensorInfo

    for infos in (
        [
            TensorInfo("a", "F16", (2, 3)),
            TensorInfo("b.weight", "I64", ()),
            TensorInfo("c", "U8", (5,)),
        ],
        [TensorInfo("é", "BF16", (0, 4)), TensorInfo("x", "F8_E4M3", (2, 2))],
        [],
    ):
        header, _ = layout(infos, {"format": "pt"})
        yield header + bytes(range(sum(info.nbytes for info in infos)))


@cache
def _torch_seeds() -> tuple[bytes, ...]:
    import torch

    half = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    made = []
    for content in (
        {"a": half, "b": half[1:], "n": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)},
        {"state_dict": {"w": torch.nn.Parameter(half.float())}, "step": 3, "note": ["x", (1, 2)]},
        {"t": half.t(), "e": torch.empty(0, 3), "q": torch.arange(3, dtype=torch.uint8)},
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        made.append(buffer.getvalue())
    return tuple(made)


def _pickle_seeds() -> Iterable[bytes]:
    import zipfile

    for raw in _torch_seeds():
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            name = next(each for each in archive.namelist() if each.endswith("data.pkl"))
            yield archive.read(name)


# --- JSON and text --------------------------------------------------------------------------------


def read_index(raw: bytes) -> None:
    from weightsmith.formats.index import parse_index

    for name in parse_index(raw, Path("x.index.json")).weight_map.values():
        if "/" in name or "\\" in name or name in {"", ".", ".."}:
            raise Differs(f"it names {name!r}")


def read_adapter(raw: bytes) -> None:
    """A config, and its patterns on the names of a model, within the time that they have."""
    from weightsmith.formats.adapter import parse_adapter_config

    config = parse_adapter_config(raw, Path("adapter_config.json"), "x")
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.31.mlp.down_proj"):
        for ask in (config.rank_of, config.scale_of, config.rows_of):
            ask(name)


def match_patterns(raw: bytes) -> None:
    from weightsmith.patterns import Patterns, PatternUnusable

    try:
        patterns = Patterns({raw.decode("utf-8", "replace"): 1})
        for name in ("model.layers.0.self_attn.q_proj", "a" * 60 + "!", "base_model.model.x"):
            patterns.value(name, 0)
    except PatternUnusable:
        return


def look_at_tokenizer(raw: bytes) -> None:
    """Beside the library, and all repairs."""
    vocabularies.read_tokenizer_json(raw)
    _look_at({"tokenizer.json": raw, "config.json": b'{"model_type": "llama"}'})


def look_at_tokenizer_of_model(raw: bytes) -> None:
    """Beside a ``tokenizer.model`` of LLaMA's kind, against which it is held."""
    _look_at({**_llama(), "tokenizer.json": raw})


def look_at_model(raw: bytes) -> None:
    """As the one vocabulary of a folder, from which ``tokenizer.json`` is built and proved."""
    _look_at({**_llama(), "tokenizer.model": raw})


def look_at_settings(raw: bytes) -> None:
    """As every JSON file beside a tokenizer at once."""
    names = (
        *("config.json", "generation_config.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json"),
    )
    _look_at({**dict.fromkeys(names, raw), "tokenizer.json": _tokenizer_json()})


def _look_at(files: Mapping[str, bytes]) -> None:
    from weightsmith.repair.detect import diagnose, mend

    found = diagnose(files, embedding_rows=400)
    if found.mendable and not found.incurable and mend(found).proof:
        count(COMPARED)  # what was built is proved by sentencepiece and tokenizers


@cache
def _llama() -> Mapping[str, bytes]:
    """A folder of LLaMA's kind, with a vocabulary of a few hundred pieces."""
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True}
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer_config.json": json.dumps(settings).encode(),
        "tokenizer.model": (VECTORS / "sp.model").read_bytes(),
    }


@cache
def _rebuilt() -> bytes:
    """The ``tokenizer.json`` that is built for this folder."""
    from weightsmith.repair.detect import diagnose, mend

    return mend(diagnose(_llama())).after.files["tokenizer.json"]


@cache
def _tokenizer_json() -> bytes:
    path = next(iter(sorted((VECTORS / "skew").glob("*/broken/tokenizer.json"))))
    return path.read_bytes()


def read_manifest(raw: bytes) -> None:
    """And what it says of the delta that it lies beside."""
    from weightsmith.engine.manifest import parse_manifest
    from weightsmith.formats.tensors import TensorInfo
    from weightsmith.plan.add_record import AddRecord
    from weightsmith.plan.exact_record import DeltaRecord

    manifest = parse_manifest(raw, Path("weightsmith.json"))
    manifest.to_bytes()
    if manifest.delta is None:
        return
    for kind in (DeltaRecord, AddRecord):
        try:
            record = kind.from_document(manifest.delta)
        except WeightsmithError:
            continue
        if isinstance(record, DeltaRecord):
            payloads = {n: TensorInfo(n, "U8", (100,)) for n in manifest.tensors}
            for _ in record.rules(payloads):
                pass


def read_saved_plan(raw: bytes) -> None:
    from weightsmith.ops.saved_plan import parse_saved_plan

    parse_saved_plan(raw, Path("plan.json"))


def read_names(raw: bytes) -> None:
    """What a person may type: sources, expressions, sizes, renamings."""
    from weightsmith.hub.resolve import parse_hub_source
    from weightsmith.plan.expression import parse_expression
    from weightsmith.sources.links import split
    from weightsmith.units import parse_size

    text = raw.decode("utf-8", "replace")
    split(text)
    for parse in (parse_hub_source, parse_expression, parse_size):
        try:
            parse(text)
        except (WeightsmithError, ValueError):
            continue


def _vector(*patterns: str, most: int = 6) -> Callable[[], Iterable[bytes]]:
    def seeds() -> Iterable[bytes]:
        for pattern in patterns:
            for path in sorted(VECTORS.glob(pattern))[:most]:
                yield path.read_bytes()

    return seeds


def _text(*texts: str) -> Callable[[], Iterable[bytes]]:
    return lambda: [each.encode() for each in texts]


@cache
def _made() -> Mapping[str, bytes]:
    """Manifests of an output and of an exact delta, and a saved plan."""
    from weightsmith.ops.apply_delta import plan_apply_delta
    from weightsmith.ops.make_delta import make_delta

    vicuna, place = VECTORS / "vicuna_v1_1", scratch() / "made"
    shutil.copytree(vicuna / "target", place / "target")
    (place / "target" / "expected.safetensors").rename(place / "target" / "model.safetensors")
    job = plan_apply_delta(vicuna / "base", vicuna / "delta", target=place / "out")
    job.run()
    job = plan_apply_delta(vicuna / "base", vicuna / "delta", target=place / "other")
    job.save(place / "plan.json")
    make_delta(vicuna / "base", place / "target", place / "delta")
    files = ("out/weightsmith.json", "delta/weightsmith.json", "plan.json")
    return {name: (place / name).read_bytes() for name in files}


# --- payloads -------------------------------------------------------------------------------------


def decode_exact(raw: bytes) -> None:
    """A payload of each form of span, of several dtypes, with a base and without."""
    from tests.support.exact_payloads import content, decode, noise
    from weightsmith.formats.tensors import TensorInfo

    if not raw:
        return
    dtype = ("BF16", "F16", "F32", "U8")[raw[0] % 4]
    base = None if raw[0] & 4 else content(dtype, noise(400))
    nbytes = {"U8": 1, "F32": 4}.get(dtype, 2)
    decode(base, raw[1:], TensorInfo("w", dtype, (400 // nbytes,)))


def _exact_seeds() -> Iterable[bytes]:
    from tests.support.exact_payloads import content, encode, noise, stepped

    for number, dtype in enumerate(("BF16", "F16", "F32", "U8")):
        base, near = noise(400), stepped(noise(400), dtype)
        few = bytearray(base)
        few[3] ^= 1
        for target in (near, bytes(few), base, noise(400, 9)):
            for portable in (False, True):
                made = encode(content(dtype, base), content(dtype, target), portable=portable)
                yield bytes([number]) + made


def decode_low_rank(raw: bytes) -> None:
    from tests.support.low_rank_matrices import decode

    changed, _ = _merged()
    decode(changed, raw, 3)


@cache
def _merged() -> Any:
    from tests.support.low_rank_matrices import encode, integers, merged, with_integers

    changed = merged((40, 30), 3, "BF16")
    prediction = with_integers(changed, integers(40, 3), [integers(30, 3, seed=1)], {})
    return changed, encode(changed, prediction)


def decode_disk_delta(raw: bytes) -> None:
    """A payload of a version, of both encodings."""
    import numpy as np

    from tests.support.exact_payloads import content, made_by
    from weightsmith.codecs.disk_delta import DiskDelta

    if raw:
        encoding = ("xor", "overwrite")[raw[0] % 2]
        old = content("U8", np.arange(100, dtype=np.uint8).tobytes())
        made_by(DiskDelta(encoding), [old, content("U8", raw[1:])], old.info, None)


def _disk_delta_seeds() -> Iterable[bytes]:
    from weightsmith.codecs.disk_delta import Packer

    for number, encoding in enumerate(("xor", "overwrite")):
        packer = Packer(encoding)  # type: ignore[arg-type]
        new = bytearray(range(100))
        new[7] = new[50] = 255
        packer.add(memoryview(bytes(range(100))), memoryview(bytes(new)))
        yield bytes([number]) + packer.finish()


# --- folders --------------------------------------------------------------------------------------


def read_all(checkpoint: Checkpoint) -> None:
    """Every tensor, if all of them are small."""
    if sum(each.info.nbytes for each in checkpoint.tensors.values()) < 10_000_000:
        for name, tensor in checkpoint.tensors.items():
            checkpoint.read_into(name, 0, memoryview(bytearray(tensor.info.nbytes)))


def _in_folder(vector: str, file: str) -> Callable[[bytes], None]:
    """One file of a folder that training left is these bytes."""

    def run(raw: bytes) -> None:
        from weightsmith.sources.recognise import open_model

        folder = scratch() / vector.replace("/", "-")
        if not folder.exists():
            shutil.copytree(VECTORS / vector, folder)
        path = next(iter(sorted(folder.rglob(file))))
        path.write_bytes(raw)
        read_all(open_model(folder))

    return run


def read_versions(raw: bytes) -> None:
    """The index of a version of a training run."""
    from weightsmith.sources.recognise import recognise

    folder = scratch() / "run"
    version = folder / "weight_v000001"
    if not version.exists():
        shutil.copytree(_version(), version)
    (version / "model.safetensors.index.json").write_bytes(raw)
    recognise(folder)


@cache
def _version() -> Path:
    from weightsmith.ops.make_delta import make_delta

    _made()
    target = scratch() / "weight_v000001"
    base = VECTORS / "vicuna_v1_1" / "base"
    make_delta(base, scratch() / "made" / "target", target, codec="xor")
    return target


def hear_hub(raw: bytes) -> None:
    """An answer of a hub that lists a repository, as both kinds of list."""
    from weightsmith.errors import AnswerNotFromHub
    from weightsmith.hub.connection import (
        Connection,
        _parse_listing,
        _parse_tree,
        _parsed,
        is_safe_name,
    )
    from weightsmith.hub.select import select_files

    class Answer:
        headers: Mapping[str, str] = {}
        content = raw

    hub = Connection("http://localhost", Path("/nowhere"), offline=False, xet=False)
    try:
        listing = _parsed(
            hub, Answer, "org/x", "files", lambda each: _parse_listing("org/x", "main", each)
        )
        if all(is_safe_name(file.name) for file in listing.files):  # else `list_repo` refuses it
            select_files(listing, lambda _: b"{}")
    except AnswerNotFromHub:
        _parsed(hub, Answer, "org/x", "files", _parse_tree)


_LISTING: Final = {
    "sha": "0" * 40,
    "private": False,
    "siblings": [
        {"rfilename": "config.json", "size": 10, "blobId": "1" * 40},
        {"rfilename": "model.safetensors", "size": 9, "lfs": {"size": 9, "sha256": "2" * 64}},
    ],
}
_TREE: Final = [
    {"type": "file", "path": "config.json", "size": 10, "oid": "1" * 40},
    {"type": "directory", "path": "x"},
]
_ADAPTERS: Final = ("lora/*/adapter/adapter_config.json", "merge/*/adapter*/adapter_config.json")
_INDEX: Final = '{"metadata": {"total_size": 4}, "weight_map": {"a": "m-1.safetensors"}}'

TARGETS: Final[Mapping[str, Target]] = {
    each.name: each
    for each in (
        Target("safetensors", read_safetensors, _safetensors_seeds, mutate.safetensors),
        Target("torch-zip", read_torch, _torch_seeds, mutate.torch_zip),
        Target("torch-pickle", read_pickle, _pickle_seeds, mutate.opcodes),
        Target("index", read_index, _text(_INDEX), mutate.json_text),
        Target("adapter", read_adapter, _vector(*_ADAPTERS, most=20), mutate.json_text),
        Target("patterns", match_patterns, _text("q_proj", r"layers\.(\d+)\..*q_proj", "(a+)+$")),
        Target(
            "sentencepiece",
            vocabularies.read_sentencepiece,
            vocabularies.sentencepiece_seeds,
            mutate_tokenizers.sentencepiece,
        ),
        Target(
            "tiktoken",
            vocabularies.read_tiktoken,
            lambda: [vocabularies.ranks_seed()],
            mutate_tokenizers.ranks,
        ),
        Target(
            "tokenizer-json",
            look_at_tokenizer,
            vocabularies.tokenizer_json_seeds,
            mutate_tokenizers.tokenizer_json,
        ),
        Target(
            "llama-json",
            look_at_tokenizer_of_model,
            lambda: [_rebuilt()],
            mutate_tokenizers.tokenizer_json,
        ),
        Target(
            "llama-model",
            look_at_model,
            _vector("sp.model"),
            mutate_tokenizers.sentencepiece,
        ),
        Target(
            "settings",
            look_at_settings,
            _vector("skew/*/broken/config.json", "skew/*/broken/tokenizer_config.json"),
            mutate.json_text,
        ),
        Target(
            "manifest",
            read_manifest,
            lambda: [raw for name, raw in _made().items() if name != "plan.json"],
            mutate.json_text,
        ),
        Target("plan", read_saved_plan, lambda: [_made()["plan.json"]], mutate.json_text),
        Target("typed", read_names, _text("org/name@main", "0.5*A + 0.5*(B - C)", "A+D1", "5GB")),
        Target("exact-span", decode_exact, _exact_seeds),
        Target("low-rank-span", decode_low_rank, lambda: [_merged()[1]]),
        Target("disk-delta", decode_disk_delta, _disk_delta_seeds),
        Target("versions", read_versions, lambda: [_index_of_version()], mutate.json_text),
        Target(
            "dcp",
            _in_folder("training/dcp_plain_w4/ckpt", ".metadata"),
            _vector("training/dcp_plain_w4/**/.metadata"),
            mutate.opcodes,
        ),
        Target(
            "dtensor",
            _in_folder("training/fsdp2_fp32/ckpt", "model*rank_0*"),
            _vector("training/fsdp2_fp32/ckpt/model*rank_0*"),
            mutate.torch_zip,
        ),
        Target(
            "zero",
            _in_folder("training/ds_zero2_fp16/ckpt", "*rank_0_mp*optim*"),
            _vector("training/ds_zero2_fp16/ckpt/*/*rank_0_mp*optim*"),
            mutate.torch_zip,
        ),
        Target(
            "folders",
            lambda raw: run_one(raw, scratch()),
            lambda: [bytes([each]) for each in range(8)],
            limit_s=120,
        ),
        Target(
            "repairs",
            lambda raw: run_one(raw, scratch(), REPAIRS),
            lambda: [bytes([each]) for each in range(4)],
            limit_s=120,
        ),
        Target(
            "hub",
            hear_hub,
            lambda: [json.dumps(each).encode() for each in (_LISTING, _TREE)],
            mutate.json_text,
        ),
    )
}


def _index_of_version() -> bytes:
    return (_version() / "model.safetensors.index.json").read_bytes()
