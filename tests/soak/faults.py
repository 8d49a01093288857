"""What goes wrong in a soak: nodes are killed, stopped, cut off, slowed and restarted, at random moments.

Two injectors work side by side, so that one node can be stopped while another is restarted; neither touches a
node that the other is at. Some faults are shorter than the nodes' time-out and should pass unnoticed, others
longer. Every fault ends by itself, and leaves the node as it was.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable

import trio

from tests.nodes.network import Namespaces
from tests.nodes.on_disk import NodesOnDisk
from tests.soak.record import Record

PAUSE_S = 9.0
"""Mean time between two faults of one injector."""


class Faults:
    """Injects faults into the nodes of a lake, in a nursery, until told to pause."""

    def __init__(self, nodes: NodesOnDisk, record: Record, rng: random.Random, *, timeout_s: float) -> None:
        self.nodes = nodes
        self.record = record
        self.timeout_s = timeout_s
        self._rng = rng
        self._busy = [trio.Lock() for _ in range(3)]
        self.kinds: dict[str, Callable[[int], Awaitable[None]]] = {
            "killed": self.kill,
            "restarted": self.restart,
            "stopped": self.stop,
            "stopped briefly": self.stop_briefly,
            "stuttering": self.stutter,
        }
        if isinstance(nodes.network, Namespaces):
            self.kinds |= {"cut off": self.cut, "cut off briefly": self.cut_briefly, "slowed": self.slow}

    async def inject(self) -> None:
        """Faults, one after the other, until cancelled; the one under way ends well."""
        while True:
            await trio.sleep(self._rng.expovariate(1 / PAUSE_S))
            index, kind = self._rng.randrange(3), self._rng.choice(list(self.kinds))
            if self._rng.random() < 0.03:
                await self.all_restart()
                continue
            async with self._busy[index]:
                with trio.CancelScope(shield=True):
                    await self.kinds[kind](index)
            self.record.faults[kind] += 1

    async def all_restart(self) -> None:
        """All nodes end and start again, as after an update."""
        for lock in self._busy:
            await lock.acquire()
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for index in range(3):
                        nursery.start_soon(self.restart, index)
        finally:
            for lock in self._busy:
                lock.release()
        self.record.faults["all restarted"] += 1

    # -- faults ----------------------------------------------------------------------------------------------

    async def kill(self, index: int) -> None:
        """As when the power fails."""
        await self._end(index, signal.SIGKILL)
        await trio.sleep(self._rng.uniform(0, 1.5 * self.timeout_s))
        self.nodes.start(index)

    async def restart(self, index: int) -> None:
        """As an operator does it."""
        await trio.to_thread.run_sync(self.nodes.wait_for, lambda: self.nodes.health(index), "up again")
        code = await self._end(index, signal.SIGTERM)
        if code:
            self.record.complain(f"n{index} ended with code {code} when it was told to stop")
        self.nodes.start(index)

    async def stop(self, index: int) -> None:
        """The machine stands still for longer than the others wait."""
        await self._stand_still(index, self._rng.uniform(1.3, 3) * self.timeout_s)

    async def stop_briefly(self, index: int) -> None:
        """The machine stands still, not for long."""
        await self._stand_still(index, self._rng.uniform(0.05, 0.4) * self.timeout_s)

    async def stutter(self, index: int) -> None:
        """The machine has much else to do."""
        for _ in range(self._rng.randrange(10, 40)):
            await self._stand_still(index, 0.15)
            await trio.sleep(0.1)

    async def cut(self, index: int) -> None:
        """The network is away for longer than the others wait."""
        await self._unplug(index, self._rng.uniform(1.3, 3) * self.timeout_s)

    async def cut_briefly(self, index: int) -> None:
        """The network is away, not for long."""
        await self._unplug(index, self._rng.uniform(0.05, 0.4) * self.timeout_s)

    async def slow(self, index: int) -> None:
        """The network is slow, though not so slow that it counts as broken."""
        network = self.nodes.network
        assert isinstance(network, Namespaces)
        await trio.to_thread.run_sync(network.slow, index, self._rng.uniform(4, 30))
        await trio.sleep(self._rng.uniform(1, 4) * self.timeout_s)
        await trio.to_thread.run_sync(network.mend, index)

    # -- how -------------------------------------------------------------------------------------------------

    async def _end(self, index: int, number: int) -> int:
        self._must_live(index)
        return await trio.to_thread.run_sync(self.nodes.stop, index, number)

    async def _stand_still(self, index: int, seconds: float) -> None:
        self._must_live(index)
        process = self.nodes.processes[index]
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    async def _unplug(self, index: int, seconds: float) -> None:
        network = self.nodes.network
        assert isinstance(network, Namespaces)
        await trio.to_thread.run_sync(network.cut, index)
        await trio.sleep(seconds)
        await trio.to_thread.run_sync(network.mend, index)

    def _must_live(self, index: int) -> None:
        """A node must not end by itself; whoever finds that it did starts it again."""
        code = self.nodes.processes[index].poll()
        if code is not None:
            self.record.complain(f"n{index} ended by itself with code {code}")
            self.nodes.start(index)
