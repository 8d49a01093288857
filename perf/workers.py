"""`workers`: what workers give one party, each of its members alone on a core, free of everybody else's load.

Parties with workers on a machine of a few cores keep all of these busy, whatever a worker does. So the work
runs once, with all parties and workers as tasks of this process, and what party 0 and its workers are given
is recorded (see `tercet.actors.transcript`). Then each of them runs again by itself, in a process of its own,
with one thread, on one core; messages and parcels lie ready in a file, and what it sends goes nowhere. Since
all randomness follows from the keys, it must send the very words that it sent when it was recorded, and leave
the same shares, which is checked: else it would have done other work.

Seconds are of the processor, without those for reading and checking the recording. So they leave out what
links take; beside them stands how many bytes these carry. The first replay in a process warms it up, as nodes
and workers are warm, and its memory counts; the seconds are the least of those after it, since whatever else
the machine does meanwhile only adds to them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import tercet
from perf import tables
from perf.evaluate import small_model
from perf.lakes import PATIENCE_S
from perf.machine import MB, WORD, peaks_mb
from perf.report import Measured
from perf.train import Fit
from tercet.actors.replay import replay
from tercet.actors.transcript import Tape, recording
from tercet.compiled import load_all
from tercet.plans.shards import NODE
from tercet.protocols import registry
from tercet.testing.engines import Tasks

RECORDED_PARTY = 0
FEATURES = 10
JOINED_FEATURES = 5
"""Columns of both tables of a join, keys apart."""


@attrs.frozen
class Work:
    """What is recorded, once its tables are in the lake, and what a party's shares of them take."""

    run: Callable[[], Awaitable[Any]]
    shares_mb: float


async def _join(lake: tercet.AsyncLake, rows: int) -> Work:
    left, right = tables.linkable(rows, JOINED_FEATURES)
    ours, theirs = await tables.upload(lake, left, "left"), await tables.upload(lake, right, "right")
    join = functools.partial(ours.table.join, theirs.table, on=tables.KEY)
    return Work(join, ours.shares_mb + theirs.shares_mb)


async def _train(lake: tercet.AsyncLake, rows: int) -> Work:
    uploaded = await tables.upload(lake, tables.learnable(rows, FEATURES), "owner")
    fit: Any = functools.partial(Fit().model().fit, uploaded.table, target=tables.TARGET)
    return Work(fit, uploaded.shares_mb)


async def _evaluate(lake: tercet.AsyncLake, rows: int) -> Work:
    uploaded = await tables.upload(lake, tables.learnable(rows, FEATURES), "test")
    model = await small_model(lake, rows, FEATURES)

    async def evaluate() -> Any:
        evaluation = await model.evaluate(uploaded.table)
        return await evaluation.reveal()

    return Work(evaluate, uploaded.shares_mb)


WORKS = {"join": _join, "train": _train, "evaluate": _evaluate}


# -- recording -----------------------------------------------------------------------------------------------


async def _record(
    name: str, rows: int, workers: int, tile_rows: int | None, file: Path
) -> tuple[list[Tape], float]:
    """Tapes of party 0 and its workers, and the size of its shares of the tables."""
    async with _in_this_process(workers, tile_rows) as lake:
        work = await WORKS[name](lake, rows)
        with recording([RECORDED_PARTY], file=file) as tapes:
            await work.run()
    return tapes, work.shares_mb


@asynccontextmanager
async def _in_this_process(workers: int, tile_rows: int | None) -> AsyncIterator[tercet.AsyncLake]:
    options: dict[str, Any] = {} if tile_rows is None else {"tile_rows": tile_rows}
    if workers:
        options |= {"workers": workers, "engine": Tasks}
    async with tercet.open_local(timeout_s=PATIENCE_S, **options) as lake:
        yield lake


# -- replaying -----------------------------------------------------------------------------------------------


@attrs.frozen
class Alone:
    """What the share of one member took.

    Seconds of a processor, the peak of memory, and how many words and messages were unlike the recorded ones.
    """

    seconds: float
    peak_mb: float
    unlike: int


