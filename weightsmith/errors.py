"""Every error that weightsmith knows, each with its exit code, its message and its hint.

Raise the narrowest class and give it values, as in ``ShardEmpty(file=path)``: the class holds the
sentence that they are put into. The class name in kebab-case is the error's reference
(``ShardTruncated`` is ``shard-truncated``), which ``weightsmith help`` and
``docs/reference/errors.md`` explain with the class's docstring.

    WeightsmithError
      UsageFault      2   the command line asks for something that cannot be done
      SourceFault     3   a source is missing or unreadable
      AccessFault     4   login needed, or gated
      TemporaryFault  5   try again
      DamagedInput    6   an input is damaged or unsafe
      Mismatch        7   inputs do not belong together
      NoRoom          8   not enough disk or memory
      InTheWay        9   the output exists, or another run holds it
      DamagedOutput  10   our own output failed verification

Messages and hints name an argument as the library does, in backticks: ```base=SOURCE```. The
command line prints it as its own flag, ``--base SOURCE`` (``cli/flags.py``).
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

FIRST_SHOWN = 5
"""How many problems of one kind a message names before it says "and N more"."""
NAME_SHOWN = 200
"""Most characters of a name in a message; a hostile file may hold a name of a hundred million."""
LINE_SHOWN = 1000
"""Most characters of a path, a reason or a line of context."""
_COUNTED = re.compile(r"(\b(\d+) (?:\w+ )?\w+)\(s\)")
_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")


class WeightsmithError(Exception):
    """An error with a name, a message of one sentence, and a hint that says what to do."""

    exit_code: ClassVar[int] = 70
    message: ClassVar[str] = "{what}"
    """Template, filled with the values that the class is raised with."""
    hint: ClassVar[str] = ""
    """What to do about it, a command if there is one; filled like `message`."""

    def __init__(
        self, *, context: Sequence[str] = (), hint: str | None = None, **values: object
    ) -> None:
        """Keep the values; `context` lines are printed below the message, all of them under
        ``-v``.
        """
        self.values = {key: _shown_value(key, value) for key, value in values.items()}
        self.context = tuple(cut(printable(line), LINE_SHOWN) for line in context)
        self.hint_text = printable(hint) if hint is not None else self.hint.format(**self.values)
        super().__init__(_plural(self.message.format(**self.values)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished texts: an error crosses to another process with all that it says.

        Exceptions pickle by calling the class with their arguments, which are keywords here.
        """
        return _restored, (type(self), str(self), self.values, self.context, self.hint_text)

    def with_context(self, line: str) -> "WeightsmithError":
        """The same error with `line` put first in its context."""
        return _restored(type(self), str(self), self.values, (line, *self.context), self.hint_text)

    @property
    def reference(self) -> str:
        """The error's name in the documentation, kebab-case."""
        return reference_of(type(self))


def _restored(
    kind: type[WeightsmithError],
    message: str,
    values: dict[str, str],
    context: tuple[str, ...],
    hint: str,
) -> WeightsmithError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.values, error.context, error.hint_text = values, context, hint
    return error


def _plural(text: str) -> str:
    """``3 missing file(s)`` -> ``3 missing files``; ``1 tensor(s)`` -> ``1 tensor``."""
    return _COUNTED.sub(lambda found: found[1] + "s" * (found[2] != "1"), text)


def reference_of(error: type[WeightsmithError]) -> str:
    """``ShardTruncated`` -> ``shard-truncated``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", error.__name__).lower()


def _shown_value(key: str, value: object) -> str:
    """The value as text, a name cut at `NAME_SHOWN` characters, other values at `LINE_SHOWN`."""
    is_name = key != "reason" and not isinstance(value, os.PathLike | Exception)
    return cut(printable(value), NAME_SHOWN if is_name else LINE_SHOWN)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of the text; three dots stand for what was cut off."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def masked(text: str) -> str:
    """The text with user names and passwords in its addresses hidden: ``https://***@host``."""
    return _USER_INFO.sub("***@", text)


def printable(value: object) -> str:
    r"""Text with control characters escaped, so that a hostile name cannot drive a terminal, and
    passwords masked.

    Line breaks inside a value are escaped too, so that a tensor name cannot forge an output line.
    """
    text = masked(str(value))
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def shown(problems: Sequence[str], *, everything: bool = False) -> list[str]:
    """The first `FIRST_SHOWN` of many problems, and a line with how many more there are."""
    if everything or len(problems) <= FIRST_SHOWN + 1:
        return list(problems)
    rest = len(problems) - FIRST_SHOWN
    return [*problems[:FIRST_SHOWN], f"and {rest} more (-v lists all)"]


def known_errors() -> Iterator[type[WeightsmithError]]:
    """All leaf classes, in the order of their exit codes, for the documentation."""

    def leaves(error: type[WeightsmithError]) -> Iterator[type[WeightsmithError]]:
        children = error.__subclasses__()
        if not children:
            yield error
        for child in children:
            yield from leaves(child)

    yield from sorted(leaves(WeightsmithError), key=lambda e: (e.exit_code, e.__name__))


# --- 2: usage -------------------------------------------------------------------------------------


class UsageFault(WeightsmithError):
    """The command line asks for something that cannot be done."""

    exit_code = 2


class TargetUnnamed(UsageFault):
    """The name of the output is empty, as an unset variable in a script leaves it."""

    message = "the output has no name"
    hint = "name a directory for it"


class RepoIdInvalid(UsageFault):
    """The name of the repository to push to is not of the form ORG/NAME."""

    message = "`repo_id={repo}` is not the name of a repository"
    hint = "write it as ORG/NAME"


class RevisionNotBranch(UsageFault):
    """The revision to push to is a tag or a commit; commits can be added only to a branch."""

    message = "`revision={revision}` is a tag or a commit, and only a branch can be pushed to"
    hint = "name one: `revision=main`"


class CommandLineInvalid(UsageFault):
    """An unknown command or option, a value that does not parse, or something left out."""

    message = "{reason}"
    hint = "weightsmith -h"


class ConfirmationNeeded(UsageFault):
    """What was asked for cannot be undone and needs a yes, and there is no terminal to ask on."""

    message = "there is no terminal to ask on: {question}"
    hint = "if that is what you want, say so: `yes=True`"


