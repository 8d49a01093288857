"""The client: deals values to all nodes, has them run plans, and puts their answers together.

It is the only place where a secret is whole: an owner's values before they are dealt, and what a plan
reveals. A client holds one line to every node; requests carry numbers, so that several can be under way.
Whatever ends a request early (an error, a node that is lost, the caller's own cancellation) takes it back at
all nodes, so nothing goes on running for nobody.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import trio

from tercet.actors.arrivals import WORD_ROWS, Piece
from tercet.actors.hello import Hello, greet
from tercet.actors.pages import Paged
from tercet.actors.progress import Forecast, Progress, Watch
from tercet.actors.values import read_type, type_fields
from tercet.client.connection import Answer, Connection, Request
from tercet.errors import PeerLost, PlanError, ProtocolError, StorageError, TercetError
from tercet.plans.parsing import read_plan
from tercet.plans.passes import Since, optimise
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.plans.types import TILE_ROWS, Form, Type, word_shape
from tercet.protocols.base import Protocol
from tercet.protocols.domains import WORD_BYTES, Words, decode
from tercet.transports import Link
from tercet.transports.names import CLIENT, party_name

logger = logging.getLogger(__name__)

Asked = Callable[[bytes], bytes]
"""How nodes that make plans themselves are asked for one, by the digest that the client's has."""
SESSION_BYTES = 16
GRACE_S = 0.5
"""How long other nodes may add their view after the first error."""
BIG_PLAN = 100
"""Plans of more nodes are optimised in a thread, so that answers of the nodes are read meanwhile."""
WATCHED_AFTER_S = 1.0
WATCH_EVERY_S = 0.4
"""How long a run takes before it is watched, and how often its nodes are asked how far it is."""
PIECE_BYTES = 1 << 25
"""About so much of a value is dealt at a time."""
DIGEST_WORDS = 64
"""Words that a node's part of a revealed value may have besides the shares that it holds."""


