"""The lakes that benchmarks run on, and what a stretch of work on one cost.

All benchmarks are trio programs over `tercet.open_local`, so that they can also ask the client below the
lake: to deal raw values, to trace, to drop what earlier runs stored.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

import tercet
from perf.machine import peaks_mb, reset_peaks, resident_mb
from perf.report import median
from tercet.actors.tracing import write_chrome_trace

PATIENCE_S = 60.0
"""How long a party may be silent: long, since all parties share one machine's cores."""


@attrs.frozen(kw_only=True)
class Conditions:
    """How the parties run and how often: what the options of the command line say."""

    protocol: str = "replicated"
    parties: int | None = None
    latency_ms: float = 0.0
    bandwidth_mbit: float | None = None
    threads: int = 1
    tls: bool = True
    repeat: int = 3
    trace: Path | None = None

    def describe(self) -> dict[str, Any]:
        """The conditions for a report, without those that are switched off."""
        found = {
            "protocol": self.protocol,
            "parties": self.parties,
            "latency_ms": self.latency_ms or None,
            "bandwidth_mbit": self.bandwidth_mbit,
            "threads": self.threads,
            "transport": "tls" if self.tls else "tcp",
            "repeat": self.repeat,
        }
        return {key: value for key, value in found.items() if value is not None}


@contextlib.asynccontextmanager
async def open_lake(conditions: Conditions) -> AsyncIterator[tercet.AsyncLake]:
    """A process for each party, on loopback."""
    async with tercet.open_local(
        protocol=conditions.protocol,
        parties=conditions.parties,
        processes=True,
        transport="tls" if conditions.tls else "tcp",
        latency_ms=conditions.latency_ms,
        bandwidth_mbit=conditions.bandwidth_mbit,
        threads=conditions.threads,
        timeout_s=PATIENCE_S,
    ) as lake:
        yield lake


@attrs.frozen(kw_only=True)
class Spent:
    """What one piece of work cost: `seconds` is what its caller waited, `plan_seconds` what plans took."""

    seconds: float
    plan_seconds: float
    rounds: int
    bytes_by_party: tuple[int, ...]
    peak_rss_mb: float
    rss_before_mb: float
    result: Any = attrs.field(repr=False)

    @property
    def bytes_per_party(self) -> int:
        """What the busiest party sent."""
        return max(self.bytes_by_party, default=0)


async def spend(lake: tercet.AsyncLake, work: Callable[[], Awaitable[Any]]) -> Spent:
    """Do some work and say what it cost; memory is the most of any party."""
    pids, mark = lake.cluster.pids, len(lake.phases)
    before = max(resident_mb(pids))
    reset_peaks(pids)
    began = time.perf_counter()
    result = await work()
    seconds = time.perf_counter() - began
    phases = lake.phases[mark:]
    return Spent(
        seconds=seconds,
        plan_seconds=sum(phase.seconds for phase in phases),
        rounds=sum(phase.rounds for phase in phases),
        bytes_by_party=tuple(map(sum, zip(*(phase.bytes_sent for phase in phases), strict=True))),
        peak_rss_mb=max(peaks_mb(pids)),
        rss_before_mb=before,
        result=result,
    )


async def repeat(
    lake: tercet.AsyncLake,
    work: Callable[[], Awaitable[Any]],
    conditions: Conditions,
    *,
    forget: Callable[[Any], Sequence[str]] = lambda _: (),
) -> Spent:
    """Do the same work some times: median seconds, the last result.

    If a trace was asked for, a run before the others is traced and not counted. `forget` names what a result
    has stored at the nodes, which is dropped before the next run. Peaks of memory are those of the first run,
    which begins with what was uploaded alone.
    """
    if conditions.trace is not None:
        client = lake.cluster.client
        await client.trace(True)
        traced = await work()
        await trio.to_thread.run_sync(write_chrome_trace, conditions.trace, await client.trace(False))
        await drop(lake, forget(traced))
        del traced
    runs: list[Spent] = []
    for _ in range(conditions.repeat):
        if runs:
            await drop(lake, forget(runs[-1].result))
        runs.append(await spend(lake, work))
    return attrs.evolve(
        runs[-1],
        seconds=median([run.seconds for run in runs]),
        plan_seconds=median([run.plan_seconds for run in runs]),
        peak_rss_mb=runs[0].peak_rss_mb,
        rss_before_mb=runs[0].rss_before_mb,
    )


async def drop(lake: tercet.AsyncLake, handles: Sequence[str]) -> None:
    """Have the nodes forget stored values."""
    if handles:
        await lake.cluster.client.drop(list(handles))
