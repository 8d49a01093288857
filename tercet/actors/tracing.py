"""What the parties did and when, for Chrome's trace viewer (chrome://tracing, ui.perfetto.dev).

While a trace is on, schedulers note every step of an instance, every wait for the network and every frame
they send. Times are on the wall clock, so that the parties of one machine, or of machines that keep time,
line up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as Interface

import attrs

from tercet.actors.parts import Handover, Parcel, Parcels, Part
from tercet.actors.values import Outcome, Stored
from tercet.plans.plan import Plan
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words

MOST_EVENTS = 100_000
"""Events that a party keeps, since they fit one message; later ones are dropped."""

_CLOCK = time.time() - time.perf_counter()

Message = tuple[int, int, int, Sequence[Words]]
"""What an instance sends to one peer in one step: (node, tile, step, arrays)."""


@attrs.frozen
class TraceEvent:
    """A step or a wait of an instance, or a frame sent: seconds since 1970 and their length.

    `thread` tells worker threads apart (0 is the event loop). A frame has a peer and the bytes of its
    payload.
    """

    what: Literal["step", "wait", "frame"]
    name: str
    tile: int
    step: int
    start: float
    seconds: float
    thread: int = 0
    peer: int = -1
    size: int = 0


class Witness(Interface):
    """Who is shown all that a run at one party, or at one member of it, hears and says; see `transcript`."""

    def begin(self) -> None:
        """The run begins."""

    def hear(self, peer: int, node: int, tile: int, step: int, arrays: Sequence[Words]) -> None:
        """A peer's message to an instance has come; before `begin` for those that came early."""

    def receive(self, parcel: Parcel | Handover) -> None:
        """A parcel of another member of the party has come, as early."""

    def say(self, outbox: Mapping[int, Sequence[Message]], parcels: Parcels) -> None:
        """What is about to be sent: messages by peer, and parcels by member of the party."""

    def end(self, outcome: Outcome) -> None:
        """The run has ended well."""


MakeWitness = Callable[[Plan, Protocol, Mapping[str, Stored], Part | None], Witness | None]
"""Makes the witness of a run, or of the part of it that a member takes; None where nobody is to watch."""


class Recorder:
    """Where one run notes its events; does nothing without a list."""

    def __init__(self, events: list[TraceEvent] | None) -> None:
        self._events = events
        self._loop = threading.get_ident()

    @property
    def on(self) -> bool:
        """Whether events are kept."""
        return self._events is not None and len(self._events) < MOST_EVENTS

    def note(
        self,
        what: Literal["step", "wait", "frame"],
        name: str,
        tile: int,
        step: int,
        began: float,
        *,
        peer: int = -1,
        size: int = 0,
    ) -> None:
        """Keep an event that began at `began` (of time.perf_counter) and ends now."""
        if self._events is None or not self.on:
            return
        ident = threading.get_ident()
        thread = 0 if ident == self._loop else ident
        seconds = time.perf_counter() - began
        self._events.append(TraceEvent(what, name, tile, step, _CLOCK + began, seconds, thread, peer, size))


def chrome_trace(parties: Sequence[Sequence[Sequence[Any]]]) -> dict[str, Any]:
    """Chrome's trace-event form of each party's events, as `Client.trace` returns them."""
    read = [[TraceEvent(*fields) for fields in events] for events in parties]
    zero = min((event.start for events in read for event in events), default=0.0)
    found: list[dict[str, Any]] = []
    for party, events in enumerate(read):
        found += _of_party(party, events, zero)
    return {"traceEvents": found, "displayTimeUnit": "ms"}


def _of_party(party: int, events: Sequence[TraceEvent], zero: float) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": party, "args": {"name": f"party {party}"}}
    lanes = {0: 0}
    for number, event in enumerate(events):
        at = {"pid": party, "ts": (event.start - zero) * 1e6}
        args: dict[str, Any] = {"tile": event.tile, "step": event.step}
        if event.what == "step":
            lane = lanes.setdefault(event.thread, len(lanes))
            yield {
                "ph": "X",
                "name": event.name,
                "cat": "step",
                "tid": lane,
                "dur": event.seconds * 1e6,
                "args": args,
                **at,
            }
        elif event.what == "wait":
            # Waits overlap, so they are asynchronous events with an identity of their own.
            ends = (event.start + event.seconds - zero) * 1e6
            same = {"name": event.name, "cat": "wait", "id": f"{party}.{number}", "tid": 0}
            yield {"ph": "b", "args": args, **same, **at}
            yield {"ph": "e", **same, **at, "ts": ends}
        else:
            args = {"bytes": event.size, "messages": event.tile, "to": f"party {event.peer}"}
            yield {"ph": "i", "s": "p", "name": event.name, "cat": "frame", "tid": 0, "args": args, **at}
    for thread, lane in lanes.items():
        name = "event loop" if thread == 0 else f"worker {lane}"
        yield {"ph": "M", "name": "thread_name", "pid": party, "tid": lane, "args": {"name": name}}


def write_chrome_trace(path: str | Path, parties: Sequence[Sequence[Sequence[Any]]]) -> None:
    """Write the events of all parties to a JSON file for the trace viewer."""
    Path(path).write_text(json.dumps(chrome_trace(parties)))
