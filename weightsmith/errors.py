"""Every fault that weightsmith knows, each with its exit code, its text and its hint.

Raise the narrowest class with values, never with prose: the class makes the sentence. The class
name in kebab-case is the error's reference (``ShardTruncated`` is ``shard-truncated``), which
``weightsmith help`` and ``docs/reference/errors.md`` explain with the class's docstring.

    WeightsmithError
      UsageFault      2   the command line asks for something that cannot be
      SourceFault     3   a source is missing or unreadable
      AccessFault     4   login needed, or gated
      TemporaryFault  5   try again
      DamagedInput    6   an input is damaged or unsafe
      Mismatch        7   inputs do not belong together
      NoRoom          8   not enough disk or memory
      InTheWay        9   the output exists, or another run holds it
      DamagedOutput  10   our own output failed verification
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

FIRST_SHOWN = 5
"""How many problems of one kind a message names before it says "and N more"."""
NAME_SHOWN = 200
"""Characters of a name in a message; a hostile file may hold one of a hundred million."""
LINE_SHOWN = 1000
"""Characters of a path, a reason or a line of context."""
_COUNTED = re.compile(r"(\b(\d+) (?:\w+ )?\w+)\(s\)")
_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")


class WeightsmithError(Exception):
    """A fault that has a name, a sentence and a way out."""

    exit_code: ClassVar[int] = 70
    message: ClassVar[str] = "{what}"
    """Template, filled with the values that the raiser gives."""
    hint: ClassVar[str] = ""
    """What to do about it, a command where there is one; filled like `message`."""

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
        """An error travels between processes with all that it says."""
        return _restored, (type(self), str(self), self.values, self.context, self.hint_text)

    def with_context(self, line: str) -> "WeightsmithError":
        """The same error, with a line before its context."""
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
    """A name is cut early; a path or a reason, which may be a whole sentence, late."""
    is_name = key != "reason" and not isinstance(value, os.PathLike | Exception)
    return cut(printable(value), NAME_SHOWN if is_name else LINE_SHOWN)


def cut(text: str, limit: int) -> str:
    """The text, or as much of it as `limit` characters hold, with dots for the rest."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def masked(text: str) -> str:
    """Text in which no address tells its password: ``https://***@host``."""
    return _USER_INFO.sub("***@", text)


def printable(value: object) -> str:
    r"""Text with control characters escaped, so that a hostile name cannot drive a terminal, and
    passwords masked.

    Line breaks inside a value are escaped too; a tensor name cannot forge an output line.
    """
    text = masked(str(value))
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def shown(problems: Sequence[str], *, everything: bool = False) -> list[str]:
    """The first few of many problems, and how many more there are."""
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
    """The command line asks for something that cannot be."""

    exit_code = 2


class TargetUnnamed(UsageFault):
    """The name of the output is empty, as an unset variable in a script leaves it."""

    message = "the output has no name"
    hint = "name a directory for it"


class RepoIdInvalid(UsageFault):
    """A delta is to be pushed to a repository whose name cannot be one."""

    message = "`repo_id={repo}` names no repository"
    hint = "write it as ORG/NAME"


class RevisionNotBranch(UsageFault):
    """A delta is to be pushed to a tag or a commit, to which no commit can be added."""

    message = "`revision={revision}` is a tag or a commit, and only a branch can be pushed to"
    hint = "name one: `revision=main`"


class CommandLineInvalid(UsageFault):
    """An unknown command or option, a value that does not parse, or something left out."""

    message = "{reason}"
    hint = "weightsmith -h"


class ConfirmationNeeded(UsageFault):
    """Something that cannot be undone wants a yes, and there is no terminal to ask on."""

    message = "there is no terminal to ask on: {question}"
    hint = "if that is what you want, say so: `yes=True`"


class WeightsNeedOnce(UsageFault):
    """Weights or a scale were given for what peft rounds, which has none when it merges."""

    message = "weights and a scale cannot go with `rounding=peft`"
    hint = "leave out `rounding=peft`: the weighted sum is rounded once"


class WeightsInvalid(UsageFault):
    """There is not one finite weight for each adapter."""

    message = "for {count} adapter(s) as many finite weights are needed, not {weights}"
    hint = "give one for each adapter, in the order of the adapters"


class PathUnnamed(UsageFault):
    """A path was given for something that the saved plan does not read or write."""

    message = "the plan has no {name}"
    hint = "it has {names}"


class PartitionInvalid(UsageFault):
    """A share of a plan that cannot be: they are numbered from 1, ``1/4`` to ``4/4``."""

    message = "{partition} is no share of a plan"
    hint = "write it as I/N, the first of four is 1/4"


class PlanNotSaved(UsageFault):
    """A plan that other machines cannot take up: it leans on what is in this process alone."""

    message = "this plan cannot be carried out elsewhere: {reason}"
    hint = "run it here"


class LabelsUnused(UsageFault):
    """Labels were given, and no adapter brings a classifier that would have any."""

    message = "no adapter brings a classifier, whose labels would be {labels}"
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
    """A pattern of `whole` names no tensor of the delta: a slip that would change the result."""

    message = "no tensor of {delta} is named like `whole={pattern}`"
    hint = "write it as the names above are, with * for what differs: `whole='model.embed*'`"