class WeightsNeedOnce(UsageFault):
    """Weights or a scale were given together with `rounding=peft`, which repeats peft's own merge,
    and that merge knows neither.
    """

    message = "weights and a scale cannot be combined with `rounding=peft`"
    hint = "leave out `rounding=peft`: the weighted sum is rounded once"


class WeightsInvalid(UsageFault):
    """The weights given are not one finite number for each adapter."""

    message = "{count} adapter(s) need one finite weight each, not {weights}"
    hint = "give the weights in the order of the adapters"


class PathUnnamed(UsageFault):
    """A path was given under a name that the saved plan has no path for."""

    message = "the plan has no path named {name}"
    hint = "its paths are {names}"


class PartitionInvalid(UsageFault):
    """The share of a plan that was asked for does not exist: four shares are ``1/4`` to ``4/4``."""

    message = "{partition} is not a share of a plan"
    hint = "write it as I/N: the first of four is 1/4"


class PlanNotSaved(UsageFault):
    """The plan cannot be saved or handed to other machines: it needs what only this process has."""

    message = "this plan cannot be carried out elsewhere: {reason}"
    hint = "run it here"


class LabelsUnused(UsageFault):
    """Labels for a classifier were given, and none of the adapters holds a classifier."""

    message = "labels were given ({labels}), and no adapter holds a classifier to name them for"
    hint = "leave out `labels`"


class NoTargetName(UsageFault):
    """No target was named and none follows from the delta's name."""

    message = "cannot name the target after {delta}"
    hint = "say where to write: `target=DIR`"


class NoBase(UsageFault):
    """The delta needs a base, and none was given."""

    message = "no base was given for {delta}"
    hint = "say which model it was made from: `base=SOURCE`"


class NoKey(UsageFault):
    """The release is encrypted, and its key was not given."""

    message = "{delta} is encrypted with a file of its base, and no key was given"
    hint = "it is the base's weight file as Meta published it: `key=.../consolidated.00.pth`"


class OptionMeaningless(UsageFault):
    """An option was given that has no meaning for this kind of release."""

    message = "no use for {options} here: {reason}"
    hint = "leave them out"


class PatternUnused(UsageFault):
    """A pattern of `whole` matches no tensor of the delta. It is refused, for ignoring a slip in it
    would change the result.
    """

    message = "no tensor of {delta} is named like `whole={pattern}`"
    hint = "match one of the names above; * stands for any characters: `whole='model.embed*'`"


class FixSourceMissing(UsageFault):
    """Files are to be repaired, and nothing says what they must be: the folder has no manifest of
    weightsmith, and no source was named (a copy of it, what it was made from, or the repository on
    the hub that it is a copy of).

    No file is replaced without a digest that proves the new one right.
    """

    message = "nothing says what the files of {folder} must be: it has no weightsmith.json"
    hint = "name a copy of it, a hub id perhaps: weightsmith verify {folder} --fix --from COPY"


class NothingNamed(UsageFault):
    """A pattern that chooses or renames tensors matches none. It is refused, for ignoring a slip in
    it would change the result.
    """

    message = "no tensor of {source} is named like `{option}={pattern}`"
    hint = "see how they are named: weightsmith diff {source} {source} --json"


class NothingLeft(UsageFault):
    """The patterns that choose tensors leave none, and a file without tensors is no model."""

    message = "nothing would be left of {source}: all its {count} tensor(s) would be dropped"
    hint = "leave some: `drop` takes away what it names, `keep` all that it does not name"


class ExpressionInvalid(UsageFault):
    """The expression given to combine is not a sum of models."""

    message = "{expression} cannot be read {where}: {reason}"
    hint = "write it as '0.5*A + 0.5*B' or 'A + 0.7*(B - C)', with spaces around + and -"


class RenameInvalid(UsageFault):
    """A value of `rename` is not of the form OLD=NEW."""

    message = "`rename={text}` is not of the form OLD=NEW"
    hint = "OLD and NEW are beginnings of names, up to a dot; * stands for what differs"


class TargetIsInput(UsageFault):
    """The target is one of the inputs, lies inside one, or holds one."""

    message = "the output {target} would overwrite or mix with the input {source}"
    hint = "choose another directory for the output"


class BaseIsTarget(UsageFault):
    """The same directory was given as base and as target."""

    message = "{source} is both the base and the target"
    hint = "`base` is the original model, `target` the one that was trained from it"


class BaseIsDelta(UsageFault):
    """The same directory was given as base and as delta."""

    message = "{source} is both the base and the delta"
    hint = "`base` is the original model, `delta` what was published for it"


class SourceIsDirectory(UsageFault):
    """A path was given where only an alias or a hub id makes sense."""

    message = "{source} is a path, not an alias or a hub id"
    hint = "name a repository on the hub: ORG/NAME"


class LastUsedUnknown(UsageFault):
    """Models were to be deleted by their last use, and the file system does not record when files
    are read.
    """

    message = "last use of the files under {cache} is not known: {reason}"
    hint = "go by the time of download instead: `by=modified`"


class BaseUnnamed(UsageFault):
    """The delta to push names a directory of this machine as its base, which nobody else has."""

    message = "the base of {repo} is {base}, a directory that only this machine has"
    hint = "say what it is on the hub: `base_id=ORG/NAME@COMMIT`"


class LocalPathInside(UsageFault):
    """A file that would be pushed contains a path of this machine. Nothing was pushed.

    Most often it is ``_name_or_path`` in the target's config. The delta gives the target's files
    back byte for byte, so they are not changed on the way.
    """

    message = "a path of this machine is in {count} file(s) that would be pushed"
    hint = "remove it from the target's own file, then run the same command again"


class RepoIsPublic(UsageFault):
    """The repository to push to is public, and `public` was not given, without which a delta is
    pushed privately. Nothing was pushed.
    """

    message = "{repo} is public already: everyone would see what is pushed there"
    hint = "if they may, say so: `public=True`; else choose another `repo_id`"


class PushOffline(UsageFault):
    """A delta is to be pushed, and the network is switched off."""

    message = "nothing can be pushed to {repo}: the network is switched off"
    hint = "leave out `offline=True` and unset HF_HUB_OFFLINE"


class PushRefused(UsageFault):
    """The hub rejected the push, and would reject it again. The local delta is untouched."""

    message = "the hub rejects the push to {repo}: {reason}"
    hint = "see {page}, and run the same command again: the delta is not made anew"


