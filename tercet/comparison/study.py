"""Run workloads under several protocols, networks and sizes, and say what each run took.

Every setting gets nodes of its own, as processes that talk TLS on this machine, which run the workload once
to warm up and then to be measured. Beside what was measured stands what `explain` predicts of the same plans,
and how far the figures are from those of the clear reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from tercet.actors.estimate import explain
from tercet.client.cluster import ClusterOptions
from tercet.client.lake import Lake, local
from tercet.comparison.measurements import Measurement, Origin, Run
from tercet.comparison.networks import Network, network
from tercet.comparison.outcome import Comparison
from tercet.comparison.peaks import peaks_mb, reset_peaks
from tercet.comparison.workloads import Figures, Workload, find
from tercet.errors import PlanError
from tercet.options import COUNT, FLAG, Either, Function, Names, Number, Several, Text, takes
from tercet.plans.passes import optimise
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.protocols import registry

REFERENCE = "plain"
PATIENCE_S = 60.0
"""How long a party may be silent: long, since all parties share one machine's cores."""
MOST_RUNS = 1000
MOST_DIGITS = 3
"""Of a number of parties."""

_PLAN = Either(rules=(Text(what="the name of a plan"), Function()))


def protocol_of(name: str) -> tuple[str, int | None]:
    """A protocol and a number of parties, as in `shamir:5`."""
    protocol, _, parties = name.partition(":")
    if parties and not (parties.isdecimal() and len(parties) <= MOST_DIGITS):
        raise PlanError(f"{name!r:.80} names {parties!r:.40} parties; write a number, as in shamir:5")
    return protocol, int(parties) if parties else None


@attrs.frozen
class _Setting:
    """What is measured at once: a workload by name on so many rows, with so many parties on a network."""

    name: str
    workload: Workload
    rows: int
    network: Network
    protocol: str
    parties: int


@takes(
    plan=Either(rules=(*_PLAN.rules, Several(each=_PLAN, what="a list of these"))),
    protocols=Names(what="names of protocols", alone=False, advice="as in ['replicated', 'shamir:5']"),
    networks=Names(what="names of networks", alone=False, advice="as in ['lan', '3ms']"),
    rows=Several(each=COUNT, advice="as in [1000]"),
    repeat=Number(whole=True, least=1, most=MOST_RUNS),
    processes=FLAG,
    progress=Function(none=True),
)
def compare(
    plan: str | Workload | Sequence[str | Workload],
    *,
    protocols: Sequence[str] = ("replicated", "plain"),
    networks: Sequence[str] = ("lan",),
    rows: Sequence[int] = (1000,),
    repeat: int = 1,
    processes: bool = True,
    progress: Callable[[Measurement], None] | None = None,
) -> Comparison:
    """Measure workloads in every setting; see `workloads.find` for what `plan`, or each of them, may be.

    `protocols` may say how many parties, as in `shamir:5`; `networks` are names, or as in `10ms/50mbit/2ms`.
    Each setting is measured `repeat` times. Without `processes`, nodes are tasks of this process, and memory
    is not measured. Each setting discloses what the workload reveals, of made-up tables, on this machine.
    Raises PlanError, before anything runs, for names that mean nothing.
    """
    settings = _settings(
        [plan] if isinstance(plan, str) or callable(plan) else plan, protocols, networks, rows
    )
    wanted: dict[tuple[str, int], Figures] = {}
    measured = []
    for one in settings:
        if (one.name, one.rows) not in wanted:
            with local(protocol=REFERENCE) as lake:
                wanted[one.name, one.rows] = _figures(one, lake)
        measured.append(_measure(one, wanted[one.name, one.rows], repeat, processes))
        if progress is not None:
            progress(measured[-1])
    return Comparison(Origin.here(), tuple(measured))


