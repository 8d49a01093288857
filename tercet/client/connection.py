"""A client's line to one node: requests that carry numbers, so that several can be under way, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.line import Line
from tercet.client.node_processes import STOP_S
from tercet.errors import PeerLost, PlanError, ProtocolError, TercetError, from_wire
from tercet.protocols.domains import Words
from tercet.transports import Link


async def close_link(link: Link) -> None:
    """Hang up, within `STOP_S`, also while everything else is being cancelled."""
    with trio.move_on_after(STOP_S) as scope:
        scope.shield = True
        await link.aclose()


@attrs.define(eq=False)
class Answer:
    """What a node answered, or will: a body and a payload of at most `most` bytes, or an error."""

    most: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)
    body: dict[str, Any] = attrs.field(factory=dict)
    payload: Words = attrs.field(factory=lambda: np.empty(0, dtype=np.uint64))
    error: TercetError | None = None


@attrs.frozen(eq=False)
class Request:
    """A question to one node; `most` is the longest payload that its answer may have, in bytes."""

    verb: str
    args: Sequence[Any]
    buffers: Sequence[Words] = ()
    most: int = 0


class Connection:
    """A client's line to one node."""

    def __init__(self, index: int, link: Link, timeout_s: float) -> None:
        self.index = index
        self.line = Line(link, owner="the client", timeout_s=timeout_s, beats=False)
        self._under_way: dict[int, Answer] = {}
        self._requests = 0
        self._turned_away: TercetError | None = None

    @property
    def bytes_moved(self) -> int:
        """Bytes that passed, both ways."""
        return self.line.link.bytes_sent + self.line.link.bytes_received

    async def run(self) -> None:
        """Take answers until the line ends."""
        await self.line.run(self)
        for answer in self._under_way.values():
            answer.error = self.error()
            answer.done.set()

    def error(self) -> TercetError:
        """Why the line has ended: what the node said before it hung up, if it said anything."""
        told = self._turned_away
        return self.line.error() if told is None else from_wire(told.to_wire())

    async def ask(self, request: Request) -> Answer:
        """Ask the node, and wait for its answer; an error is in the answer.

        Cancelled, it takes the request back.
        """
        self._requests += 1
        number, answer = self._requests, Answer(request.most)
        self._under_way[number] = answer
        try:
            await self.line.send([request.verb, number, *request.args], request.buffers)
            await answer.done.wait()
        except PeerLost:
            answer.error = self.error()
            answer.done.set()
        finally:
            del self._under_way[number]
            if not answer.done.is_set():
                self.line.post(["cancel", number])
        return answer

    def tell(self, verb: str, args: Sequence[Any]) -> None:
        """Ask the node, and wait for no answer."""
        self._requests += 1
        self.line.post([verb, self._requests, *args])

    def admit(self, message: list[Any], size: int) -> bool:
        """Take the payload of an answer that somebody waits for."""
        if message[0] != "done":
            raise ProtocolError(
                f"{self.line.other} sent {size} bytes with a {message[0]!r} message, which has none"
            )
        answer = self._under_way.get(message[1])
        if answer is not None and size > answer.most:
            raise ProtocolError(
                f"{self.line.other} answers with {size} bytes where at most {answer.most} are due"
            )
        return answer is not None

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Hand an answer to who waits for it; one that nobody waits for was given up before it came."""
        match message:
            case ["done", int(number), dict(body)]:
                answer = self._under_way.get(number)
                if answer is not None and payload is None:
                    answer.error = PlanError("this machine has no memory for what the plan reveals")
                elif answer is not None and payload is not None:
                    answer.body, answer.payload = body, payload
            case ["failed", 0, dict(fields)]:
                answer, self._turned_away = None, from_wire(fields)
            case ["failed", int(number), dict(fields)]:
                answer = self._under_way.get(number)
                if answer is not None:
                    answer.error = from_wire(fields)
            case _:
                raise ProtocolError(f"{self.line.other} sent a message {message[0]!r} that no node sends")
        if answer is not None:
            answer.done.set()
