"""`cores`: what a second core gives one party, free of the other parties' load.

Three parties on a machine of two cores keep both busy whatever a party does with its threads. So the work
runs once, in earnest, and everything that party 0 is given is recorded: plans, session keys, stored inputs,
and what peers send. Then that party runs alone, with the same keys, on one core and on two; its messages lie
in memory and are there as soon as it can take them, and what it sends goes nowhere. Since every random stream
follows from the keys, the replay must end in the very shares that the real run left, which is checked.

Threads alone would not do: with one worker thread a party has its event loop beside it. So a replay with
`threads=k` is also confined to k cores.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import numpy as np
import trio

import tercet
from perf import tables
from perf.report import Measured, median
from perf.train import Fit
from tercet.actors import party as party_module
from tercet.actors.plan import Plan
from tercet.actors.scheduler import Message, Scheduler
from tercet.actors.values import Outcome, Stored
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words

RECORDED_PARTY = 0
PATIENCE_S = 60.0


@attrs.define(eq=False)
class Recording:
    """One session of the recorded party: all that its scheduler was given, and what came out."""

    plan: Plan
    protocol: type[Protocol]
    parties: int
    keys: Mapping[int, bytes]
    inputs: dict[str, Stored]
    frames: list[tuple[int, int, int, int, list[Words]]] = attrs.field(factory=list)
    outcome: Outcome | None = None


@contextlib.contextmanager
def recording() -> Iterator[list[Recording]]:
    """While inside, sessions of party 0 in this process are recorded."""
    recordings: list[Recording] = []

    class Recorder(Scheduler):
        """A scheduler that notes what it is given."""

        def __init__(
            self, plan: Plan, protocol: Protocol, inputs: Mapping[str, Stored], **options: Any
        ) -> None:
            super().__init__(plan, protocol, inputs, **options)
            self._tape: Recording | None = None
            if protocol.party == RECORDED_PARTY:
                self._tape = Recording(
                    plan, type(protocol), protocol.parties, dict(protocol.keys), dict(inputs)
                )
                recordings.append(self._tape)

        def deliver(self, peer: int, node: int, tile: int, step: int, arrays: list[Words]) -> None:
            if self._tape is not None:
                self._tape.frames.append((peer, node, tile, step, arrays))
            super().deliver(peer, node, tile, step, arrays)

        async def run(self) -> Outcome:
            outcome = await super().run()
            if self._tape is not None:
                self._tape.outcome = outcome
            return outcome

    with mock.patch.object(party_module, "Scheduler", Recorder):
        yield recordings


async def replay(recorded: Recording, threads: int) -> tuple[float, Outcome]:
    """Run the recorded party alone; seconds and what came out."""

    async def discard(outbox: Mapping[int, Sequence[Message]]) -> None:
        for messages in outbox.values():
            for _, _, _, arrays in messages:
                for array in arrays:
                    np.ascontiguousarray(array)
        await trio.lowlevel.checkpoint()

    scheduler = Scheduler(
        recorded.plan,
        recorded.protocol(party=RECORDED_PARTY, parties=recorded.parties, keys=recorded.keys),
        recorded.inputs,
        send=discard,
        threads=threads,
    )
    for peer, node, tile, step, arrays in recorded.frames:
        scheduler.deliver(peer, node, tile, step, list(arrays))
    began = time.perf_counter()
    outcome = await scheduler.run()
    return time.perf_counter() - began, outcome


def differing_words(recorded: Outcome | None, replayed: Outcome) -> int:
    """Words of stored shares in which a replay differs from the run that was recorded."""
    if recorded is None or recorded.stored.keys() != replayed.stored.keys():
        raise RuntimeError("the recorded run did not end, or stored something else than its replay")
    differing = 0
    for handle, ours in recorded.stored.items():
        for one, other in zip(ours.tiles, replayed.stored[handle].tiles, strict=True):
            differing += int(np.count_nonzero(one.data != other.data))
    return differing


def confine(cores: Sequence[int]) -> None:
    """Keep all threads of this process to some cores; threads that they start inherit that."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


# -- the work --------------------------------------------------------------------------------------------


async def _record_join(rows: int) -> list[Recording]:
    left, right = tables.linkable(rows, 5)
    async with tercet.open_local(timeout_s=PATIENCE_S) as lake:
        ours, theirs = await tables.upload(lake, left, "left"), await tables.upload(lake, right, "right")
        with recording() as recordings:
            await ours.table.join(theirs.table, on=tables.KEY)
    return recordings


async def _record_training(rows: int) -> list[Recording]:
    async with tercet.open_local(timeout_s=PATIENCE_S) as lake:
        uploaded = await tables.upload(lake, tables.learnable(rows, 10), "owner")
        with recording() as recordings:
            fitted: Any = Fit().model().fit(uploaded.table, target=tables.TARGET)
            await fitted
    return recordings


WORK = {"join": _record_join, "train": _record_training}


def run(rows: int, repeat: int, threads: int, only: Sequence[str] = ()) -> Measured:
    """Record and replay every work; `speedup` is the least of them."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < threads:
        raise SystemExit(f"this process may use {len(available)} cores, {threads} are needed; allow it more")
    found, differing = {}, 0
    try:
        for name, record in WORK.items():
            if only and name not in only:
                continue
            confine(available)
            recordings = trio.run(record, rows)
            found[name], wrong = _replays(recordings, available, threads, repeat)
            differing += wrong
            del recordings
    finally:
        confine(available)
    return Measured(
        name="cores",
        seconds=sum(one["seconds_all_cores"] for one in found.values()),
        error=float(differing),
        error_of="words of stored shares that differ from the recorded run",
        speedup=min(one["speedup"] for one in found.values()),
        more={"rows": rows, "threads": threads, "repeat": repeat, **found},
    )


def _replays(
    recordings: Sequence[Recording], available: Sequence[int], threads: int, repeat: int
) -> tuple[dict[str, float], int]:
    """Alternate replays on one core and on all."""
    seconds: dict[int, list[float]] = {1: [], threads: []}
    differing = 0

    async def all_sessions(count: int) -> None:
        nonlocal differing
        taken = 0.0
        for recorded in recordings:
            spent, outcome = await replay(recorded, count)
            taken += spent
            differing += differing_words(recorded.outcome, outcome)
        seconds[count].append(taken)

    for _ in range(repeat):
        for count in seconds:
            confine(available[:count])
            trio.run(all_sessions, count)
    received = sum(array.nbytes for recorded in recordings for frame in recorded.frames for array in frame[4])
    one, more = median(seconds[1]), median(seconds[threads])
    return {
        "seconds_one_core": one,
        "seconds_all_cores": more,
        "speedup": one / more,
        "bytes_received": received,
    }, differing