class RankTooLarge(UsageFault):
    """The rank asked for an adapter is below 1, or above the highest that is supported."""

    message = "rank {rank} is not between 1 and {most}"
    hint = "leave it out: each matrix then gets the rank that its change has"


class RankNotFound(UsageFault):
    """An adapter was to be extracted, each matrix with the rank of its change, and some changes are
    not of low rank: every weight moved on its own, as in a full fine-tune, or by so little that the
    change cannot be told from rounding.
    """

    message = "the changes of {count} of {total} matrices are not of low rank"
    hint = "say how much of their change to keep: `rank=32`"


class NoCuda(UsageFault):
    """A CUDA device was asked for, and torch finds no CUDA device."""

    message = "there is no CUDA device that torch can use"
    hint = "use `device=cpu`, or install a torch that was built for this machine's GPU"


class KernelUnfit(UsageFault):
    """The compiled part in the package is left over from another version of weightsmith."""

    message = "the compiled part is of another weightsmith (interface {found}, not {wanted})"
    hint = "install it anew: pip uninstall weightsmith, then pip install weightsmith"


class PackageMissing(UsageFault):
    """What was asked for needs a package that is not installed."""

    message = "{wish} needs the package {package}, which is not installed"
    hint = "pip install '{package}'"  # some shells take brackets for a pattern


class DtypeUnknownHere(UsageFault):
    """A tensor was asked for in a library that lacks its dtype; its bytes can still be read."""

    message = "{name} is {dtype}, which {where} does not have"
    hint = "read its bytes: checkpoint.read_into(name, 0, buffer)"


class ArchitectureUnknown(UsageFault):
    """A smoke test was asked for, and transformers itself has no code for this kind of model. Code
    that comes with the weights is never run.
    """

    message = "transformers has no causal language model for {model_type}"
    hint = "leave out `smoke`: all else that verify checks works for models of any kind"


class ModelQuantised(UsageFault):
    """A smoke test was asked for, and the weights are quantised. Running them needs a quantiser's
    code, which the model's config could have transformers download; so none is loaded.
    """

    message = "{source} is quantised, and no quantiser's code is loaded for a smoke test"
    hint = "leave out `smoke`: all else that verify checks works for models of any kind"


class ArchitectureConverted(UsageFault):
    """A smoke test in little memory was asked for, which reads each weight from the files as it is
    needed, and transformers keeps some of them in another form than the files: all experts of a
    layer in one tensor, for example.
    """

    message = "transformers keeps {count} tensor(s) in another form than the files"
    hint = "leave out `low_cpu_mem=True`"


# --- 3: missing or unreadable ---------------------------------------------------------------------


class SourceFault(WeightsmithError):
    """A source is missing or unreadable."""

    exit_code = 3


class SourceNotFound(SourceFault):
    """There is no directory, file or other source of this name."""

    message = "no such file or directory: {source}"
    hint = "check the path; 'weightsmith help sources' says what a SOURCE may be"


class SourceIsFile(SourceFault):
    """A file was given where the directory of a model is needed."""

    message = "{source} is a file, not a directory"
    hint = "give the directory that holds it: {directory}"


class ClusterNotFound(SourceFault):
    """No Ray cluster answers at the address; none is started on this machine in its place."""

    message = "no Ray cluster answers at {address}"
    hint = "start one with ray start, or say where it is: `ray_address`"


class NodeBlind(SourceFault):
    """Some nodes of the cluster cannot see a path that their tasks would read or write."""

    message = "nodes of the cluster cannot see {count} path(s) that they need"
    hint = "put them on a file system that all nodes have under the same path"


class PathNotHere(SourceFault):
    """A path in a saved plan does not exist on this machine."""

    message = "{name} of the plan is not at {path} here"
    hint = "say where it is on this machine: `path={name}=PATH`"


class LinkBroken(SourceFault):
    """A link leads nowhere, or to itself: what it led to was deleted or moved.

    Most often it is in a download's directory and led into a cache that has been cleaned since.
    """

    message = "{file} is a link that leads nowhere: {target}"
    hint = "download it again, or mend the link: ls -l {file}"


class SourceUnreadable(SourceFault):
    """The operating system does not let weightsmith read this file or directory."""

    message = "cannot read {file}: {reason}"
    hint = "check its permissions: ls -ld {file}"


class NoWeights(SourceFault):
    """The directory holds no weight files that belong to a model."""

    message = "no weights in {source}"
    hint = "give the directory that holds model*.safetensors or pytorch_model*.bin"


class NoAdapter(SourceFault):
    """The directory holds no LoRA adapter: its config, its weights or both are missing."""

    message = "no adapter in {source}"
    hint = "expected adapter_config.json there, and adapter_model.safetensors or adapter_model.bin"


class EncodedRelease(SourceFault):
    """The directory holds a release whose files were combined byte by byte with another model's.

    They become weights when they are decoded with the files that they were made from.
    """

    message = "{source} is no model yet: {reason}"


class ShardMissing(SourceFault):
    """The index names a weight file that is not there."""

    message = "{index} names {count} missing file(s)"
    hint = "download them; the first download was not complete"


class RankMissing(SourceFault):
    """Each process of a training run wrote a part of the model, and the file of one is missing."""

    message = "{source} lacks {count} file(s) of the {total} that its processes wrote"
    hint = "copy them there: each process holds a part of every tensor"


class ModelUnnamed(SourceFault):
    """A training output holds weights without the names and shapes that they have in the model.

    FSDP's ``LOCAL_STATE_DICT`` writes all parameters of a unit as one flat tensor; only the
    training script knows which parameters are in it.
    """

    message = "{source} holds flat parameters of FSDP ({name}), without names and shapes"
    hint = (
        "load it in the script that wrote it, and save a state dict of the type"
        " SHARDED_STATE_DICT or FULL_STATE_DICT"
    )


class NoModelInside(SourceFault):
    """A training output holds no model, or several and nothing says which is meant."""

    message = "no model can be taken from {source}: {reason}"
    hint = "give the directory of the model's own checkpoint"


class SeveralOutputs(SourceFault):
    """A directory holds several checkpoints, and nothing in it says which one is meant."""

    message = "{source} holds {count} checkpoints"
    hint = "give one of them: {example}"


