"""Faults with exit code 9: the output exists, or another run holds it."""

from weightsmith.errors.fault import WeightsmithError


class InTheWay(WeightsmithError):
    """The output exists, or another run holds it."""

    exit_code = 9


class TargetExists(InTheWay):
    """There is something under the target's name that this plan did not make."""

    message = "{target} exists: {reason}"
    hint = "choose another name, or replace it once the new one is whole: `overwrite=True`"


class OtherDeltaThere(InTheWay):
    """The directory for a delta holds another delta already, perhaps of another model."""

    message = "{target} holds another delta, of fingerprint {fingerprint}: {reason}"
    hint = "give this one a directory of its own; `overwrite=True` replaces the one that is there"


class StagingOfAnotherPlan(InTheWay):
    """Another plan, or this one with inputs that have changed since, left an unfinished output."""

    message = "{staging} holds unfinished work that does not match: {reason}"
    hint = "discard it and start afresh: `restart=True`"


class StagingBusy(InTheWay):
    """Another run is writing this target at this moment."""

    message = "another run is writing {target}"
    hint = "wait for it, or choose another name for the output"


class SharesMissing(InTheWay):
    """An output that several processes make in shares was to be finished, and some of its files are
    still missing.
    """

    message = "{count} of {total} files of {target} are not finished"
    hint = "run the shares that are missing, then finish; finished files are kept"


class CacheBusy(InTheWay):
    """Another run is deleting from this cache at this moment."""

    message = "another clean-cache is deleting from {cache}"
    hint = "wait for it, then run the same command again"


class SystemRefuses(InTheWay):
    """The operating system refuses something that the run needs, most often to write a file."""

    message = "the system refuses {what}: {reason}"
    hint = "check permissions and settings of that place, or name another one"


class TargetUnwritable(InTheWay):
    """The directory that the target belongs in cannot be written to, or its disk fails."""

    message = "cannot write to {where}: {reason}"
    hint = "choose another directory for the output"


class RepoHoldsModel(InTheWay):
    """The repository to push a delta to holds a model, and users could mistake one for the other.
    Nothing was pushed.
    """

    message = "{repo} holds a model already: {file}"
    hint = "give the delta a repository of its own: `repo_id={repo}-delta`"


class BehindLink(InTheWay):
    """A file to be repaired is a link to one elsewhere, most often in the hub's cache, that others
    use too.
    """

    message = "{file} is a link to {target}; a repair through it would change what others use"
    hint = (
        "write a repaired copy of these files: weightsmith fix-tokenizer {folder} --local-copy DIR"
    )
