"""Predict what a plan costs, and list what it discloses, before it runs.

The sheet that owners and analysts read first.

Rounds and bytes follow exactly from the declared costs: the parties cut the plan into the same (node, tile)
instances with the same dealers, or run the same nodes of a small plan together, and rounds add up along the
longest way through them, all tiles side by side. Only sorts depend on chance and are given by their mean.
Seconds come from a rehearsal of the run on a model of the machine, which is calibrated; see `rehearsal` and
`machine`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from tercet.actors.lowering import lower, runs_in_lockstep
from tercet.actors.machine import Machine, machine_for
from tercet.actors.rehearsal import Network, Rehearsal
from tercet.errors import PlanError
from tercet.options import COUNT, FLAG, PLAN, ByName, Made, Number, Rule, Text, takes
from tercet.plans.kinds import KINDS
from tercet.plans.passes import drop_dead
from tercet.plans.plan import Plan
from tercet.plans.shards import spreads
from tercet.plans.tiles import Costs, Layout, depths, schedule
from tercet.plans.types import Disclosure
from tercet.protocols import registry


@attrs.frozen
class Part:
    """What all nodes of one kind contribute.

    How many they are, in how many instances, and bytes sent by all parties, each node by itself.
    """

    kind: str
    nodes: int
    instances: int
    bytes_sent: int


@attrs.frozen
class Explanation:
    """The predicted cost of a plan and everything that it discloses; prints as a table.

    `bytes_sent` is payload by party. `exact` says whether rounds and bytes are certain; sorts make them an
    expectation. `workers` of each party take part, none where a plan has few rows; `to_workers` and `to_node`
    are the bytes that cross between the node of a party and all of them.
    """

    plan: str
    protocol: str
    parties: int
    rounds: int
    bytes_sent: tuple[int, ...]
    seconds: float
    exact: bool
    symbols: Mapping[str, int]
    by_kind: tuple[Part, ...]
    disclosures: tuple[Disclosure, ...]
    workers: int = 0
    to_workers: int = 0
    to_node: int = 0

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        lines = [
            f"plan {self.plan!r} on protocol {self.protocol!r}, {self.parties} parties",
            f"  rounds      {about}{self.rounds}",
            f"  bytes sent  {about}{', '.join(f'{sent:,}' for sent in self.bytes_sent)} by party",
            f"  seconds     about {self.seconds:.2g}",
        ]
        if self.workers:
            lines.append(f"  workers     {self.workers} a party")
            lines.append(
                f"  inside      {self.to_workers:,} bytes to workers, {self.to_node:,} back, at each party"
            )
        lines += [f"  {symbol:<11} taken as {number:,}" for symbol, number in self.symbols.items()]
        width = max([4, *(len(share.kind) for share in self.by_kind)])
        lines.append(f"  {'kind':<{width}}  {'nodes':>6}  {'tiles':>8}  {'bytes by all':>16}")
        for share in self.by_kind:
            lines.append(
                f"  {share.kind:<{width}}  {share.nodes:>6}  {share.instances:>8}  {share.bytes_sent:>16,}"
            )
        lines.append("  discloses" + ("" if self.disclosures else " nothing"))
        lines += [f"  - {told}" for told in self.disclosures]
        return "\n".join(lines)


OPTIONS: dict[str, Rule] = {
    "plan": PLAN,
    "protocol": Text(what="the name of a protocol", advice="such as 'replicated' or 'shamir'"),
    "parties": attrs.evolve(COUNT, most=64, none=True),
    "latency_ms": Number(least=0, most=60_000),
    "bandwidth_mbit": Number(least=1e-3, none=True),
    "jitter_ms": Number(least=0, most=60_000),
    "symbols": ByName(
        of="numbers",
        names="symbols for numbers of rows",
        example="{'join.rows': 100}",
        each=Number(whole=True),
        none=True,
    ),
    "machine": Made(of="Machine", what="what calibrate has measured", none=True),
    "threads": attrs.evolve(COUNT, most=1024),
    "workers": attrs.evolve(COUNT, least=0, most=1024),
    "apart": FLAG,
}


@takes(**OPTIONS)
def explain(
    plan: Plan,
    protocol: str = "replicated",
    parties: int | None = None,
    *,
    latency_ms: float = 0.0,
    bandwidth_mbit: float | None = None,
    jitter_ms: float = 0.0,
    symbols: Mapping[str, int] | None = None,
    machine: Machine | None = None,
    threads: int = 1,
    workers: int = 0,
    apart: bool = False,
) -> Explanation:
    """What a run of `plan` will cost, and what it discloses.

    `latency_ms` is one way, give or take `jitter_ms`, `bandwidth_mbit` the cap of each link. `symbols` gives
    the row counts that the plan will reveal; the largest possible are taken otherwise. `machine` is what was
    calibrated for the protocol, or the default. Parties with so many `threads` each share its cores, and so
    do their `workers`, if they have any; where they are `apart`, each is on a machine like it. Raises
    PlanError for a symbol that is too large or a jitter beyond the latency, and what the protocol raises for
    operations it lacks.
    """
    if jitter_ms > latency_ms:
        raise PlanError(f"jitter_ms={jitter_ms} is more than latency_ms={latency_ms}; it is at most as much")
    cls = registry.get(protocol)
    count = cls.sizes[0] if parties is None else parties
    plan = drop_dead(plan)
    known = dict(plan.maxima)
    for symbol, rows in (symbols or {}).items():
        if not 0 <= rows <= known.get(symbol, -1):
            raise PlanError(f"{symbol!r} has at most {known.get(symbol, 0)} rows in this plan, not {rows}")
        known[symbol] = rows
    workers = workers if not runs_in_lockstep(plan) and spreads(plan, cls) else 0
    costs = Costs(Layout(plan, known, workers=workers, protocol=cls), cls, count)
    sent = [0] * count
    kinds: dict[str, Part] = {}
    for index, node in enumerate(plan.nodes):
        tiles = costs.layout.tiles(index)
        total = 0
        for tile in range(tiles):
            cost = costs.of(index, tile)
            sent = [a + b for a, b in zip(sent, cost.sent, strict=True)]
            total += cost.total
        old = kinds.get(node.kind, Part(node.kind, 0, 0, 0))
        kinds[node.kind] = Part(node.kind, old.nodes + 1, old.instances + tiles, old.bytes_sent + total)
    if runs_in_lockstep(plan) and not plan.maxima:
        sent = lower(plan, cls, count).expected_bytes
    machine = machine_for(protocol, count) if machine is None else machine
    machine = attrs.evolve(machine, cores=machine.cores * count * max(1, workers)) if apart else machine
    bandwidth_bps = math.inf if bandwidth_mbit is None else bandwidth_mbit * 1e6
    network = Network(latency_ms / 1e3, bandwidth_bps, jitter_ms / 1e3)
    rehearsal = Rehearsal(costs, machine, network, threads=threads)
    seconds = rehearsal.seconds()
    return Explanation(
        plan=plan.name,
        protocol=protocol,
        parties=count,
        rounds=max(depths(costs).values(), default=0),
        bytes_sent=tuple(sent),
        seconds=seconds,
        exact=all(KINDS[node.kind].exact_cost for node in plan.nodes),
        symbols=known,
        by_kind=tuple(sorted(kinds.values(), key=lambda share: -share.bytes_sent)),
        disclosures=tuple(plan.disclosures()),
        workers=workers,
        to_workers=rehearsal.to_workers,
        to_node=rehearsal.to_node,
    )


__all__ = ["Explanation", "Machine", "Part", "depths", "explain", "schedule"]
