"""The command ``vectune``, also as ``python -m vectune``."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def _interrupted(*_: object) -> NoReturn:
    print("error: interrupted.", file=sys.stderr)  # noqa: T201 - nothing else is there yet
    sys.exit(130)


def main() -> None:
    """The entry point. Ctrl-C is ours before the imports, which take a moment: they would end in a traceback."""
    signal.signal(signal.SIGINT, _interrupted)
    from vectune.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
