"""The crew of a party: its workers, as the node of the party sees them.

A worker runs its share of plans, and has links of its own to the same worker of every other party, and to the
other workers of its own (see `worker`). The node has a line to each of its workers. A worker says `["here",
address]`, is told `["link", addresses, fellows]`, by party and by worker of its own, and says `["ready"]`
(see `muster`). Then it is told `["run", session, plan, places]`, and says `["begun", session]` once its own
run takes values: so none waits there for a run that is yet to begin. `["value", session, ...]` goes either
way (see `parts`). `["end", session]` a worker answers with `["ended", session, rounds, bytes]`. Either end
may say `["stop", session, error]`. A worker that has lost one of another party, or of its own, says `["lost",
error]`.

Where they share a storage (see `storage`), `["stored", session, node, tiles, access]` tells a worker where
the tiles of an input lie, instead of sending them. `places` are where a worker writes what it makes of values
to be stored, by nodes that store them, and `["written", session, node, worker, depth, symbols, tiles, size,
domain, held]` says that its part is there.

A worker that is lost takes the whole crew with it: what runs ends at once with its name, and nothing that is
shared out can run until there is another crew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from tercet.actors.line import Line, plain_errors
from tercet.actors.parts import Handover, Parcel, Parcels, Part
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.storage import ValueInParts, Written
from tercet.actors.threads import in_thread
from tercet.actors.values import FiledTiles
from tercet.errors import PeerLost, ProtocolError, from_wire
from tercet.plans.shards import NODE
from tercet.protocols.domains import Words
from tercet.transports import Link
from tercet.transports.names import party_name, worker_name

if TYPE_CHECKING:
    from tercet.actors.session import Session
    from tercet.actors.values import Statistics


async def post_parcels(line: Line, session: bytes, parcels: Sequence[Parcel | Handover]) -> None:
    """Send what a session has for the member at the other end of a line: `value`s, and `rows`.

    Raises PeerLost, or StorageError for what cannot be read.
    """
    for parcel in parcels:
        if isinstance(parcel, Handover):
            header, buffers = parcel.to_wire()
            await line.send(["rows", session, *header], buffers)
            continue
        filed = isinstance(parcel.data, FiledTiles)
        if isinstance(parcel.data, FiledTiles) and (access := parcel.data.access()) is not None:
            await line.send(["stored", session, parcel.ref[0], parcel.tiles, access])
            continue
        if isinstance(parcel.data, Written):
            written, about = attrs.astuple(parcel.data), [parcel.depth, dict(parcel.symbols)]
            await line.send(["written", session, parcel.ref[0], parcel.tile, *about, *written])
            continue
        header, buffers = await in_thread(parcel.to_wire) if filed else parcel.to_wire()
        await line.send(["value", session, *header], buffers)


class News:
    """Wakes those who wait until something holds, whenever there may be news of it."""

    def __init__(self) -> None:
        self._come = trio.Event()

    def tell(self) -> None:
        """There may be news."""
        come, self._come = self._come, trio.Event()
        come.set()

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait until something holds."""
        while not there():
            await self._come.wait()


class Crew:
    """A party's lines to its workers; `run` it in the party's nursery before anything is begun."""

    def __init__(
        self, index: int, links: Sequence[Link], timeout_s: float, scratch: Scratch = IN_MEMORY
    ) -> None:
        self.index = index
        self.lost: PeerLost | None = None
        self.lost_worker: int | None = None
        owner = f"the node of party {index}"
        self._lines = [Line(link, owner=owner, timeout_s=timeout_s, scratch=scratch) for link in links]
        self._tasks: dict[bytes, Task] = {}
        self._addresses: dict[int, str] = {}
        self._ready: set[int] = set()
        self._news = News()

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._lines)

    async def run(self) -> None:
        """Own the lines until cancelled. Raises PeerLost when one is lost; nothing goes on without them."""
        try:
            async with trio.open_nursery() as nursery:
                for number in range(self.workers):
                    nursery.start_soon(self._tend, number)
        finally:
            if self.lost is None:
                name = party_name(self.index)
                why = f"the workers of {name} are started anew, with those of another party; try again"
                self.lost = PeerLost(why, peer=name)
            for task in list(self._tasks.values()):
                task.session.fail(self.lost.to_keep())  # each raises its own

    async def _tend(self, number: int) -> None:
        line = self._lines[number]
        await line.run(_Ear(self, number))
        if self.lost is None:
            name = worker_name(self.index, number)
            self.lost, self.lost_worker = PeerLost(f"{name} is lost: {line.error()}", peer=name), number
        raise self.lost

    async def addresses(self) -> list[str]:
        """Where the workers listen for those of other parties, once they have said so."""
        await self._news.until(lambda: len(self._addresses) == self.workers)
        return [self._addresses[number] for number in range(self.workers)]

    async def link(self, addresses: Sequence[Sequence[str]]) -> None:
        """Tell each worker where that of each party listens, and wait until they all have linked up."""
        fellows = await self.addresses()
        for line, of_parties in zip(self._lines, addresses, strict=True):
            line.post(["link", list(of_parties), fellows])
        await self._news.until(lambda: len(self._ready) == self.workers)

    def share_out(self, session: Session, in_parts: Mapping[int, ValueInParts]) -> Task:
        """What the crew does of a session, for the node to begin; workers write what is `in_parts`.

        That is by nodes that store it. Raises PeerLost if a worker is lost.
        """
        if self.lost is not None:
            raise PeerLost(str(self.lost), peer=self.lost.peer)
        task = self._tasks[session.name] = Task(self, session, in_parts)
        return task

    def take(self, number: int, message: list[Any], payload: Words | None) -> None:
        """Handle what a worker says."""
        match message:
            case ["begun" | "value" | "written" | "ended" | "stop" as word, bytes(name), *rest]:
                task = self._tasks.get(name)
                if task is not None:
                    task.hear(number, word, rest, payload)
            case ["here", str(address)]:
                self._addresses[number] = address
                self._news.tell()
            case ["lost", dict(error)]:
                raise from_wire(error)
            case ["ready"]:
                self._ready.add(number)
                self._news.tell()
            case _:
                raise ProtocolError(
                    f"{worker_name(self.index, number)} said {message[0]!r:.40}, as no worker does"
                )

    def over(self, name: bytes, error: dict[str, Any] | None) -> None:
        """Forget a session; workers that still run it stop."""
        if self._tasks.pop(name, None) is not None and error is not None:
            for line in self._lines:
                line.post(["stop", name, error])

    def under_way(self, name: Any) -> bool:
        """Whether a session of that name is shared out now."""
        return name in self._tasks

    async def send(self, number: int, name: bytes, parcels: Sequence[Parcel | Handover]) -> None:
        """Send parcels of a session to a worker. Raises PeerLost."""
        await post_parcels(self._lines[number], name, parcels)

    def post_to(self, number: int, message: list[Any]) -> None:
        """Say something to a worker."""
        self._lines[number].post(message)

    def post(self, message: list[Any]) -> None:
        """Say something to all workers."""
        for line in self._lines:
            line.post(message)


