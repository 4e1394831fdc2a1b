"""``python -m weightsmith`` is ``weightsmith``."""

from weightsmith.cli.main import main

main()
