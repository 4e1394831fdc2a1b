"""Faults with exit code 8: there is not enough disk or memory."""

from weightsmith.errors.fault import WeightsmithError


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