class FixSourceMissing(UsageFault):
    """Nothing says what the files of this folder must be: it has no manifest of weightsmith, and no
    source was named: a copy of it, what it was made from, or the repository that it is a copy of.

    No file is replaced without a digest that proves the new one right.
    """

    message = "nothing says what the files of {folder} must be: it has no weightsmith.json"
    hint = "name a copy of it, a hub id perhaps: weightsmith verify {folder} --fix --from COPY"


class NothingNamed(UsageFault):
    """A pattern that chooses or renames tensors fits none: a slip that would change the result."""

    message = "no tensor of {source} is named like `{option}={pattern}`"
    hint = "see how they are named: weightsmith diff {source} {source} --json"


class ExpressionInvalid(UsageFault):
    """What models are to be combined by cannot be read as a sum."""

    message = "{expression} cannot be read {where}: {reason}"
    hint = "write it as '0.5*A + 0.5*B' or 'A + 0.7*(B - C)', with spaces around + and -"


class RenameInvalid(UsageFault):
    """What tensors are to be renamed by does not say from what to what."""

    message = "`rename={text}` does not say from what to what"
    hint = "write OLD=NEW: the beginning of names up to a dot; * stands for what differs"


class TargetIsInput(UsageFault):
    """The target is one of the inputs, lies inside one, or holds one."""

    message = "the output {target} would overwrite or mix with the input {source}"
    hint = "choose another directory for the output"


class BaseIsTarget(UsageFault):
    """The same directory was given as base and as target."""

    message = "{source} is both the base and the target"
    hint = "`base` is the original model, `target` what it became"


class BaseIsDelta(UsageFault):
    """The same directory was given as base and as delta."""

    message = "{source} is both the base and the delta"
    hint = "`base` is the original model, `delta` what was published for it"


class SourceIsDirectory(UsageFault):
    """A path was given where only an alias or a hub id makes sense."""

    message = "{source} is a path, not an alias or a hub id"
    hint = "name a repository on the hub: ORG/NAME"


class LastUsedUnknown(UsageFault):
    """The file system does not record when files are read, so last use is not known."""

    message = "when files under {cache} were last used is not known: {reason}"
    hint = "go by when they were downloaded instead: `by=modified`"


class BaseUnnamed(UsageFault):
    """A delta is to be pushed, and its base is a directory of this machine, which nobody else can
    find.
    """

    message = "nobody can find the base of {repo}: {base} is a directory of this machine"
    hint = "say what it is on the hub: `base_id=ORG/NAME@COMMIT`"


class LocalPathInside(UsageFault):
    """Something that would be pushed tells a path of this machine. Nothing was pushed.

    Most often it is ``_name_or_path`` in the target's config. The delta gives the target's files
    back byte for byte, so they are not changed on the way.
    """

    message = "a path of this machine is in {count} file(s) that would be pushed"
    hint = "take it out of the target's own file, then run the same command again"


class RepoIsPublic(UsageFault):
    """A delta is pushed privately unless `public` says otherwise, and the repository is public.
    Nothing was pushed.
    """

    message = "{repo} is public already: all would see what is pushed there"
    hint = "if they may, say so: `public=True`; else choose another `repo_id`"


class PushOffline(UsageFault):
    """Something is to be pushed, and the network is switched off."""

    message = "nothing can be pushed to {repo}: the network is switched off"
    hint = "leave out `offline=True` and unset HF_HUB_OFFLINE"


class PushRefused(UsageFault):
    """The hub understood what was asked of it, and will not do it. The local delta is untouched."""

    message = "the hub refuses what was pushed to {repo}: {reason}"
    hint = "see {page}, and run the same command again: the delta is not made anew"


class RankTooLarge(UsageFault):
    """A rank was asked for that factors of an adapter cannot have here."""

    message = "rank {rank} is not between 1 and {most}"
    hint = "leave it out, and each matrix gets the rank that its change has"


class RankNotFound(UsageFault):
    """An adapter was to be extracted with the rank that each change has, and some have none: every
    weight moved by itself, as in a full fine-tune, or by less than can be told from rounding.
    """

    message = "{count} of {total} changed matrices did not change by a product of low rank"
    hint = "say how much of their change to keep: `rank=32`"


class NoCuda(UsageFault):
    """A CUDA device was asked for, and torch finds no CUDA device."""

    message = "there is no CUDA device that torch can use"
    hint = "use `device=cpu`, or install a torch that was built for this machine's GPU"


class KernelUnfit(UsageFault):
    """The compiled part beside the package is of another version of weightsmith."""

    message = "the compiled part is of another weightsmith (interface {found}, not {wanted})"
    hint = "install both anew: pip uninstall weightsmith, then pip install weightsmith"


class PackageMissing(UsageFault):
    """Something was asked for that takes a package which is not installed."""

    message = "{wish} needs the package {package}, which is not installed"
    hint = "pip install '{package}'"  # some shells take brackets for a pattern


class DtypeUnknownHere(UsageFault):
    """A tensor's values were asked for in a library that lacks its dtype; its bytes can be read."""

    message = "{name} is {dtype}, which {where} does not have"
    hint = "read its bytes: checkpoint.read_into(name, 0, buffer)"


class ArchitectureUnknown(UsageFault):
    """A smoke test was asked for, and transformers has no code for such a model. Code that lies
    beside the weights is never run.
    """

    message = "transformers has no causal language model for {model_type}"
    hint = "what verify checks without `smoke` holds for models of any kind"


