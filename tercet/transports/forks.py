"""Forks: what a child of `os.fork` must not share with its parent.

A child has copies of its parent's descriptors and memory, and none of its threads. With a copy of a node's
standard input it would keep the node alive, with a copy of a socket it could speak in the middle of its
parent's frames. So descriptors that lakes live by are put out of reach in every child as it starts, and what
holds them knows the process that it was opened in.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol, TypeVar

from tercet.errors import TercetError


class Descriptor(Protocol):
    """A socket or a pipe."""

    def fileno(self) -> int:
        """Its descriptor, -1 once it is closed."""


Kept = TypeVar("Kept", bound=Descriptor)
_kept: weakref.WeakSet[Descriptor] = weakref.WeakSet()


def keep_from_children(descriptor: Kept) -> Kept:
    """The same socket or pipe, which leads nowhere in processes that are forked from now on."""
    _kept.add(descriptor)
    return descriptor


def _lead_nowhere() -> None:
    """Put the null device in the place of kept descriptors: whoever closes or writes them does no harm."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in list(_kept):
        number = descriptor.fileno()
        if number >= 0:
            os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lead_nowhere)


class Home:
    """The process in which something was opened."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is that process, and not a fork of it."""
        return os.getpid() == self._process

    def require(self) -> None:
        """Raise TercetError in a fork."""
        if not self.here:
            raise TercetError(
                f"this lake was opened by process {self._process}, and this is process {os.getpid()}, a fork "
                "of it, which cannot use its links; open a lake in this process, or start it with "
                "multiprocessing.get_context('spawn'), or use threads"
            )
