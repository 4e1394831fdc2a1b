"""Faults with exit code 4: the hub or a store asks for a login, or refuses the one it has."""

from weightsmith.errors.fault import WeightsmithError


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