def replay_all(tapes: Sequence[Tape], repeat: int) -> Alone:
    """Run all sessions of a member again, one after the other."""
    taken, unlike, peak_mb = list[float](), 0, 0.0
    for number in range(1 + repeat):
        seconds = 0.0
        for tape in tapes:
            again = trio.run(replay, tape)
            seconds += again.processor_seconds
            unlike += again.differing + again.said_otherwise
            del again
        if number:
            taken.append(seconds)
        else:
            peak_mb = peaks_mb([os.getpid()])[0]
    return Alone(min(taken), peak_mb, unlike)


def _replay_on(core: int, tapes: Sequence[Tape], repeat: int) -> Alone:
    os.sched_setaffinity(0, [core])
    for tape in tapes:
        registry.get(tape.protocol)
    load_all()
    return replay_all(tapes, repeat)


def in_a_process(tapes: Sequence[Tape], repeat: int) -> Alone:
    """The same in a process of its own, on one core."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_replay_on, max(os.sched_getaffinity(0)), tapes, repeat).result()


# -- the report ----------------------------------------------------------------------------------------------


def _crossed_mb(tapes: Sequence[Tape], sends: Callable[[int], bool], takes: Callable[[int], bool]) -> float:
    """What went from some members of the party to others, in 10^6 bytes."""
    words = sum(
        said.words * times
        for tape in tapes
        if sends(tape.member)
        for said, times in tape.said.items()
        if said.inside and takes(said.to)
    )
    return words * WORD / MB


def _is_node(member: int) -> bool:
    return member == NODE


def _is_worker(member: int) -> bool:
    return member != NODE


def _measure(
    name: str, rows: int, workers: int, repeat: int, tile_rows: int | None
) -> tuple[Measured, Alone]:
    """What `workers` workers, or the node without any, make of some work; and all members together."""
    with tempfile.TemporaryDirectory(prefix="tercet-perf-") as folder:
        tapes, shares_mb = trio.run(_record, name, rows, workers, tile_rows, Path(folder, "words"))
        found = {
            member: in_a_process([tape for tape in tapes if tape.member == member], repeat)
            for member in sorted({tape.member for tape in tapes})
        }
    node = found.pop(NODE)
    shares = list(found.values()) or [node]
    more: dict[str, Any] = {"workers": workers, "rows": rows, "table_shares_mb": shares_mb}
    if found:
        more |= {
            "node_seconds": node.seconds,
            "node_peak_rss_mb": node.peak_mb,
            "node_to_workers_mb": _crossed_mb(tapes, _is_node, _is_worker),
            "workers_to_node_mb": _crossed_mb(tapes, _is_worker, _is_node),
            "between_workers_mb": _crossed_mb(tapes, _is_worker, _is_worker),
        }
    members = [node, *found.values()]
    together = sum(one.seconds for one in members)
    unlike = sum(one.unlike for one in members)
    return Measured(
        name=name,
        seconds=max(one.seconds for one in shares),
        peak_rss_mb=max(one.peak_mb for one in shares),
        error=float(unlike),
        error_of="words of results, and messages, unlike those of the recorded run",
        more={**more, "processor_seconds": together},
    ), Alone(together, 0.0, unlike)


def run(
    rows: int, shards: Sequence[int], repeat: int, only: Sequence[str] = (), tile_rows: int | None = None
) -> list[Measured]:
    """Record and replay every work without workers, and with each number of them.

    `speedup` is of the slowest worker, over the only one of one.
    """
    measured = []
    for name in WORKS:
        if only and name not in only:
            continue
        alone, together = _measure(name, rows, 0, repeat, tile_rows)
        measured.append(alone)
        one: float | None = None
        for workers in sorted(set(shards)):
            found, with_workers = _measure(name, rows, workers, repeat, tile_rows)
            one = found.seconds if workers == 1 else one
            over = with_workers.seconds / together.seconds
            measured.append(
                attrs.evolve(
                    found,
                    speedup=one and found.seconds and one / found.seconds,
                    more={**found.more, "processor_over_no_workers": over},
                )
            )
    return measured