class ModelQuantised(UsageFault):
    """A smoke test was asked for, and the weights are quantised: to run them takes the code of a
    quantiser, which a config can make transformers fetch. None is loaded.
    """

    message = "{source} is quantised, and no quantiser's code is loaded for a smoke test"
    hint = "what verify checks without `smoke` holds for models of any kind"


class ArchitectureConverted(UsageFault):
    """A smoke test in little memory was asked for, and transformers keeps some of the weights in
    another form than the files: all experts of a layer in one tensor, for example.
    """

    message = "transformers keeps {count} tensor(s) in another form than the files"
    hint = "leave out `low_cpu_mem=True`"


# --- 3: missing or unreadable ---------------------------------------------------------------------


class SourceFault(WeightsmithError):
    """A source is missing or unreadable."""

    exit_code = 3


class SourceNotFound(SourceFault):
    """Neither a directory nor anything else that weightsmith can open has this name."""

    message = "no such file or directory: {source}"
    hint = "check the path; 'weightsmith help sources' says what a SOURCE may be"


class SourceIsFile(SourceFault):
    """A file was given where a directory is wanted: a model is more than one file."""

    message = "{source} is a file, not a directory"
    hint = "give the directory that holds it: {directory}"


class ClusterNotFound(SourceFault):
    """No Ray cluster answers at the address; nothing is made here in its place."""

    message = "no Ray cluster answers at {address}"
    hint = "start one with ray start, or say where it is: `ray_address`"


class NodeBlind(SourceFault):
    """A node of the cluster does not see a path that its tasks would read or write."""

    message = "nodes of the cluster do not see what they need ({count} paths)"
    hint = "put it on a file system that all nodes share, under one path"


class PathNotHere(SourceFault):
    """A path of a saved plan is not there on this machine."""

    message = "{name} of the plan is not at {path} here"
    hint = "say where it is on this machine: `path={name}=PATH`"


class LinkBroken(SourceFault):
    """A link leads nowhere, or to itself: what it led to was deleted or moved.

    Most often it lies in a download's directory and led into a cache that was cleaned since.
    """

    message = "{file} is a link that leads nowhere: {target}"
    hint = "download it again, or mend the link: ls -l {file}"


class SourceUnreadable(SourceFault):
    """The operating system refuses to let us read this file or directory."""

    message = "cannot read {file}: {reason}"
    hint = "check its permissions: ls -ld {file}"


class NoWeights(SourceFault):
    """The directory holds no weight files that belong to a model."""

    message = "no weights in {source}"
    hint = "give the directory that holds model*.safetensors or pytorch_model*.bin"


class NoAdapter(SourceFault):
    """The directory holds no LoRA adapter: its config, its weights or both are not there."""

    message = "no adapter in {source}"
    hint = "expected adapter_config.json there, and adapter_model.safetensors or adapter_model.bin"


class EncodedRelease(SourceFault):
    """The directory holds a release whose files are combined with another model's, byte by byte.

    They are no weights until they are decoded with the files that they were made from.
    """

    message = "{source} is no model yet: {reason}"


class ShardMissing(SourceFault):
    """The index names a weight file that is not there."""

    message = "{index} names {count} missing file(s)"
    hint = "download them again; the download was not complete"


class RankMissing(SourceFault):
    """A process of a training run wrote a part of the model, and its file is not there."""

    message = "{source} lacks {count} file(s) of the {total} that its processes wrote"
    hint = "copy them there: each process holds a part of every tensor"


class ModelUnnamed(SourceFault):
    """A training output holds weights without the names and shapes that they have in the model.

    FSDP's ``LOCAL_STATE_DICT`` writes all parameters of a unit as one flat one; which they were,
    only the training script knows.
    """

    message = "{source} holds flat parameters of FSDP ({name}), without names and shapes"
    hint = (
        "load it in the script that wrote it, and save a state dict of the type"
        " SHARDED_STATE_DICT or FULL_STATE_DICT"
    )


class NoModelInside(SourceFault):
    """A training output holds no model, or more than one and nothing tells which is meant."""

    message = "no model to be taken from {source}: {reason}"
    hint = "give the directory of the model's own checkpoint"


class SeveralOutputs(SourceFault):
    """A directory holds several checkpoints, and nothing in it says which one counts."""

    message = "{source} holds {count} checkpoints"
    hint = "give one of them: {example}"


class CheckpointUnnamed(SourceFault):
    """A training output has no checkpoint of the name that was asked for."""

    message = "{source} has no checkpoint {name}"
    hint = "give one that is there"


class PrecisionMissing(SourceFault):
    """A training output does not hold the weights in the precision that was asked for."""

    message = "{source} holds no {wanted} weights: {reason}"
    hint = "take those that are there: `weights={other}`"


class TrainingUnknown(SourceFault):
    """A training output is of a kind that weightsmith cannot put together."""

    message = "{source} cannot be put together: {reason}"
    hint = "take the framework that wrote it, and let it save the whole model"


class SourceUnknown(SourceFault):
    """No directory, no alias of the catalogue and no hub id has this name."""

    message = "{source} is no directory, no known alias and no hub id"
    hint = "a hub id is ORG/NAME or ORG/NAME@REVISION"


class AddressNotModel(SourceFault):
    """An address was given that is not that of a model's repository on the hub."""

    message = "{address} is the address {what}, not of a model"
    hint = "a model's address is https://huggingface.co/ORG/NAME; its hub id ORG/NAME will do"


