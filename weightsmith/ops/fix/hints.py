"""Commands that help where a file of an output is damaged."""

import os
from pathlib import Path
from typing import Final

from weightsmith.engine.manifest import Manifest
from weightsmith.hub.resolve import is_hub_source

_SOURCES: Final = {"apply-delta": "BASE+DELTA", "convert": "SOURCE", "make-delta": "TARGET"}
"""By the command that made an output, what it is made again from."""
COPY: Final = "COPY"


def fix_command(folder: Path, manifest: Manifest | None) -> str:
    """The command that fixes a folder; it names a source where the manifest names none that can
    be fetched.
    """
    if manifest is not None and known_origins(manifest) is not None:
        return f"weightsmith verify {folder} --fix"
    source = source_of(manifest)
    if source == _SOURCES["make-delta"]:
        return f"weightsmith verify {folder} --fix --from {source} --base BASE"
    return f"weightsmith verify {folder} --fix --from {source}"


def source_of(manifest: Manifest | None) -> str:
    """What a user can give as the source of right bytes: `COPY` where it is that alone."""
    if manifest is None or "key" in manifest.inputs:
        return COPY
    return _SOURCES.get(manifest.verb, COPY)


def known_origins(manifest: Manifest) -> dict[str, str] | None:
    """By role, where on the hub all that an output was made from is; None where not all of it came
    from there.
    """
    names = {role: origin for role, origin in manifest.origins.items() if _is_far(origin)}
    return names if manifest.inputs and names.keys() == manifest.inputs.keys() else None


def make_again(manifest: Manifest | None) -> str:
    """The command that makes the output again, as far as the manifest tells."""
    origins = {} if manifest is None else manifest.origins

    def named(role: str) -> str:
        origin = origins.get(role, "")
        return origin if _is_far(origin) else role.upper()

    match manifest and manifest.verb:
        case "apply-delta" if manifest and "key" in manifest.inputs:
            return "weightsmith apply-delta --key FILE --delta DELTA -o NEW"
        case "apply-delta":
            base, delta = named("base"), named("delta")
            return f"weightsmith apply-delta --base {base} --delta {delta} -o NEW"
        case "make-delta":
            base, target = named("base"), named("target")
            return f"weightsmith make-delta --base {base} --target {target} -o NEW"
        case "convert":
            return f"weightsmith convert {named('source')} NEW"
        case "merge-lora":
            return f"weightsmith merge-lora --base {named('base')} --lora LORA -o NEW"
        case _:
            return "run the weightsmith command that made it again, with -o NEW"


def _is_far(origin: str) -> bool:
    """Whether it is a repository of the hub, and no folder of that name here."""
    return is_hub_source(origin) and not os.path.lexists(origin)
