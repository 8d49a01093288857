"""Measure this machine's profile: small plans, each mostly of one kind of node, on nodes like `local`'s.

Every probe runs at two sizes; what the larger one takes longer, for each unit of work that it has more, is
the rate of its kind. Fixed costs come from three plans of next to no work: one of no round, one of many
rounds, one of many instances. All nodes share this machine, so rates are those of that.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import attrs
import numpy as np

from tercet.actors.builder import Builder, Value
from tercet.actors.client import Client
from tercet.actors.cluster import ClusterOptions, open_cluster
from tercet.actors.estimate import Explanation, explain
from tercet.actors.machine import LOCAL, Machine
from tercet.actors.passes import optimise
from tercet.actors.plan import Form, Plan, Type
from tercet.protocols.domains import packed_words
from tercet.protocols.fourier import sigmoid

SCALE, LIMIT = 16, 2.0**24
SMALL, LARGE = 1 << 8, 1 << 14
ROUNDS, INSTANCES = 64, 256
PATIENCE_S = 60.0

Probe = Callable[[Builder, int], list[Value]]
"""Makes what a probe stores, from the number of rows."""


def _numbers(b: Builder, rows: int, *places: int) -> Value:
    return b.input(f"numbers {places} {rows}", Type(Form.RING, (*places, rows), SCALE, LIMIT))


def _words(b: Builder, rows: int, places: int) -> Value:
    return b.input(f"words {places} {rows}", Type(Form.WORDS, (places, rows)))


PROBES: dict[str, Probe] = {
    LOCAL: lambda b, n: [_numbers(b, n, 8) + _numbers(b, n, 8)],
    "reduce": lambda b, n: [_numbers(b, n, 8) * _numbers(b, n, 8)],
    "truncate": lambda b, n: [_numbers(b, n, 8).rescale(8)],
    "fourier": lambda b, n: _numbers(b, n).fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=14),
    "is_negative": lambda b, n: [_numbers(b, n).is_negative()],
    "is_zero": lambda b, n: [_numbers(b, n).is_zero()],
    "to_ring": lambda b, n: [b.input(f"bits {n}", Type(Form.BITS, (n,))).to_ring()],
    "matmul": lambda b, n: [_numbers(b, 16, 16) @ _numbers(b, n, 16)],
    "dot": lambda b, n: [_numbers(b, n, 16).dot(_numbers(b, n, 16))],
    "shuffle": lambda b, n: [b.apply_all("shuffle", _words(b, n, 4))[0]],
    "sort": lambda b, n: [b.apply_all("sort", _numbers(b, n), bits=40)[0]],
    "prf": lambda b, n: [b.apply("prf", b.input("key", Type(Form.WORDS, (2,))), _words(b, n, 2))],
}
"""What each kind is measured by. Local kinds without a probe go at the rate of sums."""


async def calibrate(protocol: str = "replicated", *, repeat: int = 3, processes: bool = True) -> Machine:
    """Measure this machine under one protocol, with nodes of its own; takes some seconds."""
    options = ClusterOptions(protocol=protocol, processes=processes, timeout_s=PATIENCE_S)
    async with open_cluster(options) as cluster:
        bench = Bench(cluster.client, protocol, cluster.parties, repeat)
        fixed = await bench.fixed()
        return attrs.evolve(fixed, rates=await bench.rates(fixed))


@attrs.define(eq=False)
class Bench:
    """Nodes of one protocol, and how often each plan runs."""

    client: Client
    protocol: str
    parties: int
    repeat: int
    _there: set[str] = attrs.field(factory=set)

    async def seconds(self, plan: Plan) -> float:
        """The median of some runs, after one that warms up; uploads what the plan reads."""
        for node in plan.nodes:
            if node.kind == "input" and node.get("handle") not in self._there:
                await self._upload(node.get("handle"), node.types[0])
        stored = [node.get("handle") for node in plan.nodes if node.kind == "store"]
        found = []
        for _ in range(self.repeat + 1):
            found.append((await self.client.run(plan)).seconds)
            await self.client.drop(stored)
        return statistics.median(found[1:])

    async def _upload(self, handle: str, kind: Type) -> None:
        shape = [dim for dim in kind.shape if isinstance(dim, int)]
        if kind.form is Form.BITS:
            shape[-1] = packed_words(shape[-1])
        words = np.random.default_rng(1).integers(0, 1 << 20, shape, dtype=np.uint64)
        await self.client.put(handle, kind, words)
        self._there.add(handle)

    def plan(self, name: str, probe: Probe, rows: int) -> Plan:
        """A plan that stores what a probe makes."""
        b = Builder(name, tile_rows=self.client.tile_rows)
        for number, value in enumerate(probe(b, rows)):
            value.store(f"result {number}")
        return optimise(b.plan())

    async def fixed(self) -> Machine:
        """What a plan, a round and an instance take, with next to no work in them."""
        probes: dict[str, Probe] = {"nothing": _nothing, "rounds": _chain, "instances": _many}
        plans = [self.plan(name, probe, 64) for name, probe in probes.items()]
        nothing, chain, many = [await self.seconds(plan) for plan in plans]
        told = [self._explain(plan, Machine()) for plan in plans[1:]]
        counts = [[one.rounds, sum(part.instances for part in one.by_kind)] for one in told]
        rest = np.maximum([chain - nothing, many - nothing], 0.0)
        # Seconds are rounds times one unknown and instances times another; without rounds, there is one.
        round_s, instance_s = np.linalg.lstsq(np.array(counts, dtype=float), rest, rcond=None)[0]
        return Machine(
            plan_s=nothing, round_s=max(0.0, float(round_s)), instance_s=max(0.0, float(instance_s))
        )

    async def rates(self, fixed: Machine) -> dict[str, float]:
        """Seconds for a unit of work of each kind; later probes rest on earlier ones."""
        found: dict[str, float] = {}
        for kind, probe in PROBES.items():
            plans = [self.plan(kind, probe, rows) for rows in (SMALL, LARGE)]
            small, large = [
                await self.seconds(plan) - self._known(plan, fixed, found, kind) for plan in plans
            ]
            few, many = (self._units(plan, kind) for plan in plans)
            found[kind] = max(large - small, 0.0) / (many - few)
        return found

    def _known(self, plan: Plan, fixed: Machine, rates: dict[str, float], kind: str) -> float:
        """The predicted seconds of all but nodes of a kind."""
        return self._explain(plan, attrs.evolve(fixed, unit_s=0.0, rates={**rates, kind: 0.0})).seconds

    def _units(self, plan: Plan, kind: str) -> float:
        """Units of work in nodes of a kind."""
        free = Machine(plan_s=0.0, instance_s=0.0, round_s=0.0, unit_s=0.0, rates={kind: 1.0})
        return self._explain(plan, free).seconds

    def _explain(self, plan: Plan, machine: Machine) -> Explanation:
        return explain(plan, self.protocol, self.parties, machine=machine)


def _nothing(b: Builder, rows: int) -> list[Value]:
    return [_numbers(b, rows)]


def _chain(b: Builder, rows: int) -> list[Value]:
    x = b.input(f"long {rows}", Type(Form.RING, (rows,), 40, 2.0**50))
    for _ in range(ROUNDS // 2):
        x = x.shifted(1).rescale(40)
    return [x]


def _many(b: Builder, rows: int) -> list[Value]:
    x = _numbers(b, rows, 24)
    columns = [x.select([number]) for number in range(24)]
    pairs = [one * other for one in columns for other in columns][:INSTANCES]
    return [pair.sum() for pair in pairs]


__all__ = ["PROBES", "Bench", "calibrate"]
