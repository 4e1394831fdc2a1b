"""How to start a process in which another library reads a checkpoint."""

import os
import sys
from typing import Final

_CREDENTIALS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_OFFLINE: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "USE_HUB_KERNELS": "NO",
}


def closed_command(*arguments: str, python: str = sys.executable) -> list[str]:
    """Run Python so that no module comes from the working directory or beside the script."""
    return [python, "-P", *arguments]


def closed_environment() -> dict[str, str]:
    """The environment without credentials, with the hub's libraries told to fetch nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in _CREDENTIALS}
    return kept | _OFFLINE
