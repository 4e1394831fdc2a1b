"""The library speaks Python, the command line speaks flags: arguments named in messages."""

import re
from typing import Final

_ARGUMENT: Final = re.compile(r"(?<!`)`([a-z][a-z_]*)(?:=([^`]*))?`(?!`)")
"""An argument as the library names it: ```overwrite=True```, ```new_rows=zero```, ```whole```."""
_FLAGS: Final = {
    "repair=False": "--no-repair",
    "check_smoke=True": "--smoke",
    "max_shard_nbytes": "--max-shard-size",
    "repo_id": "--hub-repo-id",
    "weights": "--format",
    "weights=16bit": "--weights 16bit",
    "weights=fp32": "--weights fp32",
}
"""Where the command line has another name than the library."""


def as_flags(text: str) -> str:
    """A message with every argument in it as this command line's flag.

    ```overwrite=True``` is ``--overwrite``, ```new_rows=zero``` is ``--new-rows zero``.
    """
    return _ARGUMENT.sub(_flag, text)


def _flag(found: re.Match[str]) -> str:
    name, value = found.groups()
    given = name if value is None else f"{name}={value}"
    if given in _FLAGS:
        return _FLAGS[given]
    flag = _FLAGS.get(name) or "--" + name.replace("_", "-")
    return flag if value in {None, "True"} else f"{flag} {value}"
