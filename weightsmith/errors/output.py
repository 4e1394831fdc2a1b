"""Faults with exit code 10: what weightsmith made failed its verification."""

from weightsmith.errors.fault import WeightsmithError


class DamagedOutput(WeightsmithError):
    """Our own output failed verification."""

    exit_code = 10


class VerificationFailed(DamagedOutput):
    """A file that was read back differs from what was written to it. Nothing was published."""

    message = "{file} reads back different from what was written: {reason}"
    hint = "check disk and memory of this machine, then run the same command with `restart=True`"


class PushedWrong(DamagedOutput):
    """After a push the hub lists files that differ from those pushed, or lacks some. The commit is
    there nevertheless.
    """

    message = "{repo} at {commit} differs from what was pushed in {count} file(s)"
    hint = "do not use that commit; run the same command again"


class TokenizerUnproved(DamagedOutput):
    """A repaired tokenizer does not split text as its sentencepiece model or tokenizer.json does.
    No file was changed.
    """

    message = "{reader} does not read the repaired tokenizer as it should: {reason}"
    hint = (
        "this is a case that weightsmith does not know; please report it with tokenizer_config.json"
    )