class ObjectAddressInvalid(SourceFault):
    """An address of an object store that names no place there, or holds a password or signature."""

    message = "{address} is no address of a model: {reason}"
    hint = "give s3://BUCKET/PREFIX alone; the login comes from the environment"


class RepoNotFound(SourceFault):
    """The hub has no such repository, or does not show it to you because it is private."""

    message = "the hub has no repository {repo}"
    hint = "check the name; if it is a private one: hf auth login"


class HomesGone(SourceFault):
    """The catalogue knows repositories for this alias, and none of them is there any more."""

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
    """The cache holds nothing of what was named."""

    message = "{source} is not in the cache {cache}"
    hint = "see what is there: weightsmith clean-cache --dry-run"


class OnlyGguf(SourceFault):
    """The repository holds only GGUF files, which are made for other programs."""

    message = "{repo} holds only GGUF files"
    hint = "take the repository that they were made from; its card names it: {page}"


class OnlyAdapter(SourceFault):
    """The repository holds an adapter (LoRA), which is no model without its base."""

    message = "{repo} holds an adapter, not a model"
    hint = "put it onto its base: weightsmith merge-lora --base SOURCE --lora {repo} --target DIR"


class OnlyTraining(SourceFault):
    """The repository holds what a training run left, which is put together from a directory."""

    message = "{repo} holds {what}, which are read from a directory, not from the hub"
    hint = "download all of it with the hub's own `hf download`, then name the directory"


class NoTokenizer(SourceFault):
    """The directory holds no file of a tokenizer."""

    message = "no tokenizer in {source}"
    hint = "put the tokenizer in it that it was trained with, tokenizer.model or tokenizer.json"


# --- 4: login or licence -------------------------------------------------------------------------


class AccessFault(WeightsmithError):
    """A login is needed, or a licence has to be accepted."""

    exit_code = 4


class RepoGated(AccessFault):
    """The owner of the repository asks that a licence be accepted before anything is downloaded."""

    message = "{repo} is gated, and this account has no access to it"
    hint = "accept the licence at {page}, then: hf auth login"


class LoginNeeded(AccessFault):
    """The hub shows this only to those who have logged in, or refuses your token."""

    message = "the hub asks for a login for {repo}: {reason}"
    hint = "hf auth login"


class AccessDenied(AccessFault):
    """The hub knows who asks and says no."""

    message = "the hub denies access to {repo}: {reason}"
    hint = "check what your token may read (hf auth whoami), or ask the owner: {page}"


class StoreDenied(AccessFault):
    """An object store does not know who asks, says no, or cannot be asked with these settings."""

    message = "no access to {address}: {reason}"
    hint = "check the login in the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and their kin)"


# --- 5: temporary ---------------------------------------------------------------------------------


class TemporaryFault(WeightsmithError):
    """Something that may well work the next time."""

    exit_code = 5


class CacheChanged(TemporaryFault):
    """Since the plan was made, something that is to go has become what another model is rebuilt
    from. Nothing was deleted.
    """

    message = "{what} is to go, and has to stay: {reason}"
    hint = "run the same command again; it looks at the cache anew"


class InputChanged(TemporaryFault):
    """An input file was written to while we read it; what was made from it is not kept."""

    message = "{file} changed while it was read"
    hint = "wait until nothing writes to it, then run the same command again"


class ClusterFailed(TemporaryFault):
    """The Ray cluster lost too many nodes, or cannot run what it was given."""

    message = "the Ray cluster cannot go on: {reason}"
    hint = "run the same command again: finished files are kept"


class HubUnreachable(TemporaryFault):
    """No connection to the hub could be made, or it broke off again and again."""

    message = "cannot reach {endpoint}: {reason}"
    hint = "check the network and run the same command again; it goes on where it stopped"


class StoreUnreachable(TemporaryFault):
    """No connection to an object store could be made, or it broke off again and again."""

    message = "cannot read {address}: {reason}"
    hint = "check the network, and the endpoint (AWS_ENDPOINT_URL); run the same command again"


class HubBusy(TemporaryFault):
    """The hub limits how often it may be asked, or is out of order for now."""

    message = "{endpoint} asks to come back later: {reason}"
    hint = "run the same command again {when}; it goes on where it stopped"


class DownloadBroken(TemporaryFault):
    """A file stopped coming, or came in another length than the hub had announced."""

    message = "{file} did not arrive whole: {reason}"
    hint = "run the same command again; it goes on where it stopped"


class AnswerNotFromHub(TemporaryFault):
    """Something answers at the hub's address, but not as a hub does: a proxy or a login page."""

    message = "{endpoint} does not answer like a hub: {reason}"
    hint = "a proxy or a login page may stand in between; check those, and HF_ENDPOINT"


class UploadBroken(TemporaryFault):
    """A file did not get through to the hub. The local delta is untouched."""

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
    """A weight file is shorter than its own header, or zip directory, says."""

    message = "{file} is cut short: {reason}"
    hint = "download it again; this is what an interrupted download leaves"


class LfsPointer(DamagedInput):
    """A git-lfs pointer text lies where the file itself should be."""

    message = "{file} is a git-lfs pointer, not the file ({size} bytes are missing)"
    hint = "in that directory: git lfs pull"


