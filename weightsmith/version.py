"""The version and the project's address, each in one place."""

from typing import Final

__version__ = "0.1.0"
"""What the package's metadata, manifests and requests say."""

HOMEPAGE: Final = "https://github.com/weightsmith/weightsmith"
"""Where the project is at home; the package's metadata say the same."""
