"""JSON without surprises: one meaning per document, or an error that says where it goes wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Final, NoReturn

from weightsmith.errors import JsonInvalid
from weightsmith.formats.sniff import START_NBYTES, refuse_wrong_start

_BYTE_ORDER_MARK: Final = "\ufeff"


def parse_json(raw: bytes, file: Path | str, *, bom_allowed: bool = False) -> object:
    """The value of a JSON document in UTF-8; `file` is only named in errors.

    Raises: JsonInvalid, also for what Python's parser would let pass: repeated keys, ``NaN`` and
    ``Infinity``, half of a surrogate pair, UTF-16, and nesting or integers without end; LfsPointer
    and WebPage, for what lies there in place of the document.
    """
    if not raw:
        raise JsonInvalid(file=file, reason="it is empty")
    refuse_wrong_start(raw[:START_NBYTES], file)

    def refuse_constant(text: str) -> NoReturn:
        raise JsonInvalid(file=file, reason=f"{text} is no JSON number")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        unique_pairs = dict(pairs)
        if len(unique_pairs) < len(pairs):
            raise JsonInvalid(file=file, reason=f"the key {_first_repeated(pairs)!r} is repeated")
        return unique_pairs

    try:
        text = raw.decode("utf-8")
        if bom_allowed:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        value: object = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
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
    return value


def _first_repeated(pairs: list[tuple[str, object]]) -> str:
    counts = Counter(key for key, _ in pairs)
    return next(key for key, count in counts.items() if count > 1)
