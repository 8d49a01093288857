"""Run one workload under several protocols, networks and sizes, and say what each run took.

Every setting gets nodes of its own, as processes that talk TLS on this machine, which run the workload once
to warm up and once to be measured. Beside what was measured stands what `explain` predicts of the same plans,
and how far the figures are from those of the clear reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tercet.actors.estimate import explain
from tercet.client.lake import local
from tercet.comparison.peaks import peaks_mb, reset_peaks
from tercet.comparison.workloads import Figures, Workload, find
from tercet.errors import PlanError
from tercet.options import COUNT, FLAG, Either, Function, Names, Several, Text, takes
from tercet.plans.passes import optimise
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.protocols import registry

REFERENCE = "plain"
CLOSE = 1.3
"""A prediction is close if it is off by this factor at most, either way."""
PATIENCE_S = 60.0
"""How long a party may be silent: long, since all parties share one machine's cores."""


@attrs.frozen
class Network:
    """What every link is slowed down to: latency one way, and a bandwidth."""

    name: str
    latency_ms: float = 0.0
    bandwidth_mbit: float | None = None


NETWORKS = {
    one.name: one for one in (Network("none"), Network("lan", 0.25, 1000.0), Network("wan", 20.0, 100.0))
}


@attrs.frozen(kw_only=True)
class Measurement:
    """What one run of a workload took: seconds and rounds of its plans, bytes sent by each party.

    `predicted_seconds` is from `explain`, `peak_mb` the most memory of any node (10^6 bytes), `error` the
    largest difference of a figure from that of the clear reference. Uploads are not counted. `corruptions` is
    how many parties may be corrupt together, and `malicious` whether they may do anything.
    """

    plan: str
    protocol: str
    parties: int
    corruptions: int
    malicious: bool
    network: str
    rows: int
    plans: int
    rounds: int
    bytes_sent: tuple[int, ...]
    seconds: float
    predicted_seconds: float
    peak_mb: float
    error: float

    @property
    def bytes_most(self) -> int:
        """What the busiest party sent."""
        return max(self.bytes_sent, default=0)

    @property
    def security(self) -> str:
        """Of how many parties how many may be corrupt, and whether they are held to follow the protocol."""
        if not self.corruptions:
            return "none"
        return f"{self.corruptions} of {self.parties}, {'malicious' if self.malicious else 'semi-honest'}"

    @property
    def predicted_over_measured(self) -> float:
        """1 where the prediction was right."""
        return self.predicted_seconds / self.seconds if self.seconds else float("nan")

    @property
    def predicted_well(self) -> bool:
        """Whether the prediction was close."""
        return 1 / CLOSE <= self.predicted_over_measured <= CLOSE

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {**attrs.asdict(self), "predicted_over_measured": self.predicted_over_measured}


def network(name: str) -> Network:
    """A network by name, or from numbers: `3ms`, `10ms/50mbit`. Raises PlanError."""
    if name in NETWORKS:
        return NETWORKS[name]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)ms(?:/(\d+(?:\.\d+)?)mbit)?", name)
    if found is None:
        raise PlanError(
            f"there is no network {name!r}; choose one of {', '.join(NETWORKS)}, or write its latency and "
            "bandwidth as in 3ms or 10ms/50mbit"
        )
    return Network(name, float(found[1]), None if found[2] is None else float(found[2]))


def protocol_of(name: str) -> tuple[str, int | None]:
    """A protocol and a number of parties, as in `shamir:5`."""
    protocol, _, parties = name.partition(":")
    if parties and not parties.isdecimal():
        raise PlanError(f"{name!r} names {parties!r} parties; write a number, as in shamir:5")
    return protocol, int(parties) if parties else None


@takes(
    plan=Either(rules=(Text(what="the name of a plan"), Function())),
    protocols=Names(what="names of protocols", alone=False, advice="as in ['replicated', 'shamir:5']"),
    networks=Names(what="names of networks", alone=False, advice="as in ['lan', '3ms']"),
    rows=Several(each=COUNT, advice="as in [1000]"),
    processes=FLAG,
    progress=Function(none=True),
)
def compare(
    plan: str | Workload,
    *,
    protocols: Sequence[str] = ("replicated", "plain"),
    networks: Sequence[str] = ("lan",),
    rows: Sequence[int] = (1000,),
    processes: bool = True,
    progress: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Measure a workload in every setting; see `workloads.find` for what `plan` may be.

    `protocols` may say how many parties, as in `shamir:5`; `networks` are names or as in `3ms`. Without
    `processes`, nodes are tasks of this process, and memory is not measured. Each setting discloses what the
    workload reveals, of made-up tables, on this machine. Raises PlanError for names that mean nothing.
    """
    name, workload = (plan, find(plan)) if isinstance(plan, str) else (plan.__name__, plan)
    shaped = [network(one) for one in networks]
    chosen = [protocol_of(one) for one in protocols]
    measured = []
    for count in rows:
        with local(protocol=REFERENCE) as lake:
            wanted = workload(lake, count)
        for protocol, parties in chosen:
            for link in shaped:
                one = _measure(name, workload, protocol, parties, link, count, wanted, processes)
                measured.append(one)
                if progress is not None:
                    progress(one)
    return measured


def _measure(
    name: str,
    workload: Workload,
    protocol: str,
    parties: int | None,
    link: Network,
    rows: int,
    wanted: Figures,
    processes: bool,
) -> Measurement:
    with local(
        protocol=protocol,
        parties=parties,
        processes=processes,
        latency_ms=link.latency_ms,
        bandwidth_mbit=link.bandwidth_mbit,
        timeout_s=PATIENCE_S,
        progress=False,
    ) as lake:
        workload(lake, rows)
        ran: list[tuple[Plan, RunResult]] = []
        lake.on_result = lambda plan, result: ran.append((plan, result))
        pids = lake.cluster.pids
        reset_peaks(pids)
        figures = workload(lake, rows)
        predicted = [
            explain(
                optimise(plan),
                lake.protocol,
                lake.cluster.parties,
                latency_ms=link.latency_ms,
                bandwidth_mbit=link.bandwidth_mbit,
                symbols=result.symbols,
            ).seconds
            for plan, result in ran
        ]
        used = registry.get(lake.protocol)
        return Measurement(
            plan=name,
            protocol=protocol,
            parties=lake.cluster.parties,
            corruptions=used.corruptions(lake.cluster.parties),
            malicious=used.malicious,
            network=link.name,
            rows=rows,
            plans=len(ran),
            rounds=sum(result.rounds for _, result in ran),
            bytes_sent=tuple(map(sum, zip(*(result.bytes_sent for _, result in ran), strict=True))),
            seconds=sum(result.seconds for _, result in ran),
            predicted_seconds=sum(predicted),
            peak_mb=max(peaks_mb(pids), default=0.0),
            error=max((abs(figures[key] - wanted[key]) for key in wanted), default=0.0),
        )
