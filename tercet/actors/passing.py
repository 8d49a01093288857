"""What a run at one member of a party passes on to the others, and what workers hand to each other.

All of it waits here until the scheduler sends it. See `parts` for what crosses, and when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tercet.actors.flow import Flow
from tercet.actors.instances import Instance
from tercet.actors.parts import Handover, Parcel, Parcels, Part
from tercet.actors.storage import Written
from tercet.actors.values import FiledTiles
from tercet.errors import ProtocolError
from tercet.plans.kinds import Data
from tercet.plans.shards import NODE
from tercet.plans.types import Ref
from tercet.protocols.base import Exchange, Received, Share
from tercet.protocols.domains import Words


class Passing:
    """What one run has for other members of the party, and has from them; nothing where there are none.

    Whoever calls holds the scheduler's lock.
    """

    def __init__(self, part: Part | None, flow: Flow, symbols: Mapping[str, int]) -> None:
        self._part = part
        self._flow = flow
        self._symbols = symbols
        self._parcels: dict[int, list[Parcel | Handover]] = {}
        self._handed: dict[tuple[int, int], dict[int, Sequence[Words]]] = {}

    @property
    def has_some(self) -> bool:
        """Whether there is anything to be sent."""
        return bool(self._parcels)

    def take(self) -> Parcels:
        """All that is to be sent now."""
        parcels, self._parcels = self._parcels, {}
        return parcels

    def _put(self, member: int, parcel: Parcel | Handover) -> None:
        self._parcels.setdefault(member, []).append(parcel)

    # -- values ----------------------------------------------------------------------------------------------

    def forward(self, ref: Ref, tile: int, tiles: int, data: Data | FiledTiles, depth: int) -> None:
        """Pass a tile on to the members that read it."""
        if self._part is not None:
            for member in self._flow.members(ref, tile, tiles) - {self._part.member}:
                self._put(member, Parcel(ref, tile, tiles, depth, data, dict(self._symbols)))

    def forward_filed(self, ref: Ref, filed: FiledTiles) -> None:
        """Pass on the tiles of a stored value, or where they lie if the members that read them can do so."""
        tiles = len(filed)
        if self._part is None or filed.access() is None:
            for tile in range(tiles):
                self.forward(ref, tile, tiles, filed, 0)
            return
        readers = set[int]().union(*(self._flow.members(ref, tile, tiles) for tile in range(tiles)))
        for member in readers - {self._part.member}:
            self._put(member, Parcel(ref, 0, tiles, 0, filed, dict(self._symbols)))

    def add(self, ref: Ref, summand: Share | Written, depth: int) -> None:
        """Tell the node of the party what this worker adds up, or has written."""
        if self._part is not None:
            self._put(NODE, Parcel(ref, self._part.member, 0, depth, summand, dict(self._symbols)))

    def tell_symbols(self, ref: Ref) -> None:
        """Tell all workers how many rows something has, also those that get none of them."""
        if self._part is not None:
            parcel = Parcel(ref, 0, -1, 0, np.empty(0, dtype=np.uint64), dict(self._symbols))
            for worker in range(self._part.workers):
                self._put(worker, parcel)

    # -- what workers run together ---------------------------------------------------------------------------

    def exchange(self, instance: Instance, exchange: Exchange) -> None:
        """Hand words to the other workers; the instance waits for as much of each."""
        if self._part is None:
            raise ProtocolError(f"{instance.node.title(instance.name[0])} has nobody to exchange rows with")
        index, number, member = instance.name[0], instance.exchanges, self._part.member
        instance.exchanging = True
        self._handed.setdefault((index, number), {})[member] = exchange.send.get(member, ())
        for worker in range(self._part.workers):
            if worker != member:
                self._put(worker, Handover(index, number, member, exchange.send.get(worker, ())))

    def hear(self, handover: Handover) -> None:
        """Put away what another worker has. Raises ProtocolError."""
        handed = self._handed.setdefault((handover.index, handover.number), {})
        if handover.sender in handed:
            raise ProtocolError(f"worker {handover.sender} of this party handed over the same rows twice")
        handed[handover.sender] = handover.arrays

    def handed(self, instance: Instance) -> Received | None:
        """What all workers have had for an instance, once it is there."""
        place = instance.name[0], instance.exchanges
        missing = self._part is None or len(self._handed.get(place, ())) < self._part.workers
        if missing or not instance.exchanging:
            return None
        instance.exchanges += 1
        instance.exchanging = False
        return self._handed.pop(place)