class CheckpointUnnamed(SourceFault):
    """A training output has no checkpoint of the name that was asked for."""

    message = "{source} has no checkpoint {name}"
    hint = "give the name of one that is there"


class PrecisionMissing(SourceFault):
    """A training output does not hold the weights in the precision that was asked for."""

    message = "{source} holds no {wanted} weights: {reason}"
    hint = "take the others: `weights={other}`"


class TrainingUnknown(SourceFault):
    """A training output is of a kind whose parts weightsmith cannot join into a model."""

    message = "{source} cannot be joined into a model: {reason}"
    hint = "load it with the framework that wrote it, and save the whole model there"


class SourceUnknown(SourceFault):
    """No directory, no alias of the catalogue and no hub id has this name."""

    message = "{source} is neither a directory nor a known alias nor a hub id"
    hint = "a hub id is ORG/NAME or ORG/NAME@REVISION"


class AddressNotModel(SourceFault):
    """The address given is not that of a model's repository on the hub."""

    message = "{address} is the address {what}, not of a model"
    hint = "a model's address is https://huggingface.co/ORG/NAME; its hub id ORG/NAME will do"


class ObjectAddressInvalid(SourceFault):
    """An address of an object store names no bucket or prefix there, or holds a password or
    signature.
    """

    message = "{address} is not the address of a model: {reason}"
    hint = "give s3://BUCKET/PREFIX alone; the login comes from the environment"


class RepoNotFound(SourceFault):
    """The hub has no such repository, or does not show it to you because it is private."""

    message = "the hub has no repository {repo}"
    hint = "check the name; if it is a private one: hf auth login"


class HomesGone(SourceFault):
    """None of the repositories that the catalogue lists for this alias is on the hub any more."""

    message = "none of the {count} repositories known to hold {alias} is on the hub any more"
    hint = "give your own copy: a directory, or another ORG/NAME"


class RevisionNotFound(SourceFault):
    """The repository exists but has no branch, tag or commit of this name."""

    message = "{repo} has no revision {revision}"
    hint = "see what it has: {page}/commits/main"


class NotCached(SourceFault):
    """The network is switched off, and the cache does not hold what is needed."""

    message = "{what} is not in the cache, and the network is switched off"
    hint = "to download it, leave out `offline=True` and unset HF_HUB_OFFLINE"


class NotInCache(SourceFault):
    """The cache holds nothing of the model that was named."""

    message = "{source} is not in the cache {cache}"
    hint = "see what is there: weightsmith clean-cache --dry-run"


class OnlyGguf(SourceFault):
    """The repository holds only GGUF files, which are made for other programs."""

    message = "{repo} holds only GGUF files"
    hint = "use the model that they were made from; the card names it: {page}"


class OnlyAdapter(SourceFault):
    """The repository holds an adapter (LoRA), which is no model without its base."""

    message = "{repo} holds an adapter, not a model"
    hint = "merge it into its base: weightsmith merge-lora --base SOURCE --lora {repo} --target DIR"


class OnlyTraining(SourceFault):
    """The repository holds a training output, which can only be read from a local directory."""

    message = "{repo} holds {what}, which are read from a directory, not from the hub"
    hint = "download all of it with the hub's own `hf download`, then name the directory"


class NoTokenizer(SourceFault):
    """The directory holds no file of a tokenizer."""

    message = "no tokenizer in {source}"
    hint = "copy the model's own tokenizer there: tokenizer.model or tokenizer.json"


# --- 4: login or licence -------------------------------------------------------------------------


class AccessFault(WeightsmithError):
    """A login is needed, or a licence has to be accepted."""

    exit_code = 4


class RepoGated(AccessFault):
    """The repository's licence has to be accepted before anything can be downloaded from it."""

    message = "{repo} is gated, and this account has no access to it"
    hint = "accept the licence at {page}, then: hf auth login"


class LoginNeeded(AccessFault):
    """The hub shows this only to those who have logged in, or refuses your token."""

    message = "the hub asks for a login for {repo}: {reason}"
    hint = "hf auth login"


class AccessDenied(AccessFault):
    """The hub knows your account, and does not let it read this."""

    message = "the hub denies access to {repo}: {reason}"
    hint = "check what your token may read (hf auth whoami), or ask the owner: {page}"


class StoreDenied(AccessFault):
    """An object store has no login to go by, refuses the one it has, or is given wrong settings."""

    message = "no access to {address}: {reason}"
    hint = "check the login in the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and the like)"


# --- 5: temporary ---------------------------------------------------------------------------------


class TemporaryFault(WeightsmithError):
    """Something that may well work the next time."""

    exit_code = 5


class CacheChanged(TemporaryFault):
    """A model that was chosen for deletion has since become one that others are rebuilt from.
    Nothing was deleted.
    """

    message = "{what} was to be deleted, and is needed now: {reason}"
    hint = "run the same command again; it looks at the cache anew"


class InputChanged(TemporaryFault):
    """An input file was written to while it was read; what was made from it is not kept."""

    message = "{file} changed while it was read"
    hint = "wait until nothing writes to it, then run the same command again"


class ClusterFailed(TemporaryFault):
    """The Ray cluster lost too many nodes, or cannot run the tasks that it was given."""

    message = "the Ray cluster cannot go on: {reason}"
    hint = "run the same command again: finished files are kept"


class HubUnreachable(TemporaryFault):
    """No connection to the hub could be made, or it broke off repeatedly."""

    message = "cannot reach {endpoint}: {reason}"
    hint = "check the network and run the same command again; it goes on where it stopped"


class StoreUnreachable(TemporaryFault):
    """No connection to an object store could be made, or it broke off repeatedly."""

    message = "cannot read {address}: {reason}"
    hint = "check the network, and the endpoint (AWS_ENDPOINT_URL); run the same command again"


class HubBusy(TemporaryFault):
    """The hub refuses requests for now: there were too many of them, or it is out of order."""

    message = "{endpoint} asks to come back later: {reason}"
    hint = "run the same command again {when}; it goes on where it stopped"


class DownloadBroken(TemporaryFault):
    """The download of a file stopped, or brought another number of bytes than the hub announced."""

    message = "{file} did not arrive whole: {reason}"
    hint = "run the same command again; it goes on where it stopped"


