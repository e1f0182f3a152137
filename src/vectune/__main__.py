"""The command ``vectune``, also as ``python -m vectune``."""

from __future__ import annotations

from vectune.cli.interrupt import CtrlC


def main() -> None:
    """The entry point. Ctrl-C is ours before the imports, which take a moment: they would end in a traceback."""
    with CtrlC("interrupted."):
        from vectune.cli.app import main as command

        command()


if __name__ == "__main__":
    main()
