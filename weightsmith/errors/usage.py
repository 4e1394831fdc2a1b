"""Faults with exit code 2: the command line, or a call, asks for something that cannot be."""

from weightsmith.errors.fault import WeightsmithError


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
