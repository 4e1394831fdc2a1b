"""Faults with exit code 6: an input is damaged or unsafe."""

from weightsmith.errors.fault import WeightsmithError


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
