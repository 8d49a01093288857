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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import attrs
import trio

from tercet.actors.arrivals import WORD_ROWS, Piece
from tercet.actors.hello import Hello, greet
from tercet.actors.pages import Paged
from tercet.actors.progress import Progress, Watch, follow
from tercet.actors.values import read_type, type_fields
from tercet.client.answers import agreed, combined, most_revealed, verdict
from tercet.client.collecting import collecting_seldom
from tercet.client.connection import Answer, Connection, Request
from tercet.errors import PeerLost, PlanError, ProtocolError, SpentError, TercetError
from tercet.plans.parsing import read_plan
from tercet.plans.passes import optimise
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.plans.types import TILE_ROWS, Form, Type, word_shape
from tercet.protocols.base import Protocol
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Link
from tercet.transports.names import CLIENT, party_name

logger = logging.getLogger(__name__)
T = TypeVar("T")

Asked = Callable[[bytes], bytes]
"""How nodes that make plans themselves are asked for one, by the digest that the client's has."""
SESSION_BYTES = 16
GRACE_S = 0.5
"""How long other nodes may add their view after the first error."""
BIG_PLAN = 100
"""Plans of more nodes are optimised in a thread, so that answers of the nodes are read meanwhile."""
PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
"""Pauses between attempts to link up with lost nodes: each twice the one before."""
MOST_ATTEMPTS = 16
"""How often a run is submitted anew that may not go on."""
PIECE_BYTES = 1 << 25
"""About so much of a value is dealt at a time."""


