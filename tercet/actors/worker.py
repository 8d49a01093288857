"""A worker of a party: it runs its share of plans for the party's node, with links of its own.

Worker k of a party is linked to worker k of every other party as nodes are to each other, and shares keys
with them that come from those links alone. It takes the part of its party in every run, for the tiles that
are its share; the values that it reads come from its node, and what it makes goes there (see `parts`), or
both lie in a storage that node and workers share (see `storage`). To the other workers of its party, its
fellows, it has a line each, over which rows move from one to another. It keeps nothing of its own, knows no
client, and ends when its node does.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from tercet.actors.crew import post_parcels
from tercet.actors.engine import MakeTransport, WorkerConfig
from tercet.actors.fellows import Fellows
from tercet.actors.hello import Hello, greet
from tercet.actors.line import Line, gravest_cause, plain_errors
from tercet.actors.node import Node
from tercet.actors.parts import Parcel, Parcels, Part
from tercet.actors.party import Party
from tercet.actors.session import Session
from tercet.actors.storage import PartWriter
from tercet.actors.threads import in_thread
from tercet.actors.values import FiledTiles
from tercet.errors import PeerLost, ProtocolError, StorageError, TercetError, TransportError, from_wire
from tercet.plans.parsing import read_plan
from tercet.plans.shards import NODE
from tercet.protocols import registry
from tercet.protocols.domains import Words
from tercet.transports import Link, Shaping
from tercet.transports.names import FOREMAN, worker_name

logger = logging.getLogger(__name__)

ABORT_S = 5.0
"""How long a run that failed waits until nothing is left of what it has written."""


class _Colleagues(Node):
    """The links of a worker to those of other parties: a node that serves nobody, but `fellows`."""

    fellows: Fellows

    def _add(self, role: str, link: Link, key: bytes) -> None:
        if self.fellows.knows(role):
            self.fellows.add(role, link)
        else:
            super()._add(role, link, key)

    async def _serve_client(self, link: Link, name: str) -> None:
        await link.aclose()
        raise TransportError(f"{name} called a worker, which has no clients; call its node")


class Worker:
    """A worker that has called its node; `run` it."""

    def __init__(self, config: WorkerConfig, colleagues: _Colleagues, line: Line) -> None:
        self.party = colleagues.party
        self._config = config
        self._colleagues = colleagues
        self._line = line
        self._storage = config.storage
        self._filed: dict[bytes, list[FiledTiles]] = {}
        """Tiles of stored values that runs read here."""
        self._early: dict[bytes, list[Callable[[Session], None]]] = {}
        """What the node has said of runs whose plan is still being read: that they are to end, or stop."""

    async def run(self) -> None:
        """Work until the line to the node ends."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._fellows = Fellows(self._config, self.party, nursery, self._has_lost)
            self._colleagues.fellows = self._fellows
            self.party.on_lost = self._lost
            await self._line.run(self)
            nursery.cancel_scope.cancel()

    def _lost(self) -> None:
        """A worker of another party is lost, without which there is nothing to do."""
        names = [self.party.called(index) for index in self.party.missing()]
        self._has_lost(PeerLost(f"it has lost {' and '.join(names)}", peer=names[0]))

    def _has_lost(self, error: PeerLost) -> None:
        self._line.post(["lost", error.to_wire()])

    # -- what the node says ----------------------------------------------------------------------------------

    def admit(self, message: list[Any], size: int) -> bool:
        """The node sends what this worker is to hold, once it has heard that the run has begun here."""
        match message:
            case ["value", bytes(name), *_]:
                session = self.party.under_way(name)
                if session is None:
                    return False  # it has ended here meanwhile
                if session.has_begun:
                    return True
        raise ProtocolError(f"the node sent {size} bytes that this worker has not asked for")

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message of the node; see `crew`."""
        match message:
            case ["link", list(addresses), list(fellows)]:
                self._nursery.start_soon(self._link_up, addresses, fellows)
            case ["run", bytes(name), bytes(packed), list(places)]:
                self._early[name] = []
                self._nursery.start_soon(self._work, name, packed, self._writers(places))
            case ["value", bytes(name), *rest] if payload is not None:
                parcel = Parcel.read(rest, payload)
                self._tell(name, lambda session: session.receive(parcel))
            case ["stored", bytes(name), int(index), int(tiles), list(access)] if self._storage is not None:
                self._open(name, index, tiles, self._storage.tiles(access))
            case ["value", bytes(name), *_]:
                own = worker_name(self._config.index, self._config.number)
                error = ProtocolError(
                    f"{own} has no room, in memory or its scratch, for its share of a table"
                )
                self._tell(name, lambda session: session.fail(error))
            case ["end", bytes(name)]:
                self._tell(name, Session.tell_to_end)
            case ["stop", bytes(name), dict(fields)]:
                told = from_wire(fields)
                self._tell(name, lambda session: session.fail(told))
            case _:
                raise ProtocolError(f"the node said {message[0]!r:.40}, as no node does to a worker")

    def _tell(self, name: bytes, what: Callable[[Session], None]) -> None:
        """Tell a run something, as soon as its plan is read; nothing if it has ended."""
        if name in self._early:
            self._early[name].append(what)
        elif (session := self.party.under_way(name)) is not None:
            what(session)

    def _open(self, name: bytes, index: int, tiles: int, filed: FiledTiles) -> None:
        """A run reads a stored value, until it ends."""
        if name in self._early or self.party.under_way(name) is not None:
            self._filed.setdefault(name, []).append(filed)
            self._tell(name, lambda session: session.receive(Parcel((index, 0), 0, tiles, 0, filed)))

    async def _link_up(self, addresses: Sequence[str], fellows: Sequence[str]) -> None:
        try:
            await self._nursery.start(self._colleagues.serve, addresses)
            await self._fellows.link_up(self._colleagues.transport, fellows)
        except* TercetError as group:
            self._has_lost(PeerLost(f"it cannot link up: {gravest_cause(group)}", peer=self.party.name))
        else:
            self._line.post(["ready"])

    # -- runs ------------------------------------------------------------------------------------------------

    def _writers(self, places: Sequence[Sequence[Any]]) -> dict[int, PartWriter]:
        """Of values to be stored, by nodes of the plan that store them."""
        return {} if self._storage is None else {int(index): self._storage.part(at) for index, at in places}

    async def _work(self, name: bytes, packed: bytes, writers: Mapping[int, PartWriter]) -> None:
        send, begun = functools.partial(self._send, name), functools.partial(self._begin, name)
        part = Part(self._config.number, self._config.workers, send, begun, writers=writers)
        ended = False
        try:
            plan = await in_thread(read_plan, packed)
            session = self.party.take_part(name, plan, part)
            for what in self._early.pop(name):
                what(session)
            spent = (await self.party.run_part(session)).statistics
            self._line.post(["ended", name, spent.rounds, spent.bytes_sent])
            ended = True
        except TercetError as error:
            self._line.post(["stop", name, error.to_wire()])
        finally:
            self._early.pop(name, None)
            self._fellows.over(name)
            for filed in self._filed.pop(name, ()):
                filed.forget()
            if writers and not ended:
                with trio.move_on_after(ABORT_S, shield=True):
                    await trio.to_thread.run_sync(_abort, list(writers.values()), abandon_on_cancel=True)

    def _begin(self, name: bytes) -> None:
        self._line.post(["begun", name])
        self._fellows.begin(name)

    async def _send(self, name: bytes, parcels: Parcels) -> None:
        async with plain_errors(), trio.open_nursery() as nursery:
            for member, some in parcels.items():
                if member == NODE:
                    nursery.start_soon(post_parcels, self._line, name, some)
                else:
                    nursery.start_soon(self._fellows.send, name, member, some)


def _abort(writers: Sequence[PartWriter]) -> None:
    """Leave nothing of what a run that failed has written."""
    for writer in writers:
        try:
            writer.abort()
        except StorageError as error:
            logger.warning("a part of a value may be left in the storage: %s", error)


async def work(
    config: WorkerConfig, make: MakeTransport, listen: str, *, called: Callable[[], None] = lambda: None
) -> None:
    """Be a worker: call the node, listen for the same worker of other parties, and work until the node goes.

    `called` is called once the node has answered.
    Raises TransportError or PeerLost if the node cannot be reached.
    """
    name = worker_name(config.index, config.number)
    party = Party(
        config.index,
        parties=config.parties,
        protocol=registry.get(config.protocol),
        timeout_s=config.timeout_s,
        threads=config.threads,
        scratch=config.scratch,
        called=lambda index: worker_name(index, config.number),
    )
    pins = {FOREMAN: config.node_certificate} if config.node_certificate else {}
    # A party alone has no colleagues, and a single worker no fellows.
    transport = make(config.identity, {**config.pins, **config.fellows} or pins)
    colleagues = _Colleagues(
        party, transport, shaping=Shaping(**config.shaping), trusted_names=transport.authenticated
    )
    await in_thread(config.scratch.require_place)
    if config.storage is not None:
        await in_thread(config.storage.connect)
    async with trio.open_nursery() as nursery:
        address = await colleagues.listen(listen, nursery=nursery)
        link = await make(config.identity, pins).connect(config.node, peer=FOREMAN)
        mine = Hello(name, config.protocol, config.parties)
        await greet(link, mine, timeout_s=config.timeout_s)
        line = Line(link, owner=name, timeout_s=config.timeout_s, scratch=config.scratch)
        called()
        line.post(["here", address])
        await Worker(config, colleagues, line).run()
        logger.info("%s: %s", name, line.lost)
        nursery.cancel_scope.cancel()