class AnswerNotFromHub(TemporaryFault):
    """Something answers at the hub's address, but not as a hub does: a proxy or a login page."""

    message = "{endpoint} does not answer like a hub: {reason}"
    hint = "a proxy or a login page may stand in between; check them, and HF_ENDPOINT"


class UploadBroken(TemporaryFault):
    """The upload of a file to the hub failed. The local delta is untouched."""

    message = "the upload to {repo} broke off: {reason}"
    hint = "run the same command again; what has arrived is not sent twice"


class RepoChanged(TemporaryFault):
    """The repository was changed or withdrawn between listing its files and fetching them."""

    message = "{repo} changed on the hub in the meantime: {reason}"
    hint = "run the same command again"


# --- 6: damaged or unsafe -------------------------------------------------------------------------


class DamagedInput(WeightsmithError):
    """An input is damaged or unsafe."""

    exit_code = 6


class ShardEmpty(DamagedInput):
    """A weight file of zero bytes: an interrupted download or a full disk."""

    message = "{file} is empty"
    hint = "download it again"


class ShardTruncated(DamagedInput):
    """A weight file is shorter than its own header or zip directory says."""

    message = "{file} is cut short: {reason}"
    hint = "download it again; this is what an interrupted download leaves"


class LfsPointer(DamagedInput):
    """A git-lfs pointer text lies where the file itself should be."""

    message = "{file} is a git-lfs pointer, not the file ({size} bytes are missing)"
    hint = "in that directory: git lfs pull"


class WebPage(DamagedInput):
    """A web page, such as a login form or a server's error, was saved in place of the file."""

    message = "{file} is a web page, not the file itself"
    hint = "open it to see what the server said, then download the file again"


class ServerMessage(DamagedInput):
    """A short text, as a rule a server's error message, was saved in place of a weight file."""

    message = "{file} is not a weight file but a text: {text}"
    hint = "mend what the text names (a login, a licence, the name), then download it again"


class NotRegularFile(DamagedInput):
    """There is a FIFO, device, socket or directory where a file should be."""

    message = "{file} is not a regular file"
    hint = "put the file itself there: download it again"


class FileTooLarge(DamagedInput):
    """A config, index or other file that is read whole is far larger than any real one."""

    message = "{file} has {nbytes} bytes, more than the {limit} that such a file may have"
    hint = "is it the file that its name promises? download it again"


class HeaderInvalid(DamagedInput):
    """A safetensors header breaks a rule of the format."""

    message = "{file} is not a valid safetensors file: {reason}"
    hint = "download it again"


class JsonInvalid(DamagedInput):
    """A JSON file does not parse, repeats a key, nests too deep, or lacks what should be in it."""

    message = "{file} is not valid JSON: {reason}"
    hint = "download it again, or mend it by hand"


class PlanDamaged(DamagedInput):
    """A saved plan was edited or cut short, or the file is not a saved plan."""

    message = "{file} is not a plan as weightsmith saved it: {reason}"
    hint = "save it anew: the command that made it, with its options and `save_plan`"


class IndexInvalid(DamagedInput):
    """The index is JSON but not a map from tensor names to file names."""

    message = "{file} is not a valid index: {reason}"
    hint = "download it again"


class IndexEscapes(DamagedInput):
    """The index names a file outside its own directory."""

    message = "{file} names a file outside its directory: {name}"
    hint = "do not trust this checkpoint; download it from its source again"


class SidecarEscapes(DamagedInput):
    """A file beside the weights is a link that leads out of the model's folder, or a manifest gives
    it a path out of it.

    Files elsewhere on this machine may be secret; they are neither read nor copied.
    """

    message = "{file} leads out of {directory}: {target}"
    hint = "if the file belongs to the model, put a copy of it in place of the link"


class TensorMissing(DamagedInput):
    """The index lists tensors that their files do not hold."""

    message = "{index} lists {count} tensor(s) that its files do not hold"
    hint = "files of two checkpoints seem mixed; download all of one again"


class TensorTwice(DamagedInput):
    """Two weight files hold a tensor of the same name, and no index says which one counts."""

    message = "{source} has {count} tensor(s) in more than one file"
    hint = "files of two checkpoints seem mixed; keep those of one"


class NoTensors(DamagedInput):
    """The weight files hold no tensor: the process that saved them held none of the model's."""

    message = "the weight files of {source} hold no tensors"
    hint = "save the model again with its whole state dict; under FSDP and ZeRO, gather it first"


class NoParameters(DamagedInput):
    """No tensor of a model or an adapter has any elements.

    DeepSpeed's ZeRO-3 leaves them so in the state of each process, and in a model that was saved
    without gathering it. The values are in the run's ``zero_pp_rank_*`` files.
    """

    message = "{source} is damaged: {count} tensors, and not a single parameter in them"
    hint = "ZeRO-3 leaves it so: give the directory of its zero_pp_rank_* files, with the weights"


class NotFinite(DamagedInput):
    """An adapter, or a delta that is added, holds NaN or infinity, which would spoil the model.

    An exact delta is not checked for them: it restores any bits that the target had.
    """

    message = "{source} holds NaN or infinity, in {count} tensor(s)"
    hint = "get a sound copy of it; `allow_nonfinite` takes it as it is"


class IndexIncomplete(DamagedInput):
    """The index leaves out tensors that its own shards hold and that the config's model needs."""

    message = "{index} leaves out {count} tensor(s) that the model needs"
    hint = "download the index again, or delete it: the weight files themselves list their tensors"


class CopiesDiffer(DamagedInput):
    """Two shards hold a tensor of the same name with different contents. Some loaders take the copy
    that the index does not name.
    """

    message = "{source} has two different copies of {count} tensor(s) that the model needs"
    hint = "download all shards again: one of them is of another version of the model"


class StateEmpty(DamagedInput):
    """Half of the tensors or more have names but no elements: the state of one process of a ZeRO-3
    or FSDP run was saved as if it were the model. The weights are elsewhere.
    """

    message = "{count} of the {total} tensors of {source} have no elements"
    hint = "the weights are in the run's zero_pp_rank_* files: give the directory of those"


class PartitionsInvalid(DamagedInput):
    """A file of a training output describes its tensors in a way that contradicts itself."""

    message = "{file} is not sound: {reason}"
    hint = "copy it again from where it was written"