def _settings(
    plans: Sequence[str | Workload], protocols: Sequence[str], networks: Sequence[str], rows: Sequence[int]
) -> list[_Setting]:
    """All settings, checked: protocols are side by side in each."""
    named = [(one, find(one)) if isinstance(one, str) else (one.__name__, one) for one in plans]
    chosen = []
    for protocol, parties in map(protocol_of, protocols):
        chosen.append((protocol, ClusterOptions(protocol=protocol, parties=parties).resolve()[1]))
    for what, names in (
        ("plan", [name for name, _ in named]),
        ("protocol", [f"{protocol}:{parties}" for protocol, parties in chosen]),
        ("number of rows", rows),
    ):
        if again := next((one for place, one in enumerate(names) if one in names[:place]), None):
            raise PlanError(f"{what} {again} is there twice; name each once")
    return [
        _Setting(name, workload, count, link, protocol, parties)
        for name, workload in named
        for count in rows
        for link in map(network, networks)
        for protocol, parties in chosen
    ]


def _figures(setting: _Setting, lake: Lake) -> Figures:
    """What the workload returns. PlanError if these are no figures."""
    told = setting.workload(lake, setting.rows)
    if not isinstance(told, Mapping) or not all(isinstance(name, str) for name in told):
        raise PlanError(
            f"{setting.name} returned {type(told).__name__}, not a dict of figures by name; end it with "
            "return {'name': figure}"
        )
    try:
        return {name: np.asarray(figure, dtype=np.float64) for name, figure in told.items()}
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"{setting.name} returned what is no number ({error}); return numbers, or arrays of them"
        ) from error


def _difference(setting: _Setting, found: Figures, wanted: Figures) -> float | None:
    """The largest difference of a figure; None if it is no number. Two that are no numbers are alike."""
    most = 0.0
    for name in sorted({*found, *wanted}):
        if name not in found or name not in wanted or np.shape(found[name]) != np.shape(wanted[name]):
            raise PlanError(
                f"figure {name!r} of {setting.name} has another shape on {setting.protocol} than in the clear"
                ", or is not on both; return the same figures on every protocol"
            )
        a, b = np.asarray(found[name]), np.asarray(wanted[name])
        alike = (a == b) | (np.isnan(a) & np.isnan(b))
        gaps = np.abs(a[~alike] - b[~alike])
        most = float(np.max(gaps, initial=most))
    return most if math.isfinite(most) else None


def _measure(setting: _Setting, wanted: Figures, repeat: int, processes: bool) -> Measurement:
    link = setting.network
    with local(
        protocol=setting.protocol,
        parties=setting.parties,
        processes=processes,
        latency_ms=link.latency_ms,
        bandwidth_mbit=link.bandwidth_mbit,
        jitter_ms=link.jitter_ms,
        timeout_s=PATIENCE_S,
        progress=False,
    ) as lake:
        _figures(setting, lake)
        runs = [_run(setting, lake, wanted) for _ in range(repeat)]
    used = registry.get(setting.protocol)
    return Measurement(
        plan=setting.name,
        protocol=setting.protocol,
        parties=setting.parties,
        corruptions=used.corruptions(setting.parties),
        malicious=used.malicious,
        network=link,
        rows=setting.rows,
        runs=tuple(runs),
    )


def _run(setting: _Setting, lake: Lake, wanted: Figures) -> Run:
    ran: list[tuple[Plan, RunResult]] = []
    lake.on_result = lambda plan, result: ran.append((plan, result))
    pids = lake.cluster.pids
    reset_peaks(pids)
    figures = _figures(setting, lake)
    return Run(
        plans=len(ran),
        rounds=sum(result.rounds for _, result in ran),
        bytes_sent=tuple(sum(sent) for sent in zip(*(result.bytes_sent for _, result in ran), strict=True)),
        seconds=sum(result.seconds for _, result in ran),
        predicted_seconds=_predicted(setting, ran),
        peak_mb=max(peaks_mb(pids), default=None),
        error=_difference(setting, figures, wanted),
    )


def _predicted(setting: _Setting, ran: Sequence[tuple[Plan, RunResult]]) -> float | None:
    """What `explain` says of plans that ran; None for a party alone, which has nobody to talk to."""
    if setting.parties == 1:
        return None
    link = setting.network
    return sum(
        explain(
            optimise(plan),
            setting.protocol,
            setting.parties,
            latency_ms=link.latency_ms,
            bandwidth_mbit=link.bandwidth_mbit,
            jitter_ms=link.jitter_ms,
            symbols=result.symbols,
        ).seconds
        for plan, result in ran
    )


__all__ = ["compare", "protocol_of"]
