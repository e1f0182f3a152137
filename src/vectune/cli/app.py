"""The command line: one file for each command in this folder, put together here, and one place that shows errors.

Commands import what they need when they run, so that ``vectune --help`` stays fast.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from vectune import __version__
from vectune.cli import bridge, cache, compare, evaluate, prepare, queries, report, run, search, tune
from vectune.cli.interrupt import CtrlC
from vectune.errors import VectuneError

app = typer.Typer(
    name="vectune",
    help="From a folder of documents to an embedding model that retrieves them better, with proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vectune {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a folder of documents to an embedding model that retrieves them better, with proof."""


app.command()(run.run)
app.command()(prepare.prepare)
app.command()(queries.queries)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(search.search)
app.command()(compare.compare)
app.command()(bridge.bridge)
app.add_typer(cache.app, name="cache")


def at_home(argument: str) -> str:
    """``~`` expanded where a shell leaves it alone: ``--out=~/run``, or a path in quotation marks."""
    option, path = re.fullmatch(r"(--[\w-]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    return option + os.path.expanduser(path) if path.startswith(("~/", "~\\")) or path == "~" else argument


def fail(message: str, hint: str, code: int) -> NoReturn:
    """Show a message and what to do about it on standard error, and exit."""
    print(f"error: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """The entry point ``vectune``. Exit codes: 0 fine, 1 the work failed, 2 wrong usage or input, 130 interrupted."""
    with CtrlC("interrupted; run the same command again to go on where it stopped."):
        try:
            app(list(map(at_home, sys.argv[1:])))
        except VectuneError as error:
            fail(str(error), error.hint, error.exit_code)
        except BrokenPipeError:  # the reader of our output has gone, as with `vectune ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
