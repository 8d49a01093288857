"""What workers of a party hand to each other in nodes that they run together, put away until all is there."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.actors.instances import Instance
from tercet.actors.parts import Handover
from tercet.errors import ProtocolError
from tercet.protocols.base import Exchange, Received
from tercet.protocols.domains import Words


class Exchanges:
    """The exchanges of one run, as one of so many workers sees them: each is of a node, and numbered."""

    def __init__(self, member: int, workers: int) -> None:
        self._member = member
        self._workers = workers
        self._handed: dict[tuple[int, int], dict[int, Sequence[Words]]] = {}

    def begin(self, instance: Instance, exchange: Exchange) -> dict[int, Handover]:
        """What goes to each other worker; the instance waits for as much of each."""
        index, number = instance.name[0], instance.exchanges
        instance.exchanging = True
        self._handed.setdefault((index, number), {})[self._member] = exchange.send.get(self._member, ())
        return {
            worker: Handover(index, number, self._member, exchange.send.get(worker, ()))
            for worker in range(self._workers)
            if worker != self._member
        }

    def hear(self, handover: Handover) -> None:
        """Put away what another worker has. Raises ProtocolError."""
        handed = self._handed.setdefault((handover.index, handover.number), {})
        if handover.sender in handed:
            raise ProtocolError(f"worker {handover.sender} of this party handed over the same rows twice")
        handed[handover.sender] = handover.arrays

    def take(self, instance: Instance) -> Received | None:
        """What all workers have had for an instance, once it is there."""
        place = instance.name[0], instance.exchanges
        if not instance.exchanging or len(self._handed.get(place, ())) < self._workers:
            return None
        instance.exchanges += 1
        instance.exchanging = False
        return self._handed.pop(place)
