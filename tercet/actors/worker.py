"""A worker of a party: it runs its share of plans for the party's node, with links of its own.

Worker k of a party is linked to worker k of every other party as nodes are to each other, and shares keys
with them that come from those links alone. It takes the part of its party in every run, for the tiles that
are its share; the values that it reads come from its node, and what it makes goes there (see `parts`). To the
other workers of its party, its fellows, it has a line each, over which rows move from one to another. It
stores nothing, knows no client, and ends when its node does.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from tercet.actors.crew import News, post_all
from tercet.actors.engine import MakeTransport, WorkerConfig
from tercet.actors.hello import Hello, greet
from tercet.actors.line import Line
from tercet.actors.node import Node
from tercet.actors.parts import Handover, Parcel, Part
from tercet.actors.party import Party
from tercet.actors.session import Session
from tercet.actors.threads import in_thread
from tercet.errors import PeerLost, ProtocolError, TercetError, TransportError, from_wire
from tercet.plans.parsing import read_plan
from tercet.plans.shards import NODE
from tercet.protocols import registry
from tercet.protocols.domains import Words
from tercet.transports import Link, Shaping
from tercet.transports.names import FOREMAN, worker_name

logger = logging.getLogger(__name__)

MOST_AHEAD = 1024


class _Colleagues(Node):
    """The links of a worker to those of other parties: a node that serves nobody.

    `on_fellow` is given the links that other workers of its own party make, with their numbers.
    """

    on_fellow: Callable[[int, Link], None]
    fellows: Mapping[str, int]
    """The numbers of the other workers of this party, by name."""

    def _add(self, role: str, link: Link, key: bytes) -> None:
        if role in self.fellows:
            self.on_fellow(self.fellows[role], link)
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
        self._lines = {NODE: line}
        """To other members of the party."""
        self._news = News()
        colleagues.on_fellow = self._take_fellow
        self._early: dict[bytes, list[Callable[[Session], None]]] = {}
        """What the node has said of runs whose plan is still being read."""
        self._ahead: OrderedDict[bytes, list[Callable[[Session], None]]] = OrderedDict()
        """What has overtaken the word that such a run is to begin."""

    async def run(self) -> None:
        """Work until the line to the node ends."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.party.on_lost = self._lost
            await self._line.run(self)
            nursery.cancel_scope.cancel()

    def _lost(self) -> None:
        """A worker of another party is lost, without which there is nothing to do."""
        names = [self.party.called(index) for index in self.party.missing()]
        error = PeerLost(f"it has lost {' and '.join(names)}", peer=names[0])
        self._line.post(["lost", error.to_wire()])

    # -- what the node says ----------------------------------------------------------------------------------

    def admit(self, message: list[Any], size: int) -> bool:
        """The node sends what this worker is to hold."""
        _ = size
        return bool(message[0] == "value")

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message of the node; see `crew`."""
        match message:
            case ["link", list(addresses), list(fellows)]:
                self._nursery.start_soon(self._link_up, addresses, fellows)
            case ["run", bytes(name), bytes(packed)]:
                self._early[name] = self._ahead.pop(name, [])
                self._nursery.start_soon(self._work, name, packed)
            case ["value", bytes(name), *rest] if payload is not None:
                parcel = Parcel.read(rest, payload)
                self._tell(name, lambda session: session.receive(parcel))
            case ["value", bytes(name), *_]:
                error = ProtocolError(f"{self._name} has no memory for its share of a table")
                self._tell(name, lambda session: session.fail(error))
            case ["end", bytes(name)]:
                self._tell(name, Session.tell_to_end, ahead=True)
            case ["stop", bytes(name), dict(fields)]:
                told = from_wire(fields)
                self._tell(name, lambda session: session.fail(told), ahead=True)
            case _:
                raise ProtocolError(f"the node said {message[0]!r:.40}, as no node does to a worker")

    def take_of_fellow(self, message: list[Any], payload: Words | None) -> None:
        """Handle what another worker of this party has for a run, of which this one may hear only later."""
        match message:
            case ["value" | "rows" as word, bytes(name), *rest] if payload is not None:
                kind = Handover if word == "rows" else Parcel
                made = kind.read(rest, payload)
                self._tell(name, lambda session: session.receive(made), ahead=True)
            case ["value" | "rows", bytes(name), *_]:
                error = ProtocolError(f"{self._name} has no memory for its share of a table")
                self._tell(name, lambda session: session.fail(error), ahead=True)
            case _:
                raise ProtocolError(
                    f"a worker of this party said {message[0]!r:.40}, as none does to another"
                )

    @property
    def _name(self) -> str:
        return worker_name(self._config.index, self._config.number)

    def _tell(self, name: bytes, what: Callable[[Session], None], *, ahead: bool = False) -> None:
        """Tell a run something; what may come `ahead` of the word that it is to begin waits for that."""
        if name in self._early:
            self._early[name].append(what)
        elif (session := self.party.under_way(name)) is not None:
            what(session)
        elif ahead and not self.party.has_ended(name):
            self._ahead.setdefault(name, []).append(what)
            if len(self._ahead) > MOST_AHEAD:
                self._ahead.popitem(last=False)

    async def _link_up(self, addresses: Sequence[str], fellows: Sequence[str]) -> None:
        await self._nursery.start(self._colleagues.serve, addresses)
        for number, address in enumerate(fellows[: self._config.number]):
            await self._call_fellow(number, address)
        await self._news.until(lambda: len(self._lines) == self._config.workers)
        self._line.post(["ready"])

    async def _call_fellow(self, number: int, address: str) -> None:
        """Link up with a worker of this party that has a lower number. Raises TransportError or PeerLost."""
        config = self._config
        name = worker_name(config.index, number)
        link = await self._colleagues.transport.connect(address, peer=name)
        mine = Hello(worker_name(config.index, config.number), config.protocol, config.parties)
        theirs = await greet(link, mine, timeout_s=config.timeout_s)
        if theirs.role != self.party.name:
            await link.aclose()
            raise TransportError(f"{theirs.role} answered at {address}, where {name} was expected")
        self._take_fellow(number, link)

    def _take_fellow(self, number: int, link: Link) -> None:
        config = self._config
        if number in self._lines:
            raise TransportError(f"{worker_name(config.index, number)} has called twice")
        link.peer = worker_name(config.index, number)
        owner = worker_name(config.index, config.number)
        self._lines[number] = Line(link, owner=owner, timeout_s=config.timeout_s)
        self._nursery.start_soon(self._tend_fellow, self._lines[number])
        self._news.tell()

    async def _tend_fellow(self, line: Line) -> None:
        await line.run(_Ear(self))
        error = PeerLost(f"it has lost {line.other}: {line.error()}", peer=line.other)
        self._line.post(["lost", error.to_wire()])

    # -- runs ------------------------------------------------------------------------------------------------

    async def _work(self, name: bytes, packed: bytes) -> None:
        part = Part(self._config.number, self._config.workers, functools.partial(self._send, name))
        try:
            plan = await in_thread(read_plan, packed)
            session = self.party.take_part(name, plan, part)
            for what in self._early.pop(name):
                what(session)
            spent = (await self.party.run_part(session)).statistics
            self._line.post(["ended", name, spent.rounds, spent.bytes_sent])
        except TercetError as error:
            self._line.post(["stop", name, error.to_wire()])
        finally:
            self._early.pop(name, None)

    async def _send(self, name: bytes, parcels: Mapping[int, Sequence[Parcel | Handover]]) -> None:
        await post_all(self._lines, name, parcels)


@attrs.frozen(eq=False)
class _Ear:
    """What takes the messages of another worker of the party; see `line.Receiver`."""

    worker: Worker

    def admit(self, message: list[Any], size: int) -> bool:
        """A worker sends what this one asks for, or is to hold."""
        _ = size
        return message[0] in ("value", "rows")

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message."""
        self.worker.take_of_fellow(message, payload)


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
        called=lambda index: worker_name(index, config.number),
    )
    pins = {FOREMAN: config.node_certificate} if config.node_certificate else {}
    # A party alone has no colleagues, and a single worker no fellows.
    transport = make(config.identity, {**config.pins, **config.fellows} or pins)
    colleagues = _Colleagues(
        party, transport, shaping=Shaping(**config.shaping), trusted_names=transport.authenticated
    )
    others = (number for number in range(config.workers) if number != config.number)
    colleagues.fellows = {worker_name(config.index, number): number for number in others}
    async with trio.open_nursery() as nursery:
        address = await colleagues.listen(listen, nursery=nursery)
        link = await make(config.identity, pins).connect(config.node, peer=FOREMAN)
        mine = Hello(name, config.protocol, config.parties)
        await greet(link, mine, timeout_s=config.timeout_s)
        line = Line(link, owner=name, timeout_s=config.timeout_s)
        called()
        line.post(["here", address])
        await Worker(config, colleagues, line).run()
        logger.info("%s: %s", name, line.lost)
        nursery.cancel_scope.cancel()