class ParamsInvalid(DamagedInput):
    """Meta's ``params.json`` lacks a value, or describes a model other than LLaMA 1, 2 or 3."""

    message = "{file} describes no model that can be converted: {reason}"
    hint = "take a text model of LLaMA 1, 2 or 3; others in Meta's own layout are not known"


class PartsDoNotFit(DamagedInput):
    """A tensor is split over several files, and its parts do not make one tensor."""

    message = "the parts of {name} do not fit together: {reason}"
    hint = "files of two checkpoints seem mixed; download all of one again"


class MetaFilesDoNotFit(DamagedInput):
    """Meta's weight files and ``params.json`` are not those of one whole model."""

    message = "the files of {source} do not make one model: {count} problem(s)"
    hint = "are all consolidated.NN.pth files there, and from the same download?"


class AdapterConfigInvalid(DamagedInput):
    """``adapter_config.json`` lacks a value, or holds an impossible one."""

    message = "{file} describes no adapter: {reason}"
    hint = "download it again"


class AdapterEmpty(DamagedInput):
    """The adapter's weight file holds no tensor; some training scripts of 2023 saved it so."""

    message = "the adapter {adapter} holds no tensors"
    hint = "nothing was saved in it; get another copy, or train it again"


class FilesNotAsPublished(DamagedInput):
    """Some weight files have the hashes that were published for them, and others do not."""

    message = "{count} weight file(s) differ from what was published"
    hint = "download them again"


class QuantisationInvalid(DamagedInput):
    """A quantised tensor lacks one of its parts, or a part has the wrong shape, dtype or values."""

    message = "{name} is not as its quantiser leaves it: {reason}"
    hint = "download it again; is the quantization_config the one that it was made with?"


class PickleForbidden(DamagedInput):
    """A pickle calls something outside the short list that tensors need. Nothing was run."""

    message = "{file} asks to run {name}, which no checkpoint needs"
    hint = "do not open this file with torch.load; get safetensors files of the model instead"


class PickleInvalid(DamagedInput):
    """The pickle in a torch file is damaged, or is no table of tensors."""

    message = "{file} holds no readable table of tensors: {reason}"
    hint = "download it again"


class ZipInvalid(DamagedInput):
    """A torch file is not a sound zip archive of uncompressed members, as torch writes it."""

    message = "{file} is not a sound torch file: {reason}"
    hint = "download it again"


class GzipInvalid(DamagedInput):
    """A gzip file of a release cannot be unpacked."""

    message = "{file} is not a sound gzip file: {reason}"
    hint = "download it again"


class EncryptedInvalid(DamagedInput):
    """An encrypted file's name and its header do not agree on what it decodes to."""

    message = "{file} is not a sound encrypted file: {reason}"
    hint = "download it again, and keep its name"


class LegacyTorchFile(DamagedInput):
    """A torch file in the layout from before torch 1.6, which cannot be read as byte ranges."""

    message = "{file} has the layout from before torch 1.6"
    hint = (
        "in an environment you trust it in: torch.save(torch.load(FILE, weights_only=True), FILE)"
    )


class TorchScriptArchive(DamagedInput):
    """A TorchScript archive: a program with its constants, not a table of tensors."""

    message = "{file} is a TorchScript program, not a table of tensors"
    hint = "get the model's safetensors or .bin files instead"


class ExpandedTensor(DamagedInput):
    """A tensor of a torch file has stride 0: one stored element stands for many."""

    message = "{file}: tensor {name} is expanded (stride 0)"
    hint = "save it again after tensor.contiguous()"


class TokenizerTruncated(DamagedInput):
    """The sentencepiece model ends too early: an interrupted download."""

    message = "{file} is cut short after {size} bytes"
    hint = "download it again"


class TokenizerInvalid(DamagedInput):
    """A tokenizer file is not what its name promises."""

    message = "{file} is not a tokenizer that can be read: {reason}"
    hint = "download it again"


class HashMismatch(DamagedInput):
    """A downloaded file does not have the hash that the hub gives for it. It is not kept."""

    message = "{file} does not have the hash that the hub gives for it"
    hint = "run the same command again; if it happens twice, suspect network, memory or mirror"


class FileNameUnsafe(DamagedInput):
    """The hub lists a file whose name leads outside its directory. Nothing was downloaded."""

    message = "{repo} lists a file with an unsafe name: {name}"
    hint = "do not trust this repository"


class ObjectNameUnsafe(DamagedInput):
    """A bucket holds an object whose name leads outside its directory. Nothing was read."""

    message = "{address} holds an object with an unsafe name: {name}"
    hint = "do not trust what lies there"


class ModelNotRunnable(DamagedInput):
    """Transformers cannot load this model, or fails while running it."""

    message = "transformers cannot run {source}: {reason}"
    hint = "without `smoke`, weightsmith verify {source} checks all that needs no transformers"


class FactorsNotFinite(DamagedInput):
    """An adapter that a delta was to be made with holds NaN or infinity."""

    message = "the adapter {adapter} is damaged: {reason}"
    hint = "leave it out: a delta is made without it, too"


class DeltaInvalid(DamagedInput):
    """Something in an exact delta is damaged: a tensor's payload, a sidecar, or the record."""

    message = "{name} in the delta is damaged: {reason}"
    hint = "download the delta again"


class DeltaUnknown(DamagedInput):
    """A delta was written in a form that this version of weightsmith does not know."""

    message = "{what} of the delta has the unknown form {found}"
    hint = "a newer weightsmith may know it: pip install --upgrade weightsmith"


# --- 7: inputs that do not belong together --------------------------------------------------------


class Mismatch(WeightsmithError):
    """Inputs do not belong together."""

    exit_code = 7


class TensorsDoNotFit(Mismatch):
    """Base and delta, or base and target, differ in names or shapes more than they may."""

    message = "base {base} and {other} do not fit: {count} problem(s)"
    hint = "use the base that the delta's card names; for tensors stored whole: `whole=PATTERN`"


class TrainingMixed(Mismatch):
    """Files of a training output come from different runs, steps or numbers of processes."""

    message = "{source} mixes files of several runs or steps: {reason}"
    hint = "keep the files of one save in a directory of their own"


