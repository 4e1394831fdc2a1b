"""Faults with exit code 3: a source is missing or unreadable."""

from weightsmith.errors.fault import WeightsmithError


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