class WebPage(DamagedInput):
    """A web page, a login form or a server's error, was saved where the file itself should be."""

    message = "{file} is a web page, not the file itself"
    hint = "download it again; look into it to see what the server had to say"


class ServerMessage(DamagedInput):
    """A few words were saved where a weight file should be: what a server had to say, as a rule."""

    message = "{file} is no weight file but a text: {text}"
    hint = "see to what it says (a login, a licence, the name), then download it again"


class NotRegularFile(DamagedInput):
    """A FIFO, device, socket or directory lies where a file should be."""

    message = "{file} is not a regular file"
    hint = "put the file itself there: download it again"


class FileTooLarge(DamagedInput):
    """A file that is read as a whole, such as a config or an index, is larger than any such is."""

    message = "{file} has {nbytes} bytes, more than the {limit} that such a file may have"
    hint = "is it the file that its name promises? download it again"


class HeaderInvalid(DamagedInput):
    """A safetensors header breaks a rule of the format."""

    message = "{file} is not a valid safetensors file: {reason}"
    hint = "download it again"


class JsonInvalid(DamagedInput):
    """A JSON file does not parse, repeats a key, nests too deep or is too large."""

    message = "{file} is not valid JSON: {reason}"
    hint = "download it again, or mend it by hand"


class PlanDamaged(DamagedInput):
    """A saved plan was edited, cut short, or is no saved plan at all."""

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
    """A file beside the weights would be taken from outside the model's folder: it is a link to
    elsewhere, or a manifest names it so.

    What lies elsewhere on this machine may be anybody's secret, and is neither read nor copied.
    """

    message = "{file} leads out of {directory}: {target}"
    hint = "if it belongs to the model, put a copy of it in the place of the link"


class TensorMissing(DamagedInput):
    """The index promises tensors that their files do not hold."""

    message = "{index} promises {count} tensor(s) that its files do not hold"
    hint = "files of two checkpoints seem mixed; download it again"


class TensorTwice(DamagedInput):
    """Two weight files hold a tensor of the same name and no index decides."""

    message = "{source} has {count} tensor(s) in more than one file"
    hint = "files of two checkpoints seem mixed; keep those of one"


class NoTensors(DamagedInput):
    """The weight files hold no tensor: they were saved by a process that had none of the model."""

    message = "the weight files of {source} hold no tensors"
    hint = "save the model again, with its whole state dict (FSDP and ZeRO keep parts of it)"


class NoParameters(DamagedInput):
    """All tensors of a model or an adapter are empty.

    So DeepSpeed's ZeRO-3 leaves them in the state of each process, and in what is saved without
    gathering: the values are in its partitions.
    """

    message = "{source} is damaged: {count} tensors, and not a single parameter in them"
    hint = (
        "so ZeRO-3 leaves it: the weights are in its partitions (zero_pp_rank_* files): give those"
    )


class NotFinite(DamagedInput):
    """An adapter, or a delta that is added, holds NaN or infinity: what is made of it would be no
    model.

    What an exact delta restores may have any bits, and is not looked at.
    """

    message = "{source} has values that are no numbers, in {count} tensor(s)"
    hint = "get a sound copy of it; `allow_nonfinite` takes it as it is"


class IndexIncomplete(DamagedInput):
    """The index leaves out tensors that its own shards hold, and without which the config describes
    no whole model.
    """

    message = "{index} leaves out {count} tensor(s) that the model needs"
    hint = "download the index again, or take it away: the files say themselves what they hold"


class CopiesDiffer(DamagedInput):
    """Two shards hold a tensor of one name with different contents, and some loaders take the one
    that the index does not name.
    """

    message = "{source} has two different copies of {count} tensor(s) that the model needs"
    hint = "download all its shards again: one of them is of another version of the model"


class StateEmpty(DamagedInput):
    """The tensors have names but no elements: the state of one process of a ZeRO-3 or FSDP run,
    whose weights are elsewhere, was saved as if it were the model.
    """

    message = "{count} of the {total} tensors of {source} have no elements: it is an empty state"
    hint = "the weights are where the run kept its partitions (zero_pp_rank_* files): give those"


class PartitionsInvalid(DamagedInput):
    """What a file of a training output says of its tensors cannot be."""

    message = "{file} is not sound: {reason}"
    hint = "copy it again from where it was written"


class ParamsInvalid(DamagedInput):
    """Meta's ``params.json`` lacks a value, or describes a model that is no LLaMA 1, 2 or 3."""

    message = "{file} describes no model that can be converted: {reason}"
    hint = "take a text model of LLaMA 1, 2 or 3; in Meta's own layout no other is known"


class PartsDoNotFit(DamagedInput):
    """The parts of a tensor that lie in several files do not make one tensor."""

    message = "the parts of {name} do not fit together: {reason}"
    hint = "files of two checkpoints seem mixed; download it again"


class MetaFilesDoNotFit(DamagedInput):
    """Meta's weight files and ``params.json`` are not those of one whole model."""

    message = "the files of {source} do not make one model: {count} problem(s)"
    hint = "are all consolidated.NN.pth files there, and from the same download?"


class AdapterConfigInvalid(DamagedInput):
    """``adapter_config.json`` lacks a value, or holds one that cannot be."""

    message = "{file} describes no adapter: {reason}"
    hint = "download it again"


