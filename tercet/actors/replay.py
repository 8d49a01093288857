"""A party, or one member of it, runs again alone: with the same keys, while what others said lies ready.

Since all randomness has names, a replay must say the very same words as the recorded run, and end in the same
shares; else something hangs on what it must not. And since it waits for nobody, the processor time that it
takes is what this share of the work takes, free of the load of all others (`python -m perf workers`).

A replay is not given what others said before it needs it, so it holds no more than the recorded run did: a
message of a peer comes when an instance waits for it and nothing else can step, a parcel of another member
once as much was said here as when it came.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import trio

from tercet.actors.line import first_cause
from tercet.actors.lowering import runs_in_lockstep
from tercet.actors.parts import Parcels, Part
from tercet.actors.rounds import Frames, Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.tracing import Message
from tercet.actors.transcript import Sayings, Tape
from tercet.actors.values import FiledTiles, Outcome, Stored
from tercet.errors import ProtocolError
from tercet.plans.shards import NODE
from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words


@attrs.frozen(eq=False)
class Replay:
    """What became of a party, or a member of it, that ran again alone.

    `processor_seconds` are those of all its threads, without what it takes to read and to check a recording.
    `differing` counts words of results unlike the recorded ones, `said_otherwise` messages and parcels that
    only one of both runs has sent.
    """

    seconds: float
    processor_seconds: float
    outcome: Outcome
    differing: int
    said_otherwise: int


async def _discard(outbox: Mapping[int, Sequence[Message]]) -> None:
    for messages in outbox.values():
        for *_, arrays in messages:
            for array in arrays:
                np.ascontiguousarray(array)
    await trio.lowlevel.checkpoint()


async def _discard_parcels(parcels: Parcels) -> None:
    for some in parcels.values():
        for parcel in some:
            parcel.to_wire()
    await trio.lowlevel.checkpoint()


class _Small(Lockstep):
    """A small plan's run, which hears what a tape has."""

    def __init__(
        self, tape: Tape, protocol: Protocol, inputs: Mapping[str, Stored], sayings: Sayings
    ) -> None:
        super().__init__(tape.plan, protocol, inputs, send=self._discard, witness=sayings)
        self._heard = {(one.sender, one.node, one.step): one.arrays for one in tape.heard}

    async def _discard(self, _: int, frames: Frames) -> None:
        await _discard({peer: [(0, 0, 0, arrays)] for peer, arrays in frames.items()})

    async def _frames(self) -> dict[int, Words]:
        await trio.lowlevel.checkpoint()
        found: dict[int, list[Words]] = {}
        for instance in self._active:
            for peer, shapes in instance.awaits.recv.items():
                if any(map(math.prod, shapes)):
                    name = (peer, instance.task.index, instance.step)
                    if name not in self._heard:
                        title = instance.task.node.title(instance.task.index)
                        raise ProtocolError(f"the recording lacks what party {peer} said of {title}")
                    found.setdefault(peer, []).extend(array.reshape(-1) for array in self._heard[name])
        return {peer: np.concatenate(arrays) for peer, arrays in found.items()}


class _Alone(Scheduler):
    """A run, or a member's share of it, which hears and receives what a tape has."""

    def __init__(
        self,
        tape: Tape,
        protocol: Protocol,
        inputs: Mapping[str, Stored],
        sayings: Sayings,
        threads: int,
    ) -> None:
        part = Part(tape.member, tape.workers, _discard_parcels) if tape.workers else None
        super().__init__(
            tape.plan, protocol, inputs, send=_discard, threads=threads, witness=sayings, part=part
        )
        self.reading_s = 0.0
        """Seconds of its thread that reading the tape has taken."""
        self._tape = tape
        self._sayings = sayings
        self._heard = {(one.sender, one.node, one.tile, one.step): one for one in tape.heard}
        self._due = deque(tape.received)
        self._to_say = tape.said.total()

    async def _until_changed(self) -> None:
        if self._tell():
            return
        with self._lock:
            at_work = self._busy or self._outbox or self._passing.has_some or self._ready.goes_on
            waiting = next(iter(self._waiting.values()), None)
        if not at_work and not self._changed.is_set():
            if self._member == NODE or self._sayings.count < self._to_say:
                what = "its next step" if waiting is None else waiting.node.title(waiting.name[0])
                raise ProtocolError(f"the recording lacks what others said that {what} waits for")
            self.end()
        await super()._until_changed()

    def _tell(self) -> bool:
        """Deliver what the run now needs; whether there was anything."""
        told = False
        while self._due and self._due[0].after <= self._sayings.count:
            began = time.thread_time()
            one = self._due.popleft()
            parcel = one.read()
            self.reading_s += time.thread_time() - began
            self.receive(parcel)
            told = True
        for sender, node, tile, step in self._awaited_messages():
            began = time.thread_time()
            arrays = list(self._heard.pop((sender, node, tile, step)).arrays)
            self.reading_s += time.thread_time() - began
            self.deliver(sender, node, tile, step, arrays)
            told = True
        return told

    def _awaited_messages(self) -> list[tuple[int, int, int, int]]:
        """Messages of the tape that instances wait for: (peer, node, tile, step)."""
        with self._lock:
            return [
                name
                for instance in self._waiting.values()
                for peer in instance.awaited or ()
                if (name := (peer, *instance.name, instance.step)) in self._heard
            ]


async def replay(tape: Tape, *, threads: int = 1) -> Replay:
    """Run a recorded party, or the member of it that a tape is of, alone; what it sends goes nowhere.

    Raises what its operations raise, and ProtocolError if the recorded run did not end.
    """
    made = registry.get(tape.protocol)(party=tape.party, parties=tape.parties, keys=tape.keys)
    made.groups = tape.groups
    sayings = Sayings()
    inputs = {handle: _in_memory(value) for handle, value in tape.inputs.items()}
    runner: _Alone | _Small
    if runs_in_lockstep(tape.plan):
        runner = _Small(tape, made, inputs, sayings)
    else:
        runner = _Alone(tape, made, inputs, sayings, threads)
    began, processor_began = time.perf_counter(), time.process_time()
    try:
        outcome = await runner.run()
    except BaseExceptionGroup as group:
        raise first_cause(group) from group
    seconds, processor_seconds = time.perf_counter() - began, time.process_time() - processor_began
    processor_seconds -= sayings.seconds
    if isinstance(runner, _Alone):
        processor_seconds -= runner.reading_s
    otherwise = (tape.said - sayings.said) + (sayings.said - tape.said)
    return Replay(seconds, processor_seconds, outcome, _differing(tape, outcome), otherwise.total())


def _in_memory(value: Stored) -> Stored:
    """A stored value of a tape as the node had it: in memory, or in files of its own."""
    return value if isinstance(value.tiles, FiledTiles) else attrs.evolve(value, tiles=list(value.tiles))


def _differing(tape: Tape, replayed: Outcome) -> int:
    if tape.stored is None or tape.stored.keys() != replayed.stored.keys():
        raise ProtocolError(
            f"the recorded run of plan {tape.plan.name!r} did not end, or stored something else"
        )
    return sum(
        int(np.count_nonzero(one.data != other.data))
        for handle, ours in tape.stored.items()
        for one, other in zip(ours.tiles, replayed.stored[handle].tiles, strict=True)
    )


__all__ = ["Replay", "replay"]
