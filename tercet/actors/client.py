"""The client: deals values to all nodes, has them run plans, and puts their answers together.

It is the only place where a secret is whole: an owner's values before they are dealt, and what a plan reveals. A client holds
one link to every node; requests carry numbers, so that several can be under way, and a node that falls silent ends them all
with one error that names it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.node import CLIENT, greet, party_name, type_fields
from tercet.actors.party import read_type
from tercet.actors.plan import TILE_ROWS, Disclosure, Form, Plan, Type, word_shape
from tercet.errors import PeerLost, PlanError, ProtocolError, TercetError, from_wire
from tercet.protocols.base import Protocol
from tercet.protocols.domains import WORD_BYTES, Words, decode
from tercet.transports import Link
from tercet.transports.wire import pack_message, unpack_message

SESSION_BYTES = 16
GRACE_S = 0.5
"""How long other nodes may add their view after the first error."""


@attrs.frozen(eq=False)
class RunResult:
    """What a plan run gave: revealed numbers by name, types of stored values, symbols, cost, and what was disclosed.

    `bytes_sent` is the payload sent by each party; `client_bytes` what passed between client and nodes.
    """

    revealed: Mapping[str, np.ndarray[Any, np.dtype[Any]]]
    stored: Mapping[str, Type]
    symbols: Mapping[str, int]
    rounds: int
    bytes_sent: tuple[int, ...]
    client_bytes: int
    seconds: float
    disclosed: tuple[Disclosure, ...]


@attrs.define(eq=False)
class _Pending:
    done: trio.Event = attrs.field(factory=trio.Event)
    body: dict[str, Any] = attrs.field(factory=dict)
    payload: Words = attrs.field(factory=lambda: np.empty(0, dtype=np.uint64))
    error: TercetError | None = None


class _Connection:
    """A client's link to one node."""

    def __init__(self, index: int, link: Link, timeout_s: float) -> None:
        self.index = index
        self.link = link
        self.timeout_s = timeout_s
        self.lost: TercetError | None = None
        self._pending: dict[int, _Pending] = {}
        self._requests = 0
        self._writing = trio.Lock()

    async def request(self, verb: str, *args: Any, buffers: Sequence[Words] = ()) -> _Pending:
        """Ask the node, and wait for its answer; its error is in the answer."""
        if self.lost is not None:
            raise self.lost
        self._requests += 1
        number, pending = self._requests, _Pending()
        self._pending[number] = pending
        try:
            async with self._writing:
                await self.link.send(pack_message([verb, number, *args]), buffers)
            await pending.done.wait()
        except PeerLost as error:
            pending.error = error
        finally:
            self._pending.pop(number, None)
        return pending

    async def read(self) -> None:
        """Take answers until the link ends."""
        try:
            while True:
                await self._read_one()
        except TercetError as error:
            self.lost = error
            for pending in self._pending.values():
                pending.error = error
                pending.done.set()

    async def _read_one(self) -> None:
        with trio.move_on_after(self.timeout_s) as scope:
            header, size = await self.link.receive_header()
        if scope.cancelled_caught:
            raise PeerLost(
                f"{party_name(self.index)} was silent for {self.timeout_s:g} s, as the client saw it; it stalled or was "
                "cut off: look at that node and its network",
                peer=party_name(self.index),
            )
        message = unpack_message(header)
        payload = np.empty(size // WORD_BYTES, dtype=np.uint64)
        if size:
            await self.link.receive_payload(payload)
        if message[0] == "beat":
            return
        pending = self._pending.get(message[1])
        if pending is None:
            return  # the caller gave up on it
        if message[0] == "failed":
            pending.error = from_wire(message[2])
        else:
            pending.body, pending.payload = message[2], payload
        pending.done.set()


class Client:
    """A client of all nodes of a cluster. Make it with `connect`, inside a nursery that outlives it."""

    def __init__(self, protocol: type[Protocol], links: Sequence[Link], *, timeout_s: float, tile_rows: int) -> None:
        self.protocol = protocol
        self.parties = len(links)
        self.tile_rows = tile_rows
        self._nodes = [_Connection(index, link, timeout_s) for index, link in enumerate(links)]

    @classmethod
    async def connect(
        cls,
        protocol: type[Protocol],
        links: Sequence[Link],
        *,
        nursery: trio.Nursery,
        timeout_s: float = 6.0,
        tile_rows: int = TILE_ROWS,
    ) -> Client:
        """Say hello to every node and start to read their answers."""
        for link in links:
            with trio.move_on_after(timeout_s) as scope:
                await greet(link, role=CLIENT, protocol=protocol.name, parties=len(links))
            if scope.cancelled_caught:
                raise PeerLost(f"{link.peer} did not say hello within {timeout_s:g} s; see its log", peer=link.peer)
        client = cls(protocol, links, timeout_s=timeout_s, tile_rows=tile_rows)
        for node in client._nodes:  # noqa: SLF001
            nursery.start_soon(node.read)
        return client

    @property
    def bytes_moved(self) -> int:
        """Bytes that passed between this client and the nodes, both ways."""
        return sum(node.link.bytes_sent + node.link.bytes_received for node in self._nodes)

    async def _ask_all(self, requests: Sequence[tuple[list[Any], Sequence[Words]]]) -> list[_Pending]:
        """One request to each node; raises the error that explains best what went wrong."""
        answers: list[_Pending | None] = [None] * len(self._nodes)

        async def ask(index: int, scope: trio.CancelScope) -> None:
            args, buffers = requests[index]
            try:
                answer = await self._nodes[index].request(*args, buffers=buffers)
            except TercetError as error:
                answer = _Pending(error=error)
            answers[index] = answer
            if answer.error is not None:
                scope.deadline = min(scope.deadline, trio.current_time() + GRACE_S)

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for index in range(len(self._nodes)):
                    nursery.start_soon(ask, index, scope)
        errors = [answer.error for answer in answers if answer is not None and answer.error is not None]
        if errors:
            # A client that lost a node itself knows which; otherwise the nodes agree on the first error, which they passed on.
            raise next((node.lost for node in self._nodes if isinstance(node.lost, PeerLost)), errors[0])
        return [answer for answer in answers if answer is not None]

    async def put(self, handle: str, kind: Type, words: Words) -> None:
        """Deal a value to the nodes, who keep it under `handle`. Two thirds of the sharing travel as seeds where they can."""
        shape = word_shape(kind, {})
        dealt = self.protocol.deal(words.reshape(shape), domain=kind.form.domain, parties=self.parties)
        fields = type_fields(kind)
        await self._ask_all([(["put", handle, fields, self.tile_rows], parts) for parts in dealt])

    async def run(self, plan: Plan) -> RunResult:
        """Run a plan at all nodes and put together what it reveals.

        Raises PeerLost if a node is lost, and whatever else the nodes report.
        """
        if plan.tile_rows != self.tile_rows:
            raise PlanError(f"the plan has tiles of {plan.tile_rows} rows, the nodes' values have {self.tile_rows}")
        moved, began = self.bytes_moved, time.perf_counter()
        session, packed = secrets.token_bytes(SESSION_BYTES), plan.to_bytes()
        answers = await self._ask_all([(["run", session, packed], ()) for _ in self._nodes])
        bodies = [answer.body for answer in answers]
        statistics = [body["statistics"] for body in bodies]
        return RunResult(
            revealed=self._combine(answers),
            stored={handle: read_type(fields) for handle, fields in bodies[0]["stored"].items()},
            symbols=dict(bodies[0]["symbols"]),
            rounds=max(int(one["rounds"]) for one in statistics),
            bytes_sent=tuple(int(one["bytes_sent"]) for one in statistics),
            client_bytes=self.bytes_moved - moved,
            seconds=time.perf_counter() - began,
            disclosed=tuple(plan.disclosures()),
        )

    def _combine(self, answers: Sequence[_Pending]) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        found: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
        starts = [0] * len(answers)
        for number, (name, _, fields, _) in enumerate(answers[0].body["revealed"]):
            kind = read_type(fields)
            parts = []
            for index, answer in enumerate(answers):
                arrays = []
                for shape in answer.body["revealed"][number][3]:
                    size = int(np.prod(shape, dtype=np.int64))
                    arrays.append(answer.payload[starts[index] : starts[index] + size].reshape(shape))
                    starts[index] += size
                if any(array.size == 0 and 0 not in word_shape(kind, {}) for array in arrays):
                    raise ProtocolError(f"{party_name(index)} sent too little of the result {name!r}")
                parts.append(arrays)
            words = self.protocol.combine(parts, domain=kind.form.domain, shape=word_shape(kind, {}))
            found[name] = decode(words, kind.scale) if kind.form is Form.RING else words
        return found

    async def drop(self, handles: Sequence[str]) -> None:
        """Have the nodes forget stored values."""
        await self._ask_all([(["drop", list(handles)], ()) for _ in self._nodes])

    async def trace(self, on: bool) -> list[list[list[Any]]]:
        """Start to record what every node does, or stop and return the events by node."""
        answers = await self._ask_all([(["trace", on], ()) for _ in self._nodes])
        return [answer.body.get("events", []) for answer in answers]