class AdapterEmpty(DamagedInput):
    """The adapter's weight file holds no tensor; some training scripts of 2023 saved it so."""

    message = "the adapter {adapter} holds no tensors"
    hint = "nothing was saved in it; get another copy, or train it again"


class FilesNotAsPublished(DamagedInput):
    """A weight file does not have the hash that was published for it, where its neighbours do."""

    message = "{count} weight file(s) not as published"
    hint = "download them again"


class QuantisationInvalid(DamagedInput):
    """A quantised tensor lacks a part, or one has another shape, dtype or content than is due."""

    message = "{name} is not as its quantiser leaves it: {reason}"
    hint = "download it again; is the quantization_config the one that it was made with?"


class PickleForbidden(DamagedInput):
    """A pickle asks for something outside the short list that tensors need. Nothing was run."""

    message = "{file} asks to run {name}, which no checkpoint needs"
    hint = "do not open this file with torch.load; get safetensors files of the model instead"


class PickleInvalid(DamagedInput):
    """The pickle in a torch file is damaged, or is no table of tensors."""

    message = "{file} holds no readable table of tensors: {reason}"
    hint = "download it again"


class ZipInvalid(DamagedInput):
    """A torch file is no sound zip archive of stored members."""

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
    """A tensor with stride 0 shows one element many times; its file does not hold its bytes."""

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
    """A file's bytes do not have the hash that the hub gives for it. The bad copy is not kept."""

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
    """Transformers cannot make a model of what lies there, or fails as it runs it."""

    message = "transformers cannot run {source}: {reason}"
    hint = "weightsmith verify {source} (without `smoke`) checks what does not need it"


class FactorsNotFinite(DamagedInput):
    """An adapter that a delta was to be made with holds factors that are no numbers."""

    message = "the adapter {adapter} is damaged: {reason}"
    hint = "leave it out: a delta is made without it, too"


class DeltaInvalid(DamagedInput):
    """Something in an exact delta is damaged: a tensor's payload, a sidecar, or the record."""

    message = "{name} in the delta is damaged: {reason}"
    hint = "download the delta again"


class DeltaUnknown(DamagedInput):
    """A delta says of itself that it has a form that this version of weightsmith does not know."""

    message = "{what} of the delta has the unknown form {found}"
    hint = "a newer weightsmith may know it: pip install --upgrade weightsmith"


# --- 7: inputs that do not belong together --------------------------------------------------------


class Mismatch(WeightsmithError):
    """Inputs do not belong together."""

    exit_code = 7


class TensorsDoNotFit(Mismatch):
    """Base and delta, or base and target, differ in names or shapes beyond what can be."""

    message = "base {base} and {other} do not fit: {count} problem(s)"
    hint = "take the base that the delta's card names; what the delta stores whole: `whole=PATTERN`"


class TrainingMixed(Mismatch):
    """Files of a training output come from several runs, steps or numbers of processes."""

    message = "{source} mixes files of several runs or steps: {reason}"
    hint = "keep the files of one save in a directory of their own"


class ModelsDoNotCombine(Mismatch):
    """Models that are to be summed differ in names, shapes or dtypes, or are quantised."""

    message = "the models do not fit into one sum: {count} problem(s)"
    hint = "take checkpoints of one model; another dtype: weightsmith convert SOURCE DIR --dtype"


class NamesAmbiguous(Mismatch):
    """Under the names that they are to have, two tensors would share one."""

    message = "{count} tensor(s) of {source} would share a name {how}"
    hint = "leave out those that are not the model's: `drop=PATTERN`"


class NamesNotConfig(Mismatch):
    """Next to none of the tensors of a training output has a name that its config promises: the
    model lies inside something else, beside another model, or is an adapter.
    """

    message = "next to none of the {count} tensors of {source} is named as its config says"
    hint = (
        "take one model and its own names: `keep='policy.*'`, `rename=policy=`;"
        " its config from elsewhere: `sidecars_from`"
    )


class ShapesNotConfig(Mismatch):
    """The tensors of a training output do not have the shapes that its config promises."""

    message = "{source} has {count} tensor(s) of other shapes than its config says"
    hint = "is a file missing, or the config another model's?"


class FixUnproved(Mismatch):
    """The manifest of a folder is lost, and the source that was named does not prove what it was:
    no weight file of the folder is what the source holds or makes, or one that can be read is
    another.

    So a fine-tune is not taken for a damaged copy of its base.
    """

    message = "nothing shows that {folder} is what {source} holds or makes"
    hint = "see how they differ: weightsmith diff {folder} {source}"


class WrongBase(Mismatch):
    """An exact delta was made from another base: some of its tensors have other bytes or shapes."""

    message = "{base} is not what the delta was made from: it differs in {count} tensor(s)"
    hint = "the delta's weightsmith.json says what its base is"


class DtypeNotSummable(Mismatch):
    """The additive rule was asked to add tensors that are not floating point."""

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
    """Some of the adapter's tensors have no place in the base, or another shape than is due there.

    Nothing is merged then: a model with half of its adapter would look finished.
    """

    message = "the adapter {adapter} does not fit the base {base}: {count} problem(s)"
    hint = "is this the base that the adapter was trained on?"


class QuantisationUnknown(Mismatch):
    """The model is quantised in a way that is not known here, so that it cannot be undone."""

    message = "{source} is quantised by {method}, which weightsmith cannot undo: {reason}"
    hint = "merge onto the model that it was made from, or dequantize it with what made it"


