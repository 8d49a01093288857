"""What all commands share: errors as sentences, and where the lake's file and the member's key are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercet.errors import TercetError

ClusterPath = Annotated[
    Path,
    typer.Option("--cluster", envvar="TERCET_CLUSTER", help="The lake's file.", metavar="cluster.toml"),
]
IdentityPath = Annotated[
    Path,
    typer.Option("--identity", envvar="TERCET_IDENTITY", help="Your key.", metavar="NAME.key"),
]
DEFAULT_CLUSTER = Path("cluster.toml")
LONGEST_LINE = 512
"""Characters of what somebody else has written."""


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """End with a sentence and exit code 1 for what Tercet or the system refuses."""
    try:
        yield
    except (TercetError, OSError) as error:
        why = _of_file(error) if isinstance(error, OSError) and error.filename else str(error)
        Console(stderr=True).print(f"error: {why}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _of_file(error: OSError) -> str:
    """What the system refuses to do with a file, without its number."""
    return f"{error.filename} cannot be read or written ({error.strerror}); check the path"


def one_line(text: str) -> str:
    """What somebody else has written, with nothing in it that hides, moves or ends a line, and cut."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= LONGEST_LINE else f"{shown[: LONGEST_LINE - 3]}..."


def say(text: str) -> None:
    """A line for people."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
