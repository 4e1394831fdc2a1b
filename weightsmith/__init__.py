"""Surgery on model weights: a command is a plan over byte ranges; one engine runs every plan."""

__version__ = "0.1.0"
