"""JSON without surprises: one meaning per document, or an error that says where it goes wrong."""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from weightsmith.errors import JsonInvalid
from weightsmith.formats.sniff import START_NBYTES, refuse_wrong_start

_BYTE_ORDER_MARK: Final = "\ufeff"
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_OPENING: Final = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*")
_COLON: Final = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_COMMA: Final = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_CLOSING: Final = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")


def parse_json(raw: bytes, file: Path | str, *, bom_allowed: bool = False) -> object:
    """The value of a JSON document in UTF-8; `file` is only named in errors.

    Raises: JsonInvalid, also for what Python's parser would let pass: repeated keys, ``NaN``,
    ``Infinity`` and numbers that would become that, half of a surrogate pair, UTF-16, and nesting
    or integers without end; LfsPointer and WebPage, for what lies there in place of the document.
    """
    with _refused(file):
        text = _text(raw, file, bom_allowed=bom_allowed)
        value: object = _decoder(file).decode(text)
        if _may_hold_surrogates(raw):
            _require_characters(value)
        return value


def iter_members(raw: bytes, file: Path | str) -> Iterator[tuple[str, object]]:
    """The keys and values of a JSON document that is a map, in the order of the document.

    Memory: the text, the keys and one value, where `parse_json` holds all values at once.
    Raises: as `parse_json`, for a fault in one member once those before it were yielded; and
    JsonInvalid, for a document that is no map.
    """
    with _refused(file):
        text = _text(raw, file)
        doubtful = _may_hold_surrogates(raw)
        del raw  # the document is held once
        decode = _decoder(file).raw_decode
        keys = set[str]()
        found = _OPENING.match(text)
        if found is None:
            raise JsonInvalid(file=file, reason="it is no map")
        position = found.end()
        if text.startswith("}", position):
            found = None
        while found is not None:
            if not text.startswith('"', found.end()):
                message = "Expecting property name enclosed in double quotes"
                raise json.JSONDecodeError(message, text, found.end())
            key, position = decode(text, found.end())
            if key in keys:
                raise JsonInvalid(file=file, reason=_repeated(key))
            keys.add(key)
            colon = _COLON.match(text, position)
            if colon is None:
                raise _expected("':'", text, position)
            value, position = decode(text, colon.end())
            if doubtful:
                _require_characters((key, value))
            yield key, value
            found = _COMMA.match(text, position)
        end = _CLOSING.match(text, position)
        if end is None:
            raise _expected("','", text, position)
        if end.end() < len(text):
            raise json.JSONDecodeError("Extra data", text, end.end())


def _expected(delimiter: str, text: str, position: int) -> json.JSONDecodeError:
    """Python's own words for a delimiter that is not there, after any space."""
    space = _SPACE.match(text, position)
    where = position if space is None else space.end()
    return json.JSONDecodeError(f"Expecting {delimiter} delimiter", text, where)


def _text(raw: bytes, file: Path | str, *, bom_allowed: bool = False) -> str:
    """The characters of a document, once its first bytes may be those of one.

    Raises: JsonInvalid, LfsPointer, WebPage; UnicodeDecodeError; JSONDecodeError, for a byte order
    mark.
    """
    if not raw:
        raise JsonInvalid(file=file, reason="it is empty")
    refuse_wrong_start(raw[:START_NBYTES], file)
    text = raw.decode("utf-8")
    if not text.startswith(_BYTE_ORDER_MARK):
        return text
    if not bom_allowed:
        raise json.JSONDecodeError("Unexpected UTF-8 BOM", text, 0)
    return text.removeprefix(_BYTE_ORDER_MARK)


def _decoder(file: Path | str) -> json.JSONDecoder:
    """Python's, without what it lets pass."""

    def refuse_constant(text: str) -> NoReturn:
        raise JsonInvalid(file=file, reason=f"{text} is no JSON number")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        unique_pairs = dict(pairs)
        if len(unique_pairs) < len(pairs):
            raise JsonInvalid(file=file, reason=_repeated(_first_repeated(pairs)))
        return unique_pairs

    def finite(text: str) -> float:
        number = float(text)
        if math.isinf(number):
            raise JsonInvalid(file=file, reason=f"{text[:20]} is beyond what a number can be")
        return number

    return json.JSONDecoder(
        object_pairs_hook=unique, parse_constant=refuse_constant, parse_float=finite
    )


@contextlib.contextmanager
def _refused(file: Path | str) -> Iterator[None]:
    """Turn what Python says of a document into our errors."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise JsonInvalid(file=file, reason=f"byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise JsonInvalid(file=file, reason="a string holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise JsonInvalid(
            file=file, reason=f"{error.msg.removesuffix(' at')} at {where}"
        ) from error
    except RecursionError as error:
        raise JsonInvalid(file=file, reason="it nests too deep") from error
    except ValueError as error:  # Python's own bound on the digits of an integer
        raise JsonInvalid(file=file, reason="an integer has thousands of digits") from error


def _may_hold_surrogates(raw: bytes) -> bool:
    return b"\\ud" in raw or b"\\uD" in raw


def _require_characters(value: object) -> None:
    """Raises: UnicodeEncodeError, for half of a surrogate pair."""
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _repeated(key: str) -> str:
    return f"the key {key!r} is repeated"


def _first_repeated(pairs: list[tuple[str, object]]) -> str:
    counts = Counter(key for key, _ in pairs)
    return next(key for key, count in counts.items() if count > 1)