class ModelsDoNotCombine(Mismatch):
    """Models that are to be summed differ in names, shapes or dtypes, or are quantised."""

    message = "the models cannot be summed: {count} problem(s)"
    hint = "sum checkpoints of one model; if dtypes differ: weightsmith convert SOURCE DIR --dtype"


class NamesAmbiguous(Mismatch):
    """Two tensors would get the same name."""

    message = "{count} tensor(s) of {source} would share a name {how}"
    hint = "leave out those that are not the model's: `drop=PATTERN`"


class NamesNotConfig(Mismatch):
    """Almost no tensor of a training output has a name that its config's model would have: the
    model is a part of something larger, or one of several, or what was saved is an adapter.
    """

    message = "almost none of the {count} tensors of {source} is named as its config says"
    hint = (
        "take one model under its own names: `keep='policy.*'`, `rename=policy=`;"
        " another config: `sidecars_from`"
    )


class ShapesNotConfig(Mismatch):
    """The tensors of a training output do not have the shapes that its config gives."""

    message = "{source} has {count} tensor(s) of other shapes than its config says"
    hint = "is a file missing, or the config that of another model?"


class FixUnproved(Mismatch):
    """The manifest of a folder is lost, and the source that was named is not proved to be the same
    model: none of the folder's weight files is one that the source holds or makes, or a file that
    can be read differs.

    Otherwise a fine-tune would be taken for a damaged copy of its base, or a file that somebody
    changed for a damaged one.
    """

    message = "nothing shows that {folder} is what {source} holds or makes"
    hint = "see how they differ: weightsmith diff {folder} {source}"


class WrongBase(Mismatch):
    """An exact delta was made from another base: tensors of this one have other bytes or shapes."""

    message = "{base} is not what the delta was made from: it differs in {count} tensor(s)"
    hint = "the delta's weightsmith.json names its base"


class DtypeNotSummable(Mismatch):
    """A delta of the additive kind holds a tensor that is not floating point."""

    message = "tensor {name} is {dtype}, which is not a float and cannot be summed"
    hint = "is this a delta of the additive kind?"


class AdapterNotMergeable(Mismatch):
    """The adapter is of a kind that cannot be merged into a base's files, or that is not known.

    It needs more than the base's weights to compute its effect (aLoRA, Arrow), was trained on a
    base whose weights had been changed first (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA), on layers that
    the base's files do not have (``layer_replication``), or it is of a kind whose formula is not
    known here. A setting that this version does not know is refused too, for it may change what
    the numbers mean.
    """

    message = "{adapter} uses {feature}, which cannot be merged into files"
    hint = "merge it with the tool that trained it"


class AdapterDoesNotFit(Mismatch):
    """Some of the adapter's tensors have no matching weight in the base, or another shape than it.

    Nothing is merged then: a model with half of its adapter would look finished.
    """

    message = "{adapter} does not fit {base}: {count} problem(s)"
    hint = "is this the base that the adapter was trained on?"


class QuantisationUnknown(Mismatch):
    """The model is quantised in a way that weightsmith does not know and cannot undo."""

    message = "{source} is quantised by {method}, which weightsmith cannot undo: {reason}"
    hint = "use the model that it was made from, or dequantize it with the tool that made it"


class NotQuantised(Mismatch):
    """A model was to be dequantized whose weights are floats already."""

    message = "{source} is not quantised: there is nothing to dequantize"
    hint = "leave out `dequantize=True`"


class LabelsDoNotFit(Mismatch):
    """The labels given are not one different label for each row of the classifier."""

    message = "{tensor} of {adapter} needs {count} different labels, not {given}"
    hint = "name each of them once, in the order of the rows: `labels=A,B`"


class NothingToExtract(Mismatch):
    """None of the changes between base and target is one that a LoRA adapter can hold."""

    message = "there is nothing to extract: no change from {base} to {target} fits into an adapter"
    hint = "to see what differs: weightsmith diff {base} {target}"


class DtypeNotStorable(Mismatch):
    """A torch file holds a tensor of a dtype that a safetensors file cannot hold."""

    message = "tensor {name} is {dtype}, which a safetensors file cannot hold"
    hint = "save it in another dtype first: tensor.to(torch.complex64)"


class LinkNotDelta(Mismatch):
    """In a chain ``A+D1+D2``, something after the first ``+`` is not a delta."""

    message = "{link} in {chain} is not a delta but {kind}: {reason}"
    hint = "after the first +, name deltas; a LoRA adapter is merged first: weightsmith merge-lora"


class DeltaNotExact(Mismatch):
    """A cached model was to be deleted because a delta can restore it, and the delta is not exact:
    only an exact one gives the files back byte for byte.
    """

    message = "{delta} is not an exact delta: {reason}"
    hint = "make one: weightsmith make-delta --base SOURCE --target SOURCE --delta DIR"


class NothingChanged(Mismatch):
    """A new version of a model was to be made, and its tensors are those of the version before."""

    message = "{target} has the same tensors as {base}: there is no version to make"
    hint = "to compare two models: weightsmith diff A B"


class VersionsBroken(Mismatch):
    """A version of a model (``weight_vNNNNNN``) is missing, is there twice, or gives other bytes
    than its checksums say.

    Each version holds what changed since the one before it, so all later ones are lost with it.
    """

    message = "{where}: {reason}"
    hint = "take an earlier version: `at=NUMBER`; one that is stored whole needs none before it"


class ModelDiffers(Mismatch):
    """A model in memory was to be filled from a source whose tensors have other names or shapes.

    Nothing was filled. If the model has a head of its own that the source keeps as one with the
    embeddings, tie the model's weights first. If the source has tensors that the model lacks,
    `strict=False` leaves them unread.
    """

    message = "{source} and the model differ in {count} tensor(s)"
    hint = "make the model from the source's own config; `strict=False` leaves out what it lacks"


class BuffersUnset(Mismatch):
    """A model on the meta device has buffers that are in no file and that cannot be computed."""

    message = "the model has {count} buffer(s) without values, and no file holds them"
    hint = "make the model with real buffers: accelerate.init_empty_weights()"


class TiedDiffer(Mismatch):
    """Two tensors of the model share their memory, and the source holds different values for them.

    The model was filled in part, and must not be used.
    """

    message = "{a} and {b} share their memory in the model, and differ in {source}"
    hint = "set `tie_word_embeddings` to false in the model's config, and make it anew"


