"""Commands that help where a file of an output is damaged."""

from pathlib import Path
from typing import Final

from weightsmith.engine.manifest import Manifest
from weightsmith.hub.resolve import HubSource, parse_source

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
    names = {
        role: origin
        for role, origin in manifest.origins.items()
        if isinstance(parse_source(origin), HubSource)
    }
    return names if manifest.inputs and names.keys() == manifest.inputs.keys() else None


def make_again(manifest: Manifest | None) -> str:
    """The command that makes the output again, as far as the manifest tells."""
    if manifest is None:
        return "make the output again by the command that made it, with -o NEW"

    def named(role: str) -> str:
        return manifest.origins.get(role, role.upper())

    match manifest.verb:
        case "apply-delta" if "key" in manifest.inputs:
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
        case verb:
            return f"make it again by the weightsmith {verb} that made it, with -o NEW"
