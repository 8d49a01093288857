"""The other workers of a party, as one of its workers sees them: who rows move to where all work together.

A worker links up with those before it, and is called by those after it. It says `["begun", session]` once its
run of a plan takes what others have made; none sends `["value", session, ...]` or `["rows", session, ...]`
before (see `parts`), so nothing waits for a run that is yet to begin. A lost fellow is the end of the crew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from tercet.actors.crew import News, post_parcels
from tercet.actors.engine import WorkerConfig
from tercet.actors.hello import Hello, greet
from tercet.actors.line import Line
from tercet.actors.parts import Handover, Parcel
from tercet.actors.party import Party
from tercet.actors.session import Session
from tercet.errors import PeerLost, ProtocolError, TransportError
from tercet.protocols.domains import Words
from tercet.transports import Link, Transport
from tercet.transports.names import worker_name

MOST_BEGUN = 1 << 10
"""Runs that fellows have begun and this worker has not, or will not."""


class Fellows:
    """A worker's lines to the others of its party, which live in its nursery; `lost` is told of the first."""

    def __init__(
        self, config: WorkerConfig, party: Party, nursery: trio.Nursery, lost: Callable[[PeerLost], None]
    ) -> None:
        self._config = config
        self._party = party
        self._nursery = nursery
        self._lost = lost
        self._lines: dict[int, Line] = {}
        self._begun: OrderedDict[bytes, set[int]] = OrderedDict()
        self._news = News()

    @property
    def _name(self) -> str:
        return worker_name(self._config.index, self._config.number)

    # -- lines -----------------------------------------------------------------------------------------------

    async def link_up(self, transport: Transport, addresses: Sequence[str]) -> None:
        """Call those before this worker, and wait for those after it. Raises TransportError or PeerLost."""
        config = self._config
        for number, address in enumerate(addresses[: config.number]):
            name = worker_name(config.index, number)
            link = await transport.connect(address, peer=name)
            mine = Hello(self._name, config.protocol, config.parties)
            theirs = await greet(link, mine, timeout_s=config.timeout_s)
            if theirs.role != self._party.name:
                await link.aclose()
                raise TransportError(f"{theirs.role} answered at {address}, where {name} was expected")
            self.add(name, link)
        await self._news.until(lambda: len(self._lines) == config.workers - 1)

    def knows(self, name: str) -> bool:
        """Whether a name is of another worker of this party."""
        return self._number(name) is not None

    def _number(self, name: str) -> int | None:
        names = {worker_name(self._config.index, number): number for number in range(self._config.workers)}
        names.pop(self._name)
        return names.get(name)

    def add(self, name: str, link: Link) -> None:
        """Take a link to a fellow. Raises TransportError for one that has called before."""
        number = self._number(name)
        if number is None or number in self._lines:
            raise TransportError(f"{name} called {self._name}, which does not wait for it")
        link.peer = name
        config = self._config
        self._lines[number] = Line(link, owner=self._name, timeout_s=config.timeout_s, scratch=config.scratch)
        self._nursery.start_soon(self._tend, number)
        self._news.tell()

    async def _tend(self, number: int) -> None:
        line = self._lines[number]
        await line.run(_Ear(self, number))
        self._lost(PeerLost(f"it has lost {line.other}: {line.error()}", peer=line.other))

    # -- runs ------------------------------------------------------------------------------------------------

    def begin(self, session: bytes) -> None:
        """A run takes what others have made, from now on."""
        for line in self._lines.values():
            line.post(["begun", session])

    def over(self, session: bytes) -> None:
        """Forget a run."""
        self._begun.pop(session, None)

    async def send(self, session: bytes, number: int, parcels: Sequence[Parcel | Handover]) -> None:
        """Send a fellow what a run has for it, once it has begun there. Raises PeerLost."""
        await self._news.until(lambda: number in self._begun.get(session, ()))
        await post_parcels(self._lines[number], session, parcels)

    def takes(self, session: Any) -> bool:
        """Whether a run takes what others have made; not if it has ended. Raises ProtocolError before."""
        running = self._party.under_way(session) if isinstance(session, bytes) else None
        if running is not None and not running.has_begun:
            raise ProtocolError(f"a worker of this party sent what {self._name} has not asked for yet")
        return running is not None

    def hear(self, number: int, message: list[Any], payload: Words | None) -> None:
        """Handle what a fellow says. Raises ProtocolError."""
        match message:
            case ["begun", bytes(session)] if not self._party.has_ended(session):
                self._begun.setdefault(session, set()).add(number)
                if len(self._begun) > MOST_BEGUN:
                    idle = (name for name in self._begun if self._party.under_way(name) is None)
                    self._begun.pop(next(idle, b""), None)
                self._news.tell()
            case ["begun", bytes(_)]:
                pass  # of a run that has ended here
            case ["value", bytes(session), *rest] if payload is not None:
                self._tell(session, Parcel.read(rest, payload))
            case ["rows", bytes(session), *rest] if payload is not None:
                rows = Handover.read(rest, payload)
                if rows.sender != number:
                    raise ProtocolError(f"worker {number} handed over rows as worker {rows.sender!r:.40}")
                self._tell(session, rows)
            case ["value" | "rows", bytes(session), *_]:
                running = self._party.under_way(session)
                if running is not None:
                    what = f"{self._name} has no room, in memory or its scratch, for its share of a table"
                    running.fail(ProtocolError(what))
            case _:
                raise ProtocolError(f"a worker said {message[0]!r:.40}, as none does to another of its party")

    def _tell(self, session: bytes, made: Parcel | Handover) -> None:
        running: Session | None = self._party.under_way(session)
        if running is not None:
            running.receive(made)


@attrs.frozen(eq=False)
class _Ear:
    """What takes the messages of one fellow; see `line.Receiver`."""

    fellows: Fellows
    number: int

    def admit(self, message: list[Any], size: int) -> bool:
        """A worker holds what its runs take."""
        _ = size
        return message[0] in ("value", "rows") and len(message) > 1 and self.fellows.takes(message[1])

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message."""
        self.fellows.hear(self.number, message, payload)
