"""Faults with exit code 5: what may go well if it is tried again."""

from weightsmith.errors.fault import WeightsmithError


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
