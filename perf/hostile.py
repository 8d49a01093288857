"""`hostile`: what one member at full speed costs another one, who runs a small plan again and again.

Three nodes as programs, and the hostile member as a process of its own, on all connections that it may have,
with a client that waits for nothing. Its process is niced, since elsewhere it would not share the cores of
the nodes. Before each kind of attack the small plan is timed in quiet, so a ratio compares two stretches of
the same minute.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trio

from perf.nodes import PATIENCE_S, running_nodes
from perf.report import Measured, median
from tercet.client.lake import AsyncLake, open_lake
from tercet.errors import TercetError
from tercet.members.rules import Rules
from tercet.plans import Builder, Form, Type
from tercet.plans.plan import Plan

ROWS = 1000
CONNECTIONS = 8
SETTLE_S = 6.0
"""How long an attack lasts before the small plan is timed: members may do much at once after a rest."""
OPERATIONS = 10_000
NICE = 19

Flood = Callable[[AsyncLake], Awaitable[None]]


# -- the hostile member, in its own process -----------------------------------------------------------------


async def _post(lake: AsyncLake, requests: Iterator[Sequence[Any]]) -> None:
    """Send requests to all nodes as fast as they are read; answers are thrown away."""

    async def to(line: Any, number: int) -> None:
        for request in requests:
            number += 1
            await line.send([request[0], number, *request[1:]])

    async with trio.open_nursery() as nursery:
        for node in lake.cluster.client._nodes:  # noqa: SLF001 - her client is her own
            nursery.start_soon(to, node.line, 1 << 20)


def _posts(make: Callable[[], Sequence[Any]]) -> Flood:
    async def flood(lake: AsyncLake) -> None:
        await _post(lake, (make() for _ in itertools.count()))

    return flood


def _again(work: Callable[[AsyncLake], Awaitable[None]], at_once: int) -> Flood:
    """The same work, so many times at once, whatever the nodes say to it."""

    async def flood(lake: AsyncLake) -> None:
        async def one() -> None:
            while True:
                with contextlib.suppress(TercetError):
                    await work(lake)

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(one)

    return flood


def _entry() -> Sequence[Any]:
    fields = {
        "kind": "model",
        "name": secrets.token_hex(100),
        "body": bytes(20_000),
        "rules": Rules().to_bytes(),
        "handles": [],
        "fingerprint": b"",
        "expires": None,
    }
    return ["keep", fields]


async def _result(lake: AsyncLake) -> None:
    """A plan of nothing, the result of which is for the other member."""
    b = Builder("noise", tile_rows=lake.cluster.client.tile_rows)
    b.random_words(1, 3).reveal("noise", to="owner")
    await lake.cluster.client.run(b.plan())


async def _value(lake: AsyncLake) -> None:
    kind = Type(Form.RING, (10_000,), 0, 1.0)
    await lake.cluster.client.put(secrets.token_hex(8), kind, np.zeros(10_000, dtype=np.uint64))


def _plans() -> Callable[[], Sequence[Any]]:
    """A plan of many operations on what is not there: nodes read all of it before they refuse it."""
    b = Builder("long")
    value = b.input("none", Type(Form.RING, (1, 100), 0, 1.0))
    for number in range(OPERATIONS):
        value = value.bounded(8.0, str(number))
    value.sum().reveal("x", to="analyst")
    packed = b.plan().to_bytes()
    return lambda: ["submit", secrets.token_bytes(16), packed, 0.0, False]


ATTACKS: dict[str, Flood] = {
    "requests": _posts(lambda: ["status"]),
    "entries": _posts(lambda: ["entries"]),
    "names": _posts(_entry),
    "refusals": _posts(lambda: ["refuse", bytes(16), "x" * 1000]),
    "results": _again(_result, 32),
    "values": _again(_value, 32),
    "plans": _posts(_plans()),
}


async def attack(root: Path, kind: str) -> None:
    """Attack on all connections until the process is killed."""
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            opened = open_lake(root / "cluster.toml", identity=root / "ann.key", timeout_s=PATIENCE_S)
            nursery.start_soon(ATTACKS[kind], await stack.enter_async_context(opened))
        print("under way", flush=True)


# -- the other one ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _attacked(root: Path, kind: str) -> AsyncIterator[None]:
    process = subprocess.Popen(  # noqa: ASYNC220 - it is there at once
        [sys.executable, "-m", "perf.hostile", str(root), kind],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.nice(NICE),
    )
    try:
        assert process.stdout is not None
        await trio.to_thread.run_sync(process.stdout.readline)
        await trio.sleep(SETTLE_S)
        yield
        if process.poll() is not None:
            raise ChildProcessError(f"the attack {kind!r} has ended by itself; run python -m perf.hostile")
    finally:
        process.kill()
        process.wait()


async def _latency(owner: AsyncLake, plan: Plan, times: int) -> float:
    """Median seconds of a small plan."""
    found = []
    for _ in range(times):
        began = trio.current_time()
        await owner.cluster.client.run(plan)
        found.append(trio.current_time() - began)
    return median(found)


async def measure(root: Path, times: int, only: Sequence[str]) -> Measured:
    """Each attack against nodes that run."""
    rows: dict[str, dict[str, float]] = {}
    async with open_lake(root / "cluster.toml", identity=root / "owner.key", timeout_s=PATIENCE_S) as owner:
        client = owner.cluster.client
        kind = Type(Form.RING, (1, ROWS), 0, 1000.0)
        await client.put("own", kind, np.ones((1, ROWS), dtype=np.uint64))
        b = Builder("small", tile_rows=client.tile_rows)
        b.input("own", kind).sum().reveal("sum", to="analyst")
        plan = b.plan()
        await _latency(owner, plan, times)
        for name in only or ATTACKS:
            quiet = await _latency(owner, plan, times)
            async with _attacked(root, name):
                under = await _latency(owner, plan, times)
            await trio.sleep(1)
            rows[name] = {"quiet_ms": 1e3 * quiet, "attacked_ms": 1e3 * under, "ratio": under / quiet}
    worst = max(rows, key=lambda name: rows[name]["ratio"])
    return Measured(
        name="hostile",
        seconds=rows[worst]["attacked_ms"] / 1e3,
        more={"worst": worst, "ratio": rows[worst]["ratio"], "attacks": rows, "plans": times},
    )


def run(times: int, only: Sequence[str]) -> Measured:
    """Attack nodes that are started for it."""
    with running_nodes() as root:
        return trio.run(measure, root, times, only)


if __name__ == "__main__":
    trio.run(attack, Path(sys.argv[1]), sys.argv[2])
