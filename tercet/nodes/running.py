"""That a node runs once: who runs it, restores it or prunes it has its directory alone meanwhile.

A node knows in memory what it stores, and removes files that it does not know when it starts. So a second
process on the same directory would remove uploads that are under way at the first one, and what is pruned or
restored beside it would come apart. That nothing listens at the node's address does not tell: a node that
starts or ends does not listen, one in a container listens elsewhere, and `node.toml` may have been changed.

The directory of `node.toml` itself is locked, so there is no file to be left behind, or to belong to another
user. The lock goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator

from tercet.errors import StorageError, TransportError
from tercet.members.node_file import NodeFile
from tercet.transports.tcp import split_address


@contextlib.contextmanager
def running(file: NodeFile) -> Iterator[None]:
    """Have the directory of a node for this process alone.

    Raises StorageError if another process has it, or it is on a file system without locks.
    """
    descriptor = os.open(file.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"the node in {file.directory} runs already, or is being pruned or restored: stop that first"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{file.directory} cannot be locked ({error.strerror}), so the node might run twice: put "
                "it on a disk of this machine"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def stopped(file: NodeFile, *, before: str) -> Iterator[None]:
    """See to it that a node does not run, `before` what is done to it, as "it is pruned", until that is done.

    Raises StorageError if it does, also under an earlier release, which only listens.
    """
    with running(file):
        if in_use(file.listen):
            raise StorageError(f"something listens at {file.listen}: stop the node before {before}")
        yield


def in_use(address: str) -> bool:
    """Whether something listens there. Raises TransportError if nobody can."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(where)
            tried.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise TransportError(
            f"this machine cannot listen at {address} ({error.strerror or error}); is it the node's?"
        ) from error
    return False