class MachinesDiffer(Mismatch):
    """An output that needs matrix products would be made on several types of processor, which round
    them differently: the result would depend on which file was made where.
    """

    message = "the plan multiplies matrices, and {count} types of processor take part"
    hint = "use machines of one type; delete the receipts of the others, so as to make theirs anew"


class VersionsDiffer(Mismatch):
    """Machines that make one output together run different versions of weightsmith or Python."""

    message = "{what} has {theirs}, and this machine {ours}"
    hint = "install the same version everywhere"


class InputsNotPlanned(Mismatch):
    """An input of a saved plan is not, on this machine, what it was when the plan was made."""

    message = "{source} is not what {plan} was made from: {reason}"
    hint = "put back what was there, or save the plan anew; copy inputs with cp -p to keep times"


class BaseFilesWrong(Mismatch):
    """The base's files are not, byte for byte, those that a release of encoded files was made from.

    Such a release needs one particular conversion of its base, down to the version of torch that
    saved it; the same tensors in other files do not do. Nothing was published.
    """

    message = "the base files are not the ones that {delta} was made from: {count} problem(s)"
    hint = "it needs one particular conversion of its base, as 'weightsmith help catalogue' says"


class KeyWrong(Mismatch):
    """The key is not the file that the release was encrypted with."""

    message = "{key} is not the key that {delta} was made with: {reason}"
    hint = "the key is the base's file as Meta published it, consolidated.00.pth as a rule"


class PayloadUnpaired(Mismatch):
    """The base lacks files that the release's files were made from."""

    message = "the base lacks {count} file(s) of {delta}"
    hint = "is this the conversion of the base that the release was made from?"


class DecodedWrong(Mismatch):
    """A decoded file does not have the hash that its release gives. Nothing was published."""

    message = "{file} does not decode to what was released: its {algorithm} differs"
    hint = "the release's file is damaged, or the base's is not the one that it was made from"


class DecodedUnreadable(Mismatch):
    """The decoded files cannot be read as a model. Nothing was published."""

    message = "the decoded files are no model: {reason}"
    hint = "the base's files are not, byte for byte, the ones that the release was made from"


class RowsUndecided(Mismatch):
    """The delta has vocabulary rows that the base lacks, and nothing says what to add them to.

    Some releases add them to zero (Vicuna v0, LLaVA), some to the mean of the base's rows (Alpaca),
    and some store the embeddings whole (Ziya). The wrong choice gives a model that almost works.
    """

    message = "the delta has {count} vocabulary tensor(s) with rows that the base lacks"
    hint = "say what its release adds them to: `new_rows=zero`, `new_rows=mean`, or `whole=PATTERN`"


class CatalogueContradicted(Mismatch):
    """An option contradicts what the catalogue says of this release."""

    message = "the options contradict what the catalogue says of {release}"
    hint = "leave the option out, or rename the delta's directory so that it is not recognised"


class InputsSwapped(Mismatch):
    """What was given as base looks like a delta, and what was given as delta like a model."""

    message = "base and delta seem swapped: {base} looks like a delta, {delta} like a model"
    hint = (
        "`base` is the original model, `delta` what was published for it; `force_kind=True` insists"
    )


class DeltaGivenAsBase(Mismatch):
    """The base looks like a delta: its values are those of differences, not of weights."""

    message = "the base {base} looks like a delta, not like a model"
    hint = "give the original model as `base`; `force_kind=True` insists"


class ModelGivenAsDelta(Mismatch):
    """The delta looks like a whole model: adding it to a base would give noise."""

    message = "the delta {delta} looks like a model, not like a delta"
    hint = "if it is a model, there is nothing to apply; `force_kind=True` insists"


# --- 8: room --------------------------------------------------------------------------------------


class NoRoom(WeightsmithError):
    """Not enough disk or memory."""

    exit_code = 8


class DiskTooSmall(NoRoom):
    """The plan needs more space than the file system has free."""

    message = "{where} has {free} free, the run needs {needed}"
    hint = "free some space, or choose a directory on another disk for the output"


class DownloadTooLarge(NoRoom):
    """The download needs more space than the file system that it goes to has free."""

    message = "{where} has {free} free, the download needs {needed}"
    hint = "make room (weightsmith clean-cache), or use another disk: `local_dir=DIR`, or HF_HOME"


class DiskFull(NoRoom):
    """The file system filled up during writing, or a quota or size limit was reached."""

    message = "no space left while writing {file}: {reason}"
    hint = "free some space and run the same command again; it goes on where it stopped"


class MemoryTooSmall(NoRoom):
    """The plan needs more memory than there is."""

    message = "{free} of memory available, this needs {needed}"
    hint = "try `low_cpu_mem=True`"


class MemoryRanOut(NoRoom):
    """The system had no more memory to give in the middle of the work."""

    message = "memory ran out: {reason}"
    hint = "close other programs, or use less memory: `workers=1`"


class OutOfMemory(NoRoom):
    """The model does not fit into the memory of the device."""

    message = "{source} does not fit into memory"
    hint = "try `low_cpu_mem=True`, or `device=cpu`"


# --- 9: something in the way ----------------------------------------------------------------------


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


# --- 10: our own output ---------------------------------------------------------------------------


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


# --- 70, 130: how else a run can end --------------------------------------------------------------


class InternalError(WeightsmithError):
    """An error that weightsmith has no name for: a defect of its own, or of a library it uses."""

    exit_code = 70
    message = "{kind}: {reason} (weightsmith {weightsmith}, Python {python}, {system})"
    hint = "this is a defect in weightsmith; please report it with all the lines above"


class CatalogueInvalid(WeightsmithError):
    """The catalogue of bases and releases that was installed with weightsmith is damaged."""

    message = "{count} fault(s) in the installed catalogue"
    hint = "install weightsmith again"


class Interrupted(WeightsmithError):
    """The run was stopped by Ctrl-C or SIGTERM. Inputs are untouched, finished work is kept."""

    exit_code = 130
    message = "interrupted"
    hint = "to go on, run the same command again"


class HungUp(WeightsmithError):
    """The terminal or connection of the run was closed (SIGHUP). Inputs are untouched, finished
    work is kept.
    """

    exit_code = 129
    message = "hung up"
    hint = "to go on, run the same command again; with nohup in front it outlives its terminal"
