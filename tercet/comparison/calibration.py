"""Measure this machine's profile: small plans, each mostly of one kind of node, on nodes like `local`'s.

Every kind is measured twice, in many small instances side by side and in a large one. Both are rehearsed, and
its pace is what makes the rehearsals take the processor time that the busiest node took, whatever else the
machine was doing. Only what has to do with waiting is measured by the clock: a plan of no work, and one of
many rounds in sequence, with and without latency.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors.machine import LOCAL, TALKING, Machine, Pace
from tercet.actors.rehearsal import Network, Rehearsal
from tercet.client.cluster import Cluster, ClusterOptions, open_cluster
from tercet.plans.builder import Builder, Value
from tercet.plans.kinds import KINDS
from tercet.plans.passes import optimise
from tercet.plans.plan import Plan
from tercet.plans.tiles import Costs, Layout
from tercet.plans.types import Form, Type
from tercet.protocols.base import Protocol
from tercet.protocols.domains import packed_words
from tercet.protocols.fourier import sigmoid

SCALE, LIMIT = 16, 2.0**22
SMALL, LEAST_LARGE, LARGE_WORK = 1 << 6, 1 << 12, 1 << 16
"""Rows of small instances; rows of large ones, or their work by the weight of their kind."""
COPIES = 8
"""Small instances of a kind in one plan."""
ROUNDS, NODES = 64, 256
LATENCY_MS = 3.0
PATIENCE_S = 60.0

Probe = Callable[[Builder, int, int], list[Value]]
"""Makes what a probe stores, from the number of rows and that of a copy."""
_Make = Callable[[Sequence[float]], Machine]
"""A machine of some numbers that are to be found."""


def _numbers(b: Builder, rows: int, *places: int, copy: int = 0) -> Value:
    return b.input(f"numbers {places} {rows} {copy}", Type(Form.RING, (*places, rows), SCALE, LIMIT))


def _words(b: Builder, rows: int, places: int, copy: int = 0) -> Value:
    return b.input(f"words {places} {rows} {copy}", Type(Form.WORDS, (places, rows)))


PROBES: dict[str, Probe] = {
    "store": lambda b, n, i: [_numbers(b, n, 8, copy=i)],
    LOCAL: lambda b, n, i: [_numbers(b, n, 8, copy=i).sum()],
    TALKING: lambda b, n, i: [_numbers(b, n, 8, copy=i) * _numbers(b, n, 8, copy=i)],
    "truncate": lambda b, n, i: [_numbers(b, n, 8, copy=i).rescale(8)],
    "nearest": lambda b, n, i: [_numbers(b, n, 8, copy=i).nearest(8)],
    "fourier": lambda b, n, i: _numbers(b, n, copy=i).fourier(
        sigmoid(48.0, 3e-4), dealt_bits=20, coefficient_bits=14
    ),
    "is_negative": lambda b, n, i: [_numbers(b, n, copy=i).is_negative()],
    "is_zero": lambda b, n, i: [_numbers(b, n, copy=i).is_zero()],
    "to_ring": lambda b, n, i: [b.input(f"bits {n} {i}", Type(Form.BITS, (n,))).to_ring()],
    "matmul": lambda b, n, i: [_numbers(b, 16, 16) @ _numbers(b, n, 16, copy=i)],
    "dot": lambda b, n, i: [_numbers(b, n, 16, copy=i).dot(_numbers(b, n, 16, copy=i))],
    "shuffle": lambda b, n, i: [b.apply_all("shuffle", _words(b, n, 4, copy=i))[0]],
    "sort": lambda b, n, i: [b.apply_all("sort", _numbers(b, n, copy=i), bits=40)[0]],
    "prf": lambda b, n, i: [b.apply("prf", b.input("key", Type(Form.WORDS, (2,))), _words(b, n, 2, copy=i))],
}
"""What each kind is measured by; later ones rest on earlier ones."""


async def calibrate(
    protocol: str = "replicated", parties: int | None = None, *, repeat: int = 3, processes: bool = True
) -> tuple[int, Machine]:
    """Measure this machine under one protocol, with nodes of its own, in some ten to forty seconds; on Linux.

    Also the number of parties that was measured. Each plan runs `repeat` times, of which the best counts.
    """
    options = ClusterOptions(protocol=protocol, parties=parties, processes=processes, timeout_s=PATIENCE_S)
    cls, count, _ = options.resolve()
    machine = Machine(cores=len(os.sched_getaffinity(0)))
    async with open_cluster(options) as cluster:
        bench = Bench(cluster, cls, repeat)
        machine = await bench.rounds(await bench.paces(machine))
    if count > 1:
        async with open_cluster(attrs.evolve(options, latency_ms=LATENCY_MS)) as cluster:
            machine = await Bench(cluster, cls, repeat, Network(LATENCY_MS / 1e3)).waking(machine)
    return count, machine


@attrs.frozen
class Taken:
    """What a run took: seconds by the clock, and processor seconds of the busiest node."""

    seconds: float
    work_s: float


@attrs.define(eq=False)
class Bench:
    """Nodes of one protocol, how often each plan runs, and the network between the nodes."""

    cluster: Cluster
    protocol: type[Protocol]
    repeat: int
    network: Network = attrs.field(factory=Network)
    _there: set[str] = attrs.field(factory=set)

    async def measure(self, plan: Plan) -> Taken:
        """The least of some runs after one that warms up; uploads what the plan reads."""
        client = self.cluster.client
        for node in plan.nodes:
            if node.kind == "input" and node.get("handle") not in self._there:
                await self._upload(node.get("handle"), node.types[0])
        stored = [node.get("handle") for node in plan.nodes if node.kind == "store"]
        found = []
        for _ in range(self.repeat + 1):
            before = self._worked()
            seconds = (await client.run(plan)).seconds
            work = max(now - then for now, then in zip(self._worked(), before, strict=True))
            found.append(Taken(seconds, work))
            await client.drop(stored)
        return Taken(min(one.seconds for one in found[1:]), min(one.work_s for one in found[1:]))

    def _worked(self) -> list[float]:
        """Processor seconds of each node so far; nodes in this process have equal parts of its own."""
        # The clock of another process's processor time, as clock_getcpuclockid(3) has it on Linux.
        if pids := self.cluster.pids:
            return [time.clock_gettime(~pid << 3 | 2) for pid in pids]
        return [time.process_time() / self.cluster.parties]

    async def _upload(self, handle: str, kind: Type) -> None:
        shape = [dim for dim in kind.shape if isinstance(dim, int)]
        if kind.form is Form.BITS:
            shape[-1] = packed_words(shape[-1])
        words = np.random.default_rng(1).integers(0, 1 << 20, shape, dtype=np.uint64)
        await self.cluster.client.put(handle, kind, words)
        self._there.add(handle)

    def plan(self, name: str, probe: Probe, rows: int, copies: int = 1) -> Plan:
        """A plan that stores what copies of a probe make."""
        b = Builder(name, tile_rows=self.cluster.client.tile_rows)
        values = [value for copy in range(copies) for value in probe(b, rows, copy)]
        for number, value in enumerate(values):
            value.store(f"result {number}")
        return optimise(b.plan())

    def rehearsed(self, plan: Plan, machine: Machine) -> float:
        """What a plan should take on a machine."""
        costs = Costs(Layout(plan, dict(plan.maxima)), self.protocol, self.cluster.parties)
        return Rehearsal(costs, machine, self.network).seconds()

    async def paces(self, machine: Machine, kinds: Iterable[str] = PROBES) -> Machine:
        """The pace of each kind, and of nodes that are computed where they are read."""
        nothing = await self.measure(self.plan("nothing", _nothing, SMALL))
        # A core for each party and no waiting: seconds of a rehearsal are then processor seconds of a node.
        alone = Machine(
            plan_s=nothing.work_s,
            round_s=0.0,
            wake_s=0.0,
            inline_s=0.0,
            cores=self.cluster.parties,
            paces={},
        )
        for kind in kinds:
            probe = PROBES[kind]
            weight = KINDS[kind].weight if kind in KINDS else 1
            large = max(LEAST_LARGE, LARGE_WORK // weight)
            plans = [self.plan(kind, probe, SMALL, COPIES), self.plan(kind, probe, large)]
            taken = [(await self.measure(plan)).work_s for plan in plans]
            alone = self._solved(_with_pace(alone, kind), plans, taken)
            if kind == LOCAL:
                inline = self.plan("inline", _inline, SMALL)
                taken = [(await self.measure(inline)).work_s]
                alone = self._solved(lambda x, old=alone: attrs.evolve(old, inline_s=x[0]), [inline], taken)  # type: ignore[misc]
        return attrs.evolve(machine, plan_s=nothing.seconds, inline_s=alone.inline_s, paces=alone.paces)

    async def rounds(self, machine: Machine) -> Machine:
        """What a round takes besides the steps before and after it."""
        deep = self.plan("rounds", chain_of_rounds, SMALL)
        taken = (await self.measure(deep)).seconds
        return self._solved(lambda x: attrs.evolve(machine, round_s=x[0]), [deep], [taken])

    async def waking(self, machine: Machine) -> Machine:
        """What a round takes beyond its latency."""
        deep = self.plan("rounds", chain_of_rounds, SMALL)
        taken = (await self.measure(deep)).seconds
        return self._solved(lambda x: attrs.evolve(machine, wake_s=x[0]), [deep], [taken])

    def _solved(self, make: _Make, plans: Sequence[Plan], measured: Sequence[float]) -> Machine:
        """The machine, of as many numbers as plans, on which they take what was measured.

        No number is negative. What a rehearsal takes is linear in the numbers but for what one instance
        computes while others wait.
        """
        count, step = len(plans), 1e-4

        def taken(numbers: Sequence[float]) -> npt.NDArray[np.float64]:
            return np.array([self.rehearsed(plan, make(numbers)) for plan in plans])

        start = taken([0.0] * count)
        slopes = np.stack([(taken(list(one)) - start) / step for one in np.eye(count) * step], axis=1)
        found = np.linalg.lstsq(slopes, np.array(measured) - start, rcond=None)[0]
        return make([max(0.0, float(one)) for one in found])


def _with_pace(machine: Machine, kind: str) -> _Make:
    return lambda numbers: attrs.evolve(machine, paces={**machine.paces, kind: Pace(*numbers)})


def _nothing(b: Builder, rows: int, copy: int) -> list[Value]:
    return [_numbers(b, rows, copy=copy)]


def _inline(b: Builder, rows: int, copy: int) -> list[Value]:
    x = _numbers(b, rows, copy=copy)
    for _ in range(NODES):
        x = x + _numbers(b, rows, copy=copy)
    return [x.sum()]


def chain_of_rounds(b: Builder, rows: int, copy: int) -> list[Value]:
    """A probe of one truncation after the other."""
    x = b.input(f"long {rows} {copy}", Type(Form.RING, (rows,), 40, 2.0**50))
    for _ in range(ROUNDS // 2):
        x = x.shifted(1).rescale(40)
    return [x]


__all__ = ["PROBES", "Bench", "calibrate", "chain_of_rounds"]
