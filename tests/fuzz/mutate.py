"""Changes that keep an input's form, so that many of them pass the first checks of a reader."""

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, Final

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32)
NUMBERS_BEYOND: Final = (-1, -2, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40)
WORDS: Final = (
    *("F16", "BF16", "F32", "F64", "I64", "U8", "BOOL", "F8_E4M3", "I4"),
    *("weight", "data_offsets", "shape", "dtype", "__metadata__", "", "..", "../x", "a/b"),
    *("\n", "\x1b[31m", "\ud800", "a" * 300, "(a+)+$", ".*", "é", "model.safetensors"),
)
GLOBALS: Final = (
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch HalfStorage"),
    *("torch._utils _rebuild_parameter", "torch BFloat16Storage", "torch FloatStorage"),
    *("torch Size", "torch float16", "os system", "builtins eval", "torch.storage UntypedStorage"),
    *("torch.distributed.tensor DTensor", "torch.distributed.checkpoint.metadata Metadata"),
)


def flip(raw: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out, put in twice or set to zero: the form is not kept."""
    content = bytearray(raw or b"\0")
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, length = chance.randrange(len(content)), chance.choice((1, 1, 2, 8))
        match chance.randrange(5):
            case 0:
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                content[at : at + length] = chance.randbytes(length)
            case 2:
                content[at : at + length] = b""
            case 3:
                content[at:at] = content[at : at + length]
            case _:
                content[at : at + length] = bytes(length)
        content = content or bytearray(b"\0")
    return bytes(content)


def value(chance: random.Random) -> Any:
    """Something that JSON can hold, and a reader may not expect there."""
    return chance.choice(
        (
            chance.choice(NUMBERS),
            chance.choice(NUMBERS_BEYOND),
            chance.choice(WORDS),
            *(True, False, None, 0.5, 1e308, [], {}, [0, 0], [8, 4], {"a": 1}, [[]]),
        )
    )


def json_document(document: Any, chance: random.Random) -> Any:
    """One value of a document changed, taken away, copied to elsewhere, or named otherwise."""
    nodes: list[Any] = []
    _containers(document, nodes)
    if not nodes:
        return value(chance)
    node = chance.choice(nodes)
    if isinstance(node, list):
        if not node or chance.random() < 0.2:
            node.append(value(chance))
        elif chance.random() < 0.2:
            del node[chance.randrange(len(node))]
        else:
            node[chance.randrange(len(node))] = value(chance)
        return document
    keys = [*node]
    match chance.randrange(5) if keys else 4:
        case 0:
            del node[chance.choice(keys)]
        case 1:
            node[chance.choice(WORDS)] = node.pop(chance.choice(keys))
        case 2 if len(keys) > 1:
            one, other = chance.sample(keys, 2)
            node[one] = node[other]
        case 4:
            node[chance.choice(WORDS)] = value(chance)
        case _:
            node[chance.choice(keys)] = value(chance)
    return document


def _containers(node: Any, found: list[Any]) -> None:
    if isinstance(node, dict | list) and len(found) < 10_000:
        found.append(node)
        for each in node.values() if isinstance(node, dict) else node:
            _containers(each, found)


def json_text(raw: bytes, chance: random.Random) -> bytes:
    """A document with a few values changed; now and then its text itself."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return flip(raw, chance)
    for _ in range(chance.choice((1, 1, 2, 5))):
        document = json_document(document, chance)
    text = json.dumps(document).encode()
    return flip(text, chance) if chance.random() < 0.1 else text


def safetensors(raw: bytes, chance: random.Random) -> bytes:
    """A header with a few values changed, its length right again, over as many bytes of data."""
    if len(raw) < 8:
        return flip(raw, chance)
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = raw[8 : 8 + length], raw[8 + length :]
    if chance.random() < 0.6:
        header = json_text(header, chance)
    elif chance.random() < 0.8:
        data = chance.randbytes(len(data))
    else:
        data = flip(data, chance)
    return struct.pack("<Q", len(header)) + header + data


def opcodes(raw: bytes, chance: random.Random) -> bytes:
    """A pickle with a few of its opcodes changed, each still a whole one."""
    parts = split_opcodes(raw)
    if len(parts) < 3:
        return flip(raw, chance)
    numbers = [at for at, part in enumerate(parts) if part[:1] == b"K"]
    if numbers and chance.random() < 0.5:  # mostly sound still: other shapes, offsets, strides
        parts[chance.choice(numbers)] = b"K" + bytes([chance.randrange(9)])
        return b"".join(parts)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(1, len(parts))
        match chance.randrange(6):
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = [parts[chance.randrange(1, len(parts))]]
            case 2:
                other = chance.randrange(1, len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case _:
                parts[at] = _other_argument(parts[at], chance)
        if len(parts) < 3:
            break
    return b"".join(parts)


def split_opcodes(raw: bytes) -> list[bytes]:
    """The opcodes with their arguments, as far as they can be read."""
    starts: list[int] = []
    try:
        starts.extend(at for _, _, at in pickletools.genops(raw) if at is not None)
    except Exception:  # noqa: BLE001  (whatever is wrong, what came before can be changed)
        starts.append(len(raw))
    ends = [*starts[1:], len(raw)]
    return [raw[start:end] for start, end in zip(starts, ends, strict=True)]


def _other_argument(part: bytes, chance: random.Random) -> bytes:
    match part[:1]:
        case b"K" | b"M" | b"J" | b"\x8a":
            number = chance.choice(NUMBERS + NUMBERS_BEYOND[:7])
            packed = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(packed)]) + packed
        case b"X":
            text = chance.choice(WORDS).encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(text)) + text
        case b"c":
            return b"c" + "\n".join(chance.choice(GLOBALS).split(" ")).encode() + b"\n"
        case b"\x88" | b"\x89" | b"N":
            return chance.choice((b"\x88", b"\x89", b"N", b")", b"]", b"}"))
        case b"h" | b"q":
            return part[:1] + bytes([chance.randrange(40)])
        case _:
            return chance.choice((b"0", b"2", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"Q"))


def torch_zip(raw: bytes, chance: random.Random) -> bytes:
    """A torch file with a member changed, left out or renamed: mostly a sound zip again."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    except Exception:  # noqa: BLE001  (it is no zip any more)
        return flip(raw, chance)
    if members:
        at = next(
            (n for n, (name, _) in enumerate(members) if name.endswith("data.pkl")),
            chance.randrange(len(members)),
        )
        if chance.random() < 0.3:
            at = chance.randrange(len(members))
        name, content = members[at]
        if name.endswith("data.pkl") and chance.random() < 0.9:
            members[at] = (name, opcodes(content, chance))
        elif "/data/" in name and content and chance.random() < 0.6:
            members[at] = (name, chance.randbytes(len(content)))
        else:
            members = _other_members(members, at, chance)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    raw = made.getvalue()
    return flip(raw, chance) if chance.random() < 0.15 else raw


def _other_members(
    members: Sequence[tuple[str, bytes]], at: int, chance: random.Random
) -> list[tuple[str, bytes]]:
    (name, content), changed = members[at], [*members]
    match chance.randrange(4):
        case 0:
            del changed[at]
        case 1:
            changed[at] = (name, content[: chance.randrange(len(content) + 1)])
        case 2:
            changed[at] = (name + chance.choice(("x", "/y", "\n")), content)
        case _:
            changed[at] = (name, flip(content, chance))
    return changed
