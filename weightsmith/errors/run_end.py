"""How else a run can end: a defect of weightsmith (70), or stopped from outside (129, 130)."""

from weightsmith.errors.fault import WeightsmithError


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
