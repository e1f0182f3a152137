"""``python -m vectune`` is the command ``vectune``."""

from vectune.cli.app import main

main()
