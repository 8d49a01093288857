"""What a node tells the service manager that has started it, by the protocol of systemd (`sd_notify(3)`).

That it is up once members can connect, that it is about to stop, how many of its peers it is linked with,
and, where the manager keeps a watchdog, that its event loop turns. Without a manager nothing is told.
"""

from __future__ import annotations

import logging
import os
import socket

import attrs
import trio

from tercet.actors.node import Node

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often the status is looked at."""


@attrs.define(eq=False)
class Supervisor:
    """The service manager, as the environment names it."""

    path: str = ""
    beat_s: float = LOOK_S
    """How often it is to hear that all is well, if it waits for that."""
    watches: bool = False

    @classmethod
    def of_environment(cls) -> Supervisor:
        """By the variables NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        path = os.environ.get("NOTIFY_SOCKET", "")
        told, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
        if not path or not told.isdecimal() or int(told) == 0 or pid != str(os.getpid()):
            return cls(path)
        return cls(path, min(LOOK_S, int(told) / 2e6), watches=True)

    def tell(self, *facts: str) -> None:
        """Tell facts such as "READY=1". A manager that does not hear is told of in the log."""
        if not self.path:
            return
        address = "\0" + self.path[1:] if self.path.startswith("@") else self.path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sent:
                sent.setblocking(False)
                sent.sendto("\n".join(facts).encode(), address)
        except OSError as error:
            logger.warning("the service manager at %s does not hear: %s", self.path, error.strerror or error)

    async def keep_told(self, node: Node) -> None:
        """Say that the node is up, and go on to say how it is, until cancelled."""
        self.tell("READY=1", status := _status(node))
        while self.path:
            await trio.sleep(self.beat_s)
            before, status = status, _status(node)
            news = [*([status] if status != before else []), *(["WATCHDOG=1"] if self.watches else [])]
            if news:
                self.tell(*news)


def _status(node: Node) -> str:
    party = node.party
    linked = party.parties - 1 - len(party.missing())
    workers = f" and {party.workers_here} workers" if party.shared_out else ""
    return f"STATUS={party.name}, linked with {linked} of {party.parties - 1} peers{workers}"
