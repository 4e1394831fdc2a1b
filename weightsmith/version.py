"""The version, in one place: the package's metadata, manifests and requests say this one."""

__version__ = "0.1.0"