class Task:
    """One session that a crew is at work on."""

    def __init__(self, crew: Crew, session: Session, in_parts: Mapping[int, ValueInParts]) -> None:
        self.session = session
        self._crew = crew
        self._in_parts = in_parts
        self._begun = [trio.Event() for _ in range(crew.workers)]
        self._ended: dict[int, tuple[int, int]] = {}
        self._all_ended = trio.Event()

    @property
    def part(self) -> Part:
        """What the node itself takes of it."""
        return Part(NODE, self._crew.workers, self._send, self._begin, in_parts=self._in_parts)

    def _begin(self) -> None:
        """The node's own run takes values from now on: have the workers begin theirs."""
        packed = self.session.plan.to_bytes()
        for number in range(self._crew.workers):
            places = [[index, value.places[number]] for index, value in self._in_parts.items()]
            self._crew.post_to(number, ["run", self.session.name, packed, places])

    async def _send(self, parcels: Parcels) -> None:
        async with plain_errors(), trio.open_nursery() as nursery:
            for number, some in parcels.items():
                nursery.start_soon(self._send_to, number, some)

    async def _send_to(self, number: int, parcels: Sequence[Parcel | Handover]) -> None:
        await self._begun[number].wait()
        await self._crew.send(number, self.session.name, parcels)

    def hear(self, number: int, word: str, rest: list[Any], payload: Words | None) -> None:
        """A worker says something of it."""
        match word, rest:
            case "begun", []:
                self._begun[number].set()
            case "value", _ if payload is not None:
                self.session.receive(Parcel.read(rest, payload))
            case "value", _:
                name = worker_name(self._crew.index, number)
                what = f"the node has no room, in memory or its scratch, for what {name} has made"
                self.session.fail(ProtocolError(what))
            case "written", [int(index), int(_), int(depth), dict(symbols), list(tiles), *about]:
                written = Written(tuple(tiles), *about)
                self.session.receive(Parcel((index, 0), number, 0, depth, written, symbols))
            case "ended", [int(rounds), int(sent)]:
                self._ended[number] = rounds, sent
                if len(self._ended) == self._crew.workers:
                    self._all_ended.set()
            case "stop", [dict(error)]:
                self.session.fail(from_wire(error).heard(worker_name(self._crew.index, number)))
            case _:
                raise ProtocolError(f"{worker_name(self._crew.index, number)} sent a malformed {word!r}")

    async def end(self, statistics: Statistics, patience: float) -> None:
        """Tell the workers that the node has all that it waits for, and add what the run has cost them."""
        self._crew.post(["end", self.session.name])
        with trio.move_on_after(patience):
            await self._all_ended.wait()
        missing = [number for number in range(self._crew.workers) if number not in self._ended]
        if missing:
            name = worker_name(self._crew.index, missing[0])
            raise PeerLost(f"{name} did not end its share of a run within {patience:.3g} s", peer=name)
        statistics.rounds = max(statistics.rounds, *(rounds for rounds, _ in self._ended.values()))
        statistics.bytes_sent += sum(sent for _, sent in self._ended.values())


@attrs.frozen(eq=False)
class _Ear:
    """What takes the messages of one worker; see `line.Receiver`."""

    crew: Crew
    number: int

    def admit(self, message: list[Any], size: int) -> bool:
        """A worker holds nothing that the node may not hold, while that runs what it belongs to."""
        _ = size
        return message[0] == "value" and len(message) > 1 and self.crew.under_way(message[1])

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message."""
        self.crew.take(self.number, message, payload)