@attrs.frozen
class Submitted:
    """What a job is: the latest of its plans, how that was asked for, and how many there were."""

    plan: Plan
    asked: bytes = attrs.field(repr=False)
    steps: int


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
        number: int = 0,
    ) -> None:
        self.protocol = protocol
        self.mend: Callable[[], Awaitable[None]] | None = None
        """Makes lines anew that have ended, before the next request. Raises PeerLost or TransportError."""
        self.patience_s = 0.0
        """How long lost nodes have to come back, and this client to wait again for what it has submitted."""
        self.goes_by = lake, number
        """What it says of the lake when it says hello: the digest of the lake's file, and its number."""
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
        number: int = 0,
    ) -> Client:
        """Say hello to every node and start to read their answers. Raises PeerLost or TransportError."""
        client = cls(protocol, links, timeout_s=timeout_s, tile_rows=tile_rows, lake=lake, number=number)
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
        mine = Hello(CLIENT, self.protocol.name, self.parties, *self.goes_by)
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
        asked: Asked | None = None,
    ) -> RunResult:
        """Run a plan at all nodes and put together what it reveals; `watch` is told how far it is.

        The plan is submitted as a job that is attended, and ends when this call is cancelled. `session` is
        the run's name, by default a random one. Nodes that make plans themselves are `asked` for this one.
        One that may not go on after it was interrupted is submitted anew, so owners are asked again.

        Raises PeerLost if a node is lost for longer than this client waits, and whatever else the nodes
        report; then nothing is stored.
        """
        plan = await self._optimised(plan)
        moved, began = self.bytes_moved, time.perf_counter()
        session = session or secrets.token_bytes(SESSION_BYTES)
        packed = plan.to_bytes() if asked is None else asked(plan.digest())
        stored = [str(node.get("handle")) for node in plan.nodes if node.kind == "store"]
        try:
            for spent in range(MOST_ATTEMPTS):
                try:
                    answers = await self._attend(session, packed, plan, watch)
                except SpentError as error:
                    logger.warning("plan %r is submitted anew: %s", plan.name, error)
                    self._let_go(session)
                    if stored:
                        await self._patiently(f"plan {plan.name!r}", lambda _: self.drop(stored))
                    session = secrets.token_bytes(SESSION_BYTES)
                else:
                    self._let_go(session)
                    return self._result(plan, answers, moved, began, before=spent)
        except BaseException:
            self._let_go(session)
            self._forget(stored)
            raise
        raise PeerLost(
            f"plan {plan.name!r} was interrupted {MOST_ATTEMPTS} times; look at the logs of the nodes",
            peer=party_name(0),
        )

    async def _attend(self, session: bytes, packed: bytes, plan: Plan, watch: Watch | None) -> list[Answer]:
        """Submit a job, wait for it, and wait for it again whenever a node was lost."""
        most = most_revealed(self.protocol, plan)

        async def ask(again: bool) -> list[Answer]:
            with self._watched(session, plan, watch):
                request = Request("submit", [session, packed, self.patience_s, again], most=most)
                return await self._ask_all([request] * self.parties)

        return await self._patiently(f"plan {plan.name!r}", ask)

    def _let_go(self, session: bytes) -> None:
        """Have the nodes end a job, or forget what it gave; they do so by themselves where nobody waits."""
        if self.patience_s:
            self.post("end", [session])

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

    async def submitted(self, session: bytes, *, ended: bool = False) -> Submitted:
        """What was submitted under a name; with `ended`, once it has ended, or what it has failed with.

        Raises PlanError if there is none.
        """
        found: set[tuple[int, bytes, bytes]] = set()
        for one in await self.ask("job", [session, *([True] if ended else [])]):
            found.add((int(one.get("steps", 0)), bytes(one.get("packed", b"")), bytes(one.get("asked", b""))))
        if len({steps for steps, *_ in found}) < len(found) or (ended and len(found) > 1):
            raise ProtocolError(
                f"the nodes differ on what plan job {session.hex()[:8]} is; look at their logs"
            )
        steps, packed, asked = min(found)  # of several plans, some nodes may be at the next one
        return Submitted(read_plan(packed), asked, steps)

    async def fetch(self, session: bytes, watch: Watch | None = None) -> RunResult:
        """Wait for what was submitted, and put together what its last plan reveals. Raises as `run`."""
        return await self.fetch_step(session, (await self.ended(session, watch)).plan)

    async def ended(self, session: bytes, watch: Watch | None = None) -> Submitted:
        """Wait until a job has ended; what it was in the end. Raises what it has failed with."""

        async def ask(_: bool) -> Submitted:
            begun = await self.submitted(session)
            with self._watched(session, begun.plan, watch):
                return await self.submitted(session, ended=True)

        return await self._patiently(f"job {session.hex()[:8]}", ask)

    async def fetch_step(self, session: bytes, plan: Plan, step: int | None = None) -> RunResult:
        """What a plan of a job has revealed, the last one by default. Raises as `run`."""
        moved, began = self.bytes_moved, time.perf_counter()
        args = [session] if step is None else [session, step]
        request = Request("fetch", args, most=most_revealed(self.protocol, plan))

        async def ask(_: bool) -> list[Answer]:
            return await self._ask_all([request] * self.parties)

        answers = await self._patiently(f"job {session.hex()[:8]}", ask)
        return self._result(plan, answers, moved, began)

    async def _patiently(self, what: str, ask: Callable[[bool], Awaitable[T]]) -> T:
        """Ask, and ask again when this client has lost a node and it is back; `ask` is told whether it is so.

        All that becomes of a job is the nodes' to decide. Raises PeerLost when patience has run out, or the
        nodes have said so themselves.
        """
        losses = 0
        while True:
            try:
                return await ask(losses > 0)
            except PeerLost as error:
                if not (self.lost and self.patience_s):
                    raise
                await self._until_back(error, what, losses)
                losses += 1

    async def _until_back(self, error: PeerLost, what: str, losses: int) -> None:
        """Wait until this client is linked up with all nodes. Raises PeerLost with what is wrong."""
        logger.warning(
            "%s was interrupted: %s. Waiting for up to %g s until all nodes are back",
            what,
            str(error).rstrip("."),
            self.patience_s,
        )
        pause, problem = min(PAUSE_S * 2 ** min(losses, MOST_ATTEMPTS), LONGEST_PAUSE_S), "no node was asked"
        with trio.move_on_after(self.patience_s):
            while problem:
                await trio.sleep(pause)
                pause, problem = min(2 * pause, LONGEST_PAUSE_S), await self._problem()
            return
        raise PeerLost(
            f"{str(error).rstrip('.')}; {what} waited for {self.patience_s:g} s, and {problem}",
            peer=error.peer,
        ) from error

    async def _problem(self) -> str:
        """Why this client is not linked up with all nodes, or nothing."""
        try:
            if self.mend is not None:
                await self.mend()
            self._check_nodes()
        except TercetError as error:
            return str(error)
        return ""

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
        async def ask() -> list[Progress]:
            return [Progress.read(body) for body in await self.ask("progress", [session])]

        with scope:
            await follow(plan, watch, ask, protocol=self.protocol.name, parties=self.parties)

    async def _optimised(self, plan: Plan) -> Plan:
        """The plan as it is sent. Raises PlanError if its tiles are not those of the nodes' values."""
        if plan.tile_rows != self.tile_rows:
            raise PlanError(
                f"the plan has tiles of {plan.tile_rows} rows, the nodes' values have {self.tile_rows}"
            )
        big = len(plan.nodes) > BIG_PLAN
        with collecting_seldom():
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
            raise verdict(errors)
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

    def _result(
        self, plan: Plan, answers: Sequence[Answer], moved: int, began: float, *, before: int = 0
    ) -> RunResult:
        bodies = [answer.body for answer in answers]
        try:
            statistics, body = [body["statistics"] for body in bodies], agreed(plan.name, answers)
            return RunResult(
                revealed=combined(self.protocol, answers),
                stored={handle: read_type(fields) for handle, fields in body["stored"].items()},
                symbols={str(name): int(number) for name, number in body["symbols"].items()},
                rounds=max(int(one["rounds"]) for one in statistics),
                bytes_sent=tuple(int(one["bytes_sent"]) for one in statistics),
                client_bytes=self.bytes_moved - moved,
                seconds=time.perf_counter() - began,
                disclosed=tuple(plan.disclosures()),
            ).after(before + max(int(body["interrupted"]) for body in bodies))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ProtocolError(
                f"the nodes' answers to plan {plan.name!r} make no sense: {error!r}"
            ) from error


def piece_rows(kind: Type, tile_rows: int) -> int:
    """How many rows of a value are dealt at a time: whole tiles, at least one."""
    width = WORD_BYTES * math.prod(word_shape(kind, {})[:-1])
    return tile_rows * max(1, PIECE_BYTES // max(1, width * tile_rows))
