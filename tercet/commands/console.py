"""What all commands share: errors as sentences, where the lake's file and the member's key are, the nodes.

Modules of commands import here, as all of them do at their heads, what it takes to tell what commands there
are; what a command needs, it imports when it is called.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tercet.errors import TercetError

if TYPE_CHECKING:
    from tercet.client.member_api import Desk

    AtNodes = tuple[Desk, Callable[..., Any]]

ClusterPath = Annotated[
    Path,
    typer.Option("--cluster", envvar="TERCET_CLUSTER", help="The lake's file.", metavar="cluster.toml"),
]
IdentityPath = Annotated[
    Path,
    typer.Option("--identity", envvar="TERCET_IDENTITY", help="Your key.", metavar="NAME.key"),
]
DEFAULT_CLUSTER = Path("cluster.toml")


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """End with a sentence and exit code 1 for what Tercet or the system refuses; warnings are lines too."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _told  # type: ignore[assignment]
            yield
    except (TercetError, OSError) as error:
        why = _of_file(error) if isinstance(error, OSError) and error.filename else str(error)
        Console(stderr=True).print(f"error: {why}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def at_nodes(cluster: Path, identity: Path) -> Iterator[AtNodes]:
    """A member's desk at the nodes of a lake, and what waits for its answers, as in `wait(desk.plans)`.

    What only reads, signs and lists needs no lake, which would import all that computes. Raises as
    `tercet.connect`.
    """
    from tercet.client.loop import Loop
    from tercet.client.reach import open_desk

    with contextlib.closing(Loop(lambda: open_desk(cluster, identity))) as loop:
        yield loop.opened, loop.wait


def _told(message: Warning | str, *_: object) -> None:
    """A warning, as a line for people."""
    Console(stderr=True).print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)


def _of_file(error: OSError) -> str:
    """What the system refuses to do with a file, without its number."""
    return f"{error.filename} cannot be read or written ({error.strerror}); check the path"


def say(text: str) -> None:
    """A line for people."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
