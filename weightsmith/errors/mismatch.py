"""Faults with exit code 7: inputs do not belong together."""

from weightsmith.errors.fault import WeightsmithError


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