class Client:
    """A client of all nodes of a cluster. Make it with `connect`, inside a nursery that outlives it."""

    def __init__(
        self,
        protocol: type[Protocol],
        links: Sequence[Link],
        *,
        timeout_s: float,
        tile_rows: int = TILE_ROWS,
        lake: bytes = b"",
    ) -> None:
        self.protocol = protocol
        self.mend: Callable[[], Awaitable[None]] | None = None
        """Makes lines anew that have ended, before the next request. Raises PeerLost or TransportError."""
        self._lake = lake
        self._timeout_s = timeout_s
        self._moved_before = 0
        self.parties = len(links)
        self.tile_rows = tile_rows
        self._nodes = [Connection(index, link, timeout_s) for index, link in enumerate(links)]

    @classmethod
    async def connect(
        cls,
        protocol: type[Protocol],
        links: Sequence[Link],
        *,
        nursery: trio.Nursery,
        timeout_s: float = 6.0,
        tile_rows: int = TILE_ROWS,
        lake: bytes = b"",
    ) -> Client:
        """Say hello to every node and start to read their answers. Raises PeerLost or TransportError."""
        client = cls(protocol, links, timeout_s=timeout_s, tile_rows=tile_rows, lake=lake)
        for index, link in enumerate(links):
            await client._greet(index, link)
        client.start(nursery)
        return client

    def start(self, nursery: trio.Nursery) -> None:
        """Read what the nodes answer."""
        self._nursery = nursery
        for node in self._nodes:
            nursery.start_soon(node.run)

    async def _greet(self, index: int, link: Link) -> None:
        mine = Hello(CLIENT, self.protocol.name, self.parties, self._lake)
        theirs = await greet(link, mine, timeout_s=self._timeout_s)
        if theirs.role != party_name(index):
            raise ProtocolError(
                f"{theirs.role} answered where {party_name(index)} was expected; correct the addresses"
            )
        link.peer = theirs.role

    @property
    def lost(self) -> list[int]:
        """The nodes that this client has no line to any more."""
        return [node.index for node in self._nodes if node.line.lost is not None]

    async def relink(self, index: int, link: Link) -> None:
        """Talk to a node that was lost over a new link. Raises PeerLost or TransportError, as `connect`."""
        await self._greet(index, link)
        self._moved_before += self._nodes[index].bytes_moved
        node = self._nodes[index] = Connection(index, link, self._timeout_s)
        self._nursery.start_soon(node.run)

    @property
    def bytes_moved(self) -> int:
        """Bytes that passed between this client and the nodes, both ways."""
        return self._moved_before + sum(node.bytes_moved for node in self._nodes)

    # -- what a client asks ----------------------------------------------------------------------------------

    async def put(self, handle: str, kind: Type, words: Words) -> None:
        """Deal a value to the nodes, who keep it under `handle`; where they can, sharings travel as seeds."""
        words = words.reshape(word_shape(kind, {}))
        per_word = WORD_ROWS if kind.form is Form.BITS else 1

        def rows(start: int, stop: int) -> Words:
            return words[..., start // per_word : -(-stop // per_word)] if kind.shape else words

        await self.put_rows(handle, kind, rows)

    async def put_rows(
        self,
        handle: str,
        kind: Type,
        rows: Callable[[int, int], Words],
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Deal a value that need not fit in memory: `rows(start, stop)` gives those rows of it, in a thread.

        It is asked for a piece at a time, from the first row to the last; packed booleans as words. `watch`
        is told how many words of it were dealt with each piece.
        """
        step = piece_rows(kind, self.tile_rows)
        total = int(kind.rows)
        try:
            for start in range(0, max(1, total), step):
                piece = Piece(kind, self.tile_rows, start, min(step, total - start))
                dealt = await trio.to_thread.run_sync(self._deal, piece, rows)
                args = [handle, type_fields(kind), self.tile_rows, piece.start, piece.rows]
                await self._ask_all([Request("put", args, parts) for parts in dealt])
                if watch is not None:
                    watch(math.prod(word_shape(piece.own_type, {})))
        except BaseException:
            self._forget([handle])
            raise

    def _deal(self, piece: Piece, rows: Callable[[int, int], Words]) -> list[list[Words]]:
        words = rows(piece.start, piece.start + piece.rows).reshape(word_shape(piece.own_type, {}))
        return self.protocol.deal(words, domain=piece.type.form.domain, parties=self.parties)

    async def run(
        self,
        plan: Plan,
        watch: Watch | None = None,
        *,
        session: bytes | None = None,
        since: Since | None = None,
        asked: Asked | None = None,
    ) -> RunResult:
        """Run a plan at all nodes and put together what it reveals; `watch` is told how far it is.

        `session` is the run's name, by default a random one, and `since` a checkpoint to go on from. Nodes
        that make plans themselves are `asked` for this one.

        Raises PeerLost if a node is lost, and whatever else the nodes report; then nothing is stored.
        """
        plan = await self._optimised(plan)
        moved, began = self.bytes_moved, time.perf_counter()
        session = session or secrets.token_bytes(SESSION_BYTES)
        verb, more = ("run", ()) if since is None else ("resume", since)
        packed = plan.to_bytes() if asked is None else asked(plan.digest())
        request = Request(verb, [session, packed, *more], most=self._most_revealed(plan))
        try:
            with self._watched(session, plan, watch):
                answers = await self._ask_all([request] * self.parties)
            return self._result(plan, answers, moved, began)
        except BaseException:
            self._forget([node.get("handle") for node in plan.nodes if node.kind == "store"])
            raise

    async def submit(self, plan: Plan, asked: Asked | None = None) -> bytes:
        """Have all nodes run a plan whether or not this client stays; the name under which to `fetch` it.

        Nodes that make plans themselves are `asked` for this one.
        """
        plan = await self._optimised(plan)
        session = secrets.token_bytes(SESSION_BYTES)
        try:
            packed = plan.to_bytes() if asked is None else asked(plan.digest())
            await self.ask("submit", [session, packed])
        except BaseException:
            self.post("end", [session])
            raise
        return session

    async def submitted(self, session: bytes) -> tuple[Plan, bytes]:
        """The plan that was submitted under a name, and as what. Raises PlanError if there is none."""
        told = await self.ask("job", [session])
        packed = {(bytes(one.get("packed", b"")), bytes(one.get("asked", b""))) for one in told}
        if len(packed) != 1:
            raise ProtocolError(
                f"the nodes differ on what plan job {session.hex()[:8]} is; look at their logs"
            )
        plan, asked = packed.pop()
        return read_plan(plan), asked

    async def fetch(self, session: bytes, watch: Watch | None = None) -> RunResult:
        """Wait for a plan that was submitted, and put together what it reveals. As `run`."""
        moved, began = self.bytes_moved, time.perf_counter()
        plan, _ = await self.submitted(session)
        request = Request("fetch", [session], most=self._most_revealed(plan))
        with self._watched(session, plan, watch):
            answers = await self._ask_all([request] * self.parties)
        told = [answer.body.get("interrupted") for answer in answers]
        attempts = max((one for one in told if isinstance(one, int)), default=0)
        return self._result(plan, answers, moved, began).after(attempts)

    @contextlib.contextmanager
    def _watched(self, session: bytes, plan: Plan, watch: Watch | None) -> Iterator[None]:
        """Tell `watch` how far a run is while the caller waits for it."""
        scope = trio.CancelScope()
        if watch is not None:
            self._nursery.start_soon(self._follow, session, plan, watch, scope)
        try:
            yield
        finally:
            scope.cancel()

    async def _follow(self, session: bytes, plan: Plan, watch: Watch, scope: trio.CancelScope) -> None:
        """Ask the nodes how far a run is, a few times a second, once it has taken a while."""
        latency_s, begun = math.inf, False
        try:
            with scope:
                await trio.sleep(WATCHED_AFTER_S)
                forecast = await trio.to_thread.run_sync(
                    Forecast.of, plan, self.protocol.name, self.parties, abandon_on_cancel=True
                )
                while True:
                    asked = trio.current_time()
                    told = [Progress.read(body) for body in await self.ask("progress", [session])]
                    latency_s = min(latency_s, (trio.current_time() - asked) / 2)
                    reading = forecast.reading(told, latency_s)
                    if begun and not reading.begun:
                        return  # some nodes have answered already
                    begun = reading.begun
                    watch(reading)
                    await trio.sleep(WATCH_EVERY_S)
        except Exception as error:  # noqa: BLE001 - whoever looks on must not disturb the run, whose own errors tell
            logger.info("plan %s is no longer watched: %r", plan.name, error)

    async def _optimised(self, plan: Plan) -> Plan:
        """The plan as it is sent. Raises PlanError if its tiles are not those of the nodes' values."""
        if plan.tile_rows != self.tile_rows:
            raise PlanError(
                f"the plan has tiles of {plan.tile_rows} rows, the nodes' values have {self.tile_rows}"
            )
        big = len(plan.nodes) > BIG_PLAN
        return await trio.to_thread.run_sync(optimise, plan) if big else optimise(plan)

    async def drop(self, handles: Sequence[str]) -> None:
        """Have the nodes forget stored values."""
        await self._ask_all([Request("drop", [list(handles)])] * self.parties)

    async def ask(self, verb: str, args: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Ask every node the same; what each answers."""
        answers = await self._ask_all([Request(verb, args)] * self.parties)
        return [answer.body for answer in answers]

    async def ask_each(self, verb: str, args: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Ask every node the same in its own words, as the next page of a list; what each answers."""
        answers = await self._ask_all([Request(verb, own) for own in args])
        return [answer.body for answer in answers]

    async def ask_all_pages(self, verb: str) -> list[list[Any]]:
        """A list that nodes show in pages, as each of them has it."""
        lists = [Paged(verb) for _ in range(self.parties)]
        while any(one.more for one in lists):
            answers = await self.ask_each(verb, [[one.mark] for one in lists])
            for index, (one, told) in enumerate(zip(lists, answers, strict=True)):
                one.take(told, party_name(index))
        return [one.items for one in lists]

    async def trace(self, on: bool) -> list[list[list[Any]]]:
        """Start to record what every node does, or stop and return the events by node."""
        answers = await self._ask_all([Request("trace", [on])] * self.parties)
        return [answer.body.get("events", []) for answer in answers]

    # -- answers ---------------------------------------------------------------------------------------------

    async def _ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        """One request to each node; raises the error that explains best what went wrong."""
        if self.lost and self.mend is not None:
            await self.mend()
        self._check_nodes()
        answers: dict[int, Answer] = {}

        async def ask(index: int) -> None:
            answers[index] = await self._nodes[index].ask(requests[index])
            if answers[index].error is not None:
                grace.deadline = min(grace.deadline, trio.current_time() + GRACE_S)

        with trio.CancelScope() as grace:
            async with trio.open_nursery() as nursery:
                for index in range(self.parties):
                    nursery.start_soon(ask, index)
        errors = {index: answer.error for index, answer in answers.items() if answer.error is not None}
        if errors:
            self._check_nodes()
            raise _verdict(errors)
        return [answers[index] for index in range(self.parties)]

    def _check_nodes(self) -> None:
        """Raise PeerLost if this client has lost a node itself: no other view is as good."""
        for node in self._nodes:
            if node.line.lost is not None:
                raise node.error()

    def post(self, verb: str, args: Sequence[Any]) -> None:
        """Tell all nodes something, and wait for no answer."""
        for node in self._nodes:
            node.tell(verb, args)

    def _forget(self, handles: list[str]) -> None:
        """Have the nodes drop what a failed request may have left at some of them.

        Nobody waits for the answer.
        """
        if handles:
            self.post("drop", [handles])

    def _most_revealed(self, plan: Plan) -> int:
        words = 0
        for node in plan.nodes:
            if node.kind == "reveal":
                words += self.protocol.held * math.prod(word_shape(node.types[0], plan.maxima)) + DIGEST_WORDS
        return words * WORD_BYTES

    def _result(self, plan: Plan, answers: Sequence[Answer], moved: int, began: float) -> RunResult:
        bodies = [answer.body for answer in answers]
        try:
            statistics = [body["statistics"] for body in bodies]
            return RunResult(
                revealed=self._combine(answers),
                stored={handle: read_type(fields) for handle, fields in bodies[0]["stored"].items()},
                symbols={str(name): int(number) for name, number in bodies[0]["symbols"].items()},
                rounds=max(int(one["rounds"]) for one in statistics),
                bytes_sent=tuple(int(one["bytes_sent"]) for one in statistics),
                client_bytes=self.bytes_moved - moved,
                seconds=time.perf_counter() - began,
                disclosed=tuple(plan.disclosures()),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ProtocolError(
                f"the nodes' answers to plan {plan.name!r} make no sense: {error!r}"
            ) from error

    def _combine(self, answers: Sequence[Answer]) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        found: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
        starts = [0] * len(answers)
        for number, (name, _, fields, _) in enumerate(answers[0].body["revealed"]):
            kind = read_type(fields)
            parts = []
            for index, answer in enumerate(answers):
                arrays = []
                for shape in answer.body["revealed"][number][3]:
                    size = math.prod(shape)
                    arrays.append(answer.payload[starts[index] : starts[index] + size].reshape(shape))
                    starts[index] += size
                parts.append(arrays)
            words = self.protocol.combine(parts, domain=kind.form.domain, shape=word_shape(kind, {}))
            found[name] = decode(words, kind.scale) if kind.form is Form.RING else words
        return found


def piece_rows(kind: Type, tile_rows: int) -> int:
    """How many rows of a value are dealt at a time: whole tiles, at least one."""
    width = WORD_BYTES * math.prod(word_shape(kind, {})[:-1])
    return tile_rows * max(1, PIECE_BYTES // max(1, width * tile_rows))


def _verdict(errors: Mapping[int, TercetError]) -> TercetError:
    """The one error for the caller, of those that the nodes answered with.

    A cause other than a lost peer comes first, with the node if it is about a disk. Otherwise the accused is
    who most nodes have lost; if it answered itself, it lives, and the fault is between it and its accuser.
    """
    for index, error in errors.items():
        if isinstance(error, StorageError):
            return error.at(party_name(index))
        if not isinstance(error, PeerLost):
            return error
    accusations = {index: error for index, error in errors.items() if isinstance(error, PeerLost)}
    votes = Counter(error.peer for error in accusations.values())
    accused = max(votes, key=lambda name: votes[name])
    accuser, first = next((index, error) for index, error in accusations.items() if error.peer == accused)
    if any(party_name(index) == accused for index in accusations):
        return PeerLost(
            f"{party_name(accuser)} and {accused} lost each other, though both answer the client; "
            f"look at the network between them ({first})",
            peer=accused,
        )
    return first