class NotQuantised(Mismatch):
    """The weights of the model are floats already."""

    message = "{source} is not quantised: there is nothing to dequantize"
    hint = "leave out `dequantize=True`"


class LabelsDoNotFit(Mismatch):
    """As many different labels as the classifier has rows are needed."""

    message = "{tensor} of {adapter} has {count} labels, not {given}"
    hint = "name each of them once, in the order of the rows: `labels=A,B`"


class NothingToExtract(Mismatch):
    """No matrix of the target differs from the base's in a way that a LoRA adapter can hold."""

    message = "there is nothing to extract: no matrix of {target} is one of {base} with a change"
    hint = "weightsmith diff says what differs"


class DtypeNotStorable(Mismatch):
    """A tensor has a dtype that torch files may hold and safetensors files cannot."""

    message = "tensor {name} is {dtype}, which a safetensors file cannot hold"
    hint = "save it in another dtype first: tensor.to(torch.complex64)"


class LinkNotDelta(Mismatch):
    """A chain ``A+D1+D2`` names something behind its first link that is no delta."""

    message = "{link} in {chain} is no delta, it is {kind}: {reason}"
    hint = "behind the first +, name deltas; a LoRA adapter is merged first: weightsmith merge-lora"


class DeltaNotExact(Mismatch):
    """Only an exact delta gives files back byte for byte, so only on its account may a cached model
    go.
    """

    message = "{delta} is no exact delta: {reason}"
    hint = "make one: weightsmith make-delta --base SOURCE --target SOURCE --delta DIR"


class NothingChanged(Mismatch):
    """A version of a training run was to be made, and no byte of the model is another."""

    message = "{target} has the same tensors as {base}: there is no version to make"
    hint = "weightsmith diff says how two models differ"


class VersionsBroken(Mismatch):
    """Versions of a model (``weight_vNNNNNN``) do not follow each other, or one is not what it
    says.

    Each holds what changed since the version before: one that is missing, is there twice, or gives
    other bytes than its checksums say, breaks all that follow.
    """

    message = "{where}: {reason}"
    hint = "an earlier version can be had: `at=NUMBER`; a whole one makes those before it needless"


class ModelDiffers(Mismatch):
    """A model in memory was to be filled from a source that lacks some of its tensors, has others,
    or has them in other shapes.

    Nothing was filled. Where the source has all weights, and the model more than it needs (a head
    that shares the embeddings' weights), tie the model's first; where the source has more than the
    model, say so.
    """

    message = "{source} and the model do not fit, in {count} tensor(s)"
    hint = (
        "make the model from the source's own config; `strict=False` leaves what it has no use for"
    )


class BuffersUnset(Mismatch):
    """A model on the meta device has buffers that no file holds and that nothing computes anew."""

    message = "the model has {count} buffer(s) without values, and no file holds them"
    hint = "make the model so that its buffers are real: accelerate.init_empty_weights()"


class TiedDiffer(Mismatch):
    """The model keeps two tensors in one place, and the source holds other values for each.

    The model was filled in part, and must not be used.
    """

    message = "{a} and {b} share their memory in the model, and have other values in {source}"
    hint = "set `tie_word_embeddings` to false in the model's config, and make it anew"


class MachinesDiffer(Mismatch):
    """Files of one output would come from several types of processor, whose matrix products round
    differently: the result would depend on which file was made where.
    """

    message = "the plan multiplies matrices, and {count} types of processor take part"
    hint = "use machines of one type; what the others made is made anew once its receipt is deleted"


class VersionsDiffer(Mismatch):
    """Machines that make one output together run other versions of weightsmith or Python."""

    message = "{what} has {theirs}, and here is {ours}"
    hint = "install the same version everywhere"


class InputsNotPlanned(Mismatch):
    """What a saved plan was made from, and what is there now, on this machine, are not the same."""

    message = "{source} is not what {plan} was made from: {reason}"
    hint = "put back what was there, or save the plan anew; copies keep their times with cp -p"


class BaseFilesWrong(Mismatch):
    """The base's files are not, byte for byte, those that a release of whole files was made from.

    Such a release needs one exact conversion of its base, down to the version of torch that saved
    it; the same tensors in other files are of no use. Nothing was published.
    """

    message = "the base files are not the ones that {delta} was made from: {count} problem(s)"
    hint = "one exact conversion is needed; weightsmith help catalogue says what is known of it"


class KeyWrong(Mismatch):
    """The key is not the file that the release was encrypted with."""

    message = "{key} is not the key that {delta} was made with: {reason}"
    hint = "the key is the base's file as Meta published it, consolidated.00.pth as a rule"


class PayloadUnpaired(Mismatch):
    """The release holds files that the base has no counterpart for."""

    message = "the base lacks {count} file(s) of {delta}"
    hint = "is this the conversion of the base that the release was made from?"


class DecodedWrong(Mismatch):
    """A decoded file has not the hash that its release gives for it. Nothing was published."""

    message = "{file} does not decode to what its release holds: its {algorithm} differs"
    hint = "either the release's file is damaged, or the base's is not the one it was made from"


class DecodedUnreadable(Mismatch):
    """The decoded files are not what their names say. Nothing was published."""

    message = "what was decoded is no model: {reason}"
    hint = "the base's files are not, byte for byte, the ones that the release was made from"


