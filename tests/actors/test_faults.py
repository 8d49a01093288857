"""Nodes that die or stall and links that break, at random moments: one error that names who it was, soon, and
no hang.

Every case has three node processes, a seeded moment within the plan and a hard limit. The ordinary run has a
few moments each, `-m scale` ten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time

import numpy as np
import pytest
import trio

from tercet.client.lake import open_local
from tercet.errors import PeerLost
from tercet.plans import Builder, Form, Type

pytestmark = pytest.mark.early
logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
PROMISED_S = 10.0
"""From the fault to the error at the client."""
HARD_LIMIT_S = 60.0
LATENCY_MS = 3


class Proxy:
    """Stands between two nodes, and can cut the connection or let it fall silent."""

    def __init__(self) -> None:
        self.target = ""
        self.scope = trio.CancelScope()
        self.silent = False

    async def serve(self, task_status=trio.TASK_STATUS_IGNORED):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        self.address = f"{host}:{port}"
        with self.scope:
            await trio.serve_listeners(self._join, listeners, task_status=task_status)

    async def _join(self, near):
        host, port = self.target.split(":")
        async with near, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            nursery.start_soon(self._pump, far, near)

    async def _pump(self, source, sink):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if self.silent:
                    await trio.sleep_forever()
                await sink.send_all(data)
            await sink.aclose()


class Between:
    """A route for `ClusterOptions`: the link from party `later` to party `earlier` goes through a proxy."""

    def __init__(self, proxy, later, earlier):
        self.proxy, self.pair = proxy, (later, earlier)

    def __call__(self, here, there, address):
        if (here, there) != self.pair:
            return address
        self.proxy.target = address
        return self.proxy.address


async def joining(lake):
    """A join of two tables."""
    rows = 20_000
    tables = [
        await lake.upload(
            {"id": np.arange(rows) + i * 9000, f"x{i}": np.linspace(0, 1, rows)},
            name=f"t{i}",
            key="id",
            owner="o",
        )
        for i in range(2)
    ]

    async def work():
        joined = await tables[0].join(tables[1], on="id")
        assert joined.rows == rows - 9000

    return work


async def truncating(lake):
    """A chain of sixty truncations, on rows enough for three tiles."""
    rows = 3 * 4096
    builder = lake.builder("chain")
    kind = Type(Form.RING, (rows,), 30, 2.0**50)
    await lake.cluster.client.put("x", kind, np.arange(rows, dtype=np.uint64) << np.uint64(30))
    x = builder.input("x", kind)
    for number in range(30):
        x = x.rescale(20 - number % 3).rescale(15).at_scale(30).bounded(2.0**20, "test")
    x.store("y")
    plan = builder.plan()

    async def work():
        await lake.run(plan)

    return work


async def struck(what, job, seed):
    """Run a job on three processes and strike once; returns (who, seconds to the error, seconds of the next
    error).
    """
    rng = random.Random(seed)
    victim, later = seed % 3, 1 + seed % 2
    proxy = Proxy()
    names = {f"party {victim}"}
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        route = Between(proxy, later, 0) if what in ("cut", "silence") else None
        if route is not None:
            names = {"party 0", f"party {later}"}
        options = {"timeout_s": TIMEOUT_S, "latency_ms": LATENCY_MS, "tile_rows": 4096, "route": route}
        async with open_local(processes=True, **options) as lake:
            pids = lake.cluster.pids
            work = await job(lake)
            began = time.perf_counter()
            await work()
            usual = time.perf_counter() - began

            async def strike():
                await trio.sleep(rng.uniform(0, usual))
                match what:
                    case "kill":
                        os.kill(pids[victim], signal.SIGKILL)
                    case "stop":
                        os.kill(pids[victim], signal.SIGSTOP)
                    case "cut":
                        proxy.scope.cancel()
                    case "silence":
                        proxy.silent = True
                nonlocal began
                began = time.perf_counter()

            with pytest.raises(PeerLost) as caught:
                nursery.start_soon(strike)
                while True:
                    await work()
            seconds = time.perf_counter() - began
            assert caught.value.peer in names, caught.value
            assert caught.value.peer in str(caught.value)
            assert seconds < PROMISED_S
            began = time.perf_counter()
            with pytest.raises(PeerLost) as again:
                await lake.run(one_number())
            next_seconds = time.perf_counter() - began
            assert again.value.peer in names
            assert next_seconds < 1.0
        nursery.cancel_scope.cancel()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return caught.value.peer, seconds, next_seconds


def one_number():
    builder = Builder("one number", tile_rows=4096)
    builder.random_words(2).reveal("words", to="analyst")
    return builder.plan()


def check(what, job, seed):
    async def main():
        with trio.fail_after(HARD_LIMIT_S):
            return await struck(what, job, seed)

    peer, seconds, again = trio.run(main)
    logger.info("%s %s %d: %s after %.2f s, then %.3f s", what, job.__name__, seed, peer, seconds, again)


FAULTS = ["kill", "stop", "cut", "silence"]


@pytest.mark.cases("kill-truncating-2", "stop-joining-3", "cut-truncating-5", "silence-joining-6")
@pytest.mark.parametrize(
    ("what", "job", "seed"),
    [
        ("kill", joining, 1),
        ("kill", truncating, 2),
        ("stop", joining, 3),
        ("stop", truncating, 4),
        ("cut", truncating, 5),
        ("silence", joining, 6),
    ],
)
def test_a_few_moments(what, job, seed):
    check(what, job, seed)


@pytest.mark.scale
@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize("job", [joining, truncating])
@pytest.mark.parametrize("what", FAULTS)
def test_ten_moments(what, job, seed):
    check(what, job, seed)


def test_a_short_pause_is_forgiven():
    async def main():
        with trio.fail_after(HARD_LIMIT_S):
            async with open_local(processes=True, timeout_s=6, latency_ms=LATENCY_MS, tile_rows=4096) as lake:
                work = await truncating(lake)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work)
                    await trio.sleep(0.1)
                    os.kill(lake.cluster.pids[1], signal.SIGSTOP)
                    await trio.sleep(1.0)
                    os.kill(lake.cluster.pids[1], signal.SIGCONT)
                await lake.run(one_number())

    trio.run(main)
