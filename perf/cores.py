"""`cores`: what a second core gives one party, free of the other parties' load.

Three parties on a machine of two cores keep both busy whatever a party does with its threads. So the work
runs once, in earnest, and everything that party 0 is given is recorded (see `tercet.actors.transcript`). Then
that party runs alone, with the same keys, on one core and on two; its messages lie in memory and are there as
soon as it can take them, and what it sends goes nowhere. Since every random stream follows from the keys, the
replay must end in the very shares that the real run left, which is checked.

Threads alone would not do: with one worker thread a party has its event loop beside it. So a replay with
`threads=k` is also confined to k cores.

Cores share memory and caches, virtual ones more than that. What k of them give at best is measured as well:
k processes replay the same at the same time, each on a core of its own, and share nothing but the machine.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

import tercet
from perf import tables
from perf.machine import WORD
from perf.report import Measured, median
from perf.train import Fit
from tercet.actors.transcript import Tape, recording, replay

RECORDED_PARTY = 0
PATIENCE_S = 60.0


def confine(cores: Sequence[int]) -> None:
    """Keep all threads of this process to some cores; threads that they start inherit that."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


# -- the work --------------------------------------------------------------------------------------------


async def _record_join(rows: int) -> list[Tape]:
    left, right = tables.linkable(rows, 5)
    async with tercet.open_local(timeout_s=PATIENCE_S) as lake:
        ours, theirs = await tables.upload(lake, left, "left"), await tables.upload(lake, right, "right")
        with recording([RECORDED_PARTY]) as recordings:
            await ours.table.join(theirs.table, on=tables.KEY)
    return recordings


async def _record_training(rows: int) -> list[Tape]:
    async with tercet.open_local(timeout_s=PATIENCE_S) as lake:
        uploaded = await tables.upload(lake, tables.learnable(rows, 10), "owner")
        with recording([RECORDED_PARTY]) as recordings:
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
    recordings: Sequence[Tape], available: Sequence[int], threads: int, repeat: int
) -> tuple[dict[str, float], int]:
    """Alternate replays on one core, on all, and by a process on each."""
    seconds: dict[int, list[float]] = {1: [], threads: []}
    apart: list[float] = []
    differing = 0
    for _ in range(repeat):
        for count in seconds:
            confine(available[:count])
            taken, wrong = trio.run(_replay_all, recordings, count)
            seconds[count].append(taken)
            differing += wrong
        apart.append(_apart(recordings, available[:threads]))
    received = WORD * sum(one.words for recorded in recordings for one in recorded.heard)
    one, more = median(seconds[1]), median(seconds[threads])
    return {
        "seconds_one_core": one,
        "seconds_all_cores": more,
        "speedup": one / more,
        "speedup_of_processes": threads * one / median(apart),
        "bytes_received": received,
    }, differing


async def _replay_all(recordings: Sequence[Tape], threads: int) -> tuple[float, int]:
    """Seconds of all sessions, and how many words differ."""
    replayed = [await replay(recorded, threads=threads) for recorded in recordings]
    return sum(one.seconds for one in replayed), sum(one.differing for one in replayed)


def _apart(recordings: Sequence[Tape], available: Sequence[int]) -> float:
    """Seconds of the slowest of several processes that replay the same at the same time, each on one core."""
    context = multiprocessing.get_context("fork")  # they share the recordings
    begin, taken = context.Barrier(len(available), timeout=PATIENCE_S), context.SimpleQueue()

    def alone(core: int) -> None:
        confine([core])
        begin.wait()
        taken.put(trio.run(_replay_all, recordings, 1)[0])

    with warnings.catch_warnings():
        # Threads that this process has do not run in the others; those of trio are made anew there.
        warnings.simplefilter("ignore", DeprecationWarning)
        processes = [context.Process(target=alone, args=(core,), daemon=True) for core in available]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a replay in a process of its own ended with exit code {process.exitcode}")
    return max(taken.get() for _ in processes)