class RowsUndecided(Mismatch):
    """The delta has vocabulary rows that the base lacks, and releases differ in how they mean them.

    A release counts the base's missing rows as zero (Vicuna v0, LLaVA) or as the mean of its rows
    (Alpaca), or stores the embeddings whole (Ziya). The wrong choice gives a model that almost
    works.
    """

    message = "the delta has {count} vocabulary tensor(s) with rows that the base lacks"
    hint = "say how its release meant them: `new_rows=zero`, `new_rows=mean`, or `whole=PATTERN`"


class CatalogueContradicted(Mismatch):
    """An option says otherwise than what the catalogue knows of this release."""

    message = "{release} is known, and the options contradict it"
    hint = "leave the option out, or rename the delta's directory so that it is not recognised"


class InputsSwapped(Mismatch):
    """What was given as base looks like a delta, and what was given as delta like a model."""

    message = "base and delta seem swapped: {base} looks like a delta, {delta} like a model"
    hint = (
        "`base` is the original model, `delta` what was published for it; `force_kind=True` insists"
    )


class DeltaGivenAsBase(Mismatch):
    """The base looks like a delta: differences and no model."""

    message = "the base {base} looks like a delta, not like a model"
    hint = "`base` wants the original model; `force_kind=True` insists"


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
    """The file system that takes the download has less space free than it needs."""

    message = "{where} has {free} free, the download needs {needed}"
    hint = "make room (weightsmith clean-cache), or use another disk: `local_dir=DIR`, or HF_HOME"


class DiskFull(NoRoom):
    """The file system filled up, or a quota or size limit was met, while we wrote."""

    message = "no space left while writing {file}: {reason}"
    hint = "free some space and run the same command again; it goes on where it stopped"


class MemoryTooSmall(NoRoom):
    """The plan needs more memory than there is."""

    message = "{free} of memory available, this needs {needed}"
    hint = "try `low_cpu_mem=True`"


class MemoryRanOut(NoRoom):
    """The system refused memory in the middle of the work."""

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
    """Something that this plan did not make has the target's name."""

    message = "{target} exists: {reason}"
    hint = "choose another name, or replace it once the new one is whole: `overwrite=True`"


class OtherDeltaThere(InTheWay):
    """The directory that a delta is to be made in holds another one, perhaps of another model."""

    message = "{target} holds another delta, of fingerprint {fingerprint}: {reason}"
    hint = "give this one a directory of its own; `overwrite=True` replaces the one that is there"


class StagingOfAnotherPlan(InTheWay):
    """An unfinished output of another plan, or of inputs that changed since, is in the way."""

    message = "{staging} holds unfinished work that does not match: {reason}"
    hint = "discard it and start afresh: `restart=True`"


class StagingBusy(InTheWay):
    """Another run is writing this target right now."""

    message = "another run is writing {target}"
    hint = "wait for it, or choose another name for the output"


class SharesMissing(InTheWay):
    """An output that several processes make in shares is to be finished, and is not whole yet."""

    message = "{count} of {total} files of {target} are not finished"
    hint = "run the shares that are missing, then finish; finished files are kept"


class CacheBusy(InTheWay):
    """Another run is deleting from this cache right now."""

    message = "another clean-cache is deleting from {cache}"
    hint = "wait for it, then run the same command again"


class SystemRefuses(InTheWay):
    """The operating system refuses something that the run needs, most often to write somewhere."""

    message = "the system refuses {what}: {reason}"
    hint = "check permissions and settings of that place, or name another one"


class TargetUnwritable(InTheWay):
    """The directory that should hold the target cannot be written to, or the medium fails."""

    message = "cannot write to {where}: {reason}"
    hint = "choose another directory for the output"


class RepoHoldsModel(InTheWay):
    """The repository holds a model; a delta beside it would be taken for it, or it for the delta.
    Nothing was pushed.
    """

    message = "{repo} holds a model already: {file}"
    hint = "give the delta a repository of its own: `repo_id={repo}-delta`"


class BehindLink(InTheWay):
    """A file to be repaired lies elsewhere, most often in the hub's cache, and others use it
    too.
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
    """What was read back is not what was written; nothing was published."""

    message = "{file} reads back different from what was written: {reason}"
    hint = "check disk and memory of this machine, then run the same command with `restart=True`"


class PushedWrong(DamagedOutput):
    """The hub has other bytes than were pushed, or lacks some of them; the commit stands there."""

    message = "{repo} at {commit} has other contents than were pushed, in {count} file(s)"
    hint = "run the same command again; do not use that commit"


class TokenizerUnproved(DamagedOutput):
    """A repaired tokenizer does not cut text as its sentencepiece model or its tokenizer.json does;
    no file was changed.
    """

    message = "{reader} does not read the repaired tokenizer as it should: {reason}"
    hint = (
        "this is a case that weightsmith does not know; please report it with tokenizer_config.json"
    )


# --- 70, 130: how else a run can end --------------------------------------------------------------


class InternalError(WeightsmithError):
    """A fault that weightsmith does not know: a defect of weightsmith itself, or of a library
    below it.
    """

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
    """The terminal or the connection that the run belonged to has gone (SIGHUP). Inputs are
    untouched, finished work is kept.
    """

    exit_code = 129
    message = "hung up"
    hint = "to go on, run the same command again; with nohup in front it outlives its terminal"
