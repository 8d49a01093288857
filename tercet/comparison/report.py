"""What measurements say, as the rows of a table and as a plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from tercet.comparison.measurements import Measurement, Origin, Spread
from tercet.comparison.networks import Network
from tercet.comparison.printing import NONE, RATIO, Column, Row, Table

NAMED = ("plan", "network", "rows", "protocol", "security")
MB = 1e6
FIGURES = (("rounds", "rounds"), ("bytes_most", "MB"), ("seconds", "seconds"), ("peak_mb", "peak MB"))
"""Figures that are set against those of another protocol or another time, and their headings."""
SENT = "MB: 10^6 bytes, sent by the busiest party."
PANELS = (
    ("rounds", "rounds"),
    ("bytes_most", "MB sent by the busiest party"),
    ("seconds", "seconds; marks: predicted"),
    ("peak_mb", "peak memory of a node, MB"),
    ("error", "largest error of a figure"),
)

Group = list[Measurement]


def groups(measured: Iterable[Measurement]) -> list[Group]:
    """What was measured in one setting, protocol after protocol; settings by plan, in the order they came."""
    found: dict[str, dict[tuple[str, Network, int], Group]] = {}
    for one in measured:
        found.setdefault(one.plan, {}).setdefault(one.setting, []).append(one)
    return [group for settings in found.values() for group in settings.values()]


def table(measured: Sequence[Measurement], origin: Origin) -> Table:
    """Figures and predictions, and ratios to the first protocol of each setting."""
    told = [_row(one, group[0]) for group in groups(measured) for one in group]
    repeats = max((len(one.runs) for one in measured), default=1)
    notes = [f"{origin}.", f"{SENT} {RATIO}: times that of the first protocol."]
    if repeats > 1:
        notes.append(f"Medians of {repeats} runs, and their range.")
    columns = [one for _, name in FIGURES[:3] for one in (Column(name), Column(RATIO, joined=True))]
    columns += [Column("predicted"), Column("predicted / measured", wide=True), Column("peak MB")]
    columns.append(Column("error"))
    return Table(named=NAMED, columns=tuple(columns), rows=tuple(told), notes=tuple(notes))


def difference(
    measured: Sequence[Measurement], origin: Origin, earlier: Sequence[Measurement], earlier_origin: Origin
) -> Table:
    """Figures beside earlier ones of the same settings and protocols, their ratios, and what is missing."""
    then = {one.key: one for one in earlier}
    now = {one.key for one in measured}
    rows = []
    for one in (one for group in groups(measured) for one in group if one.key in then):
        other, cells = then[one.key], []
        for name, _ in FIGURES:
            cells += [figure(one, name), figure(other, name), ratio(one, other, name)]
        rows.append(attrs.evolve(_named(one), cells=tuple(cells)))
    joined = (Column("before", joined=True), Column(RATIO, joined=True))
    columns = [one for _, name in FIGURES for one in (Column(name), *joined)]
    below = [
        f"{when}: {one.plan}, {one.network.name}, {one.rows:,} rows, {one.label}."
        for when, found, others in (("Not before", measured, then), ("Not now", earlier, now))
        for one in found
        if one.key not in others
    ]
    notes = (f"Now: {origin}.", f"Before: {earlier_origin}.", f"{SENT} {RATIO}: times that before.")
    return Table(named=NAMED, columns=tuple(columns), rows=tuple(rows), notes=notes, below=tuple(below))


def _named(one: Measurement) -> Row:
    return Row((one.plan, one.network.name, f"{one.rows:,}"), one.label, one.security, ())


def _row(one: Measurement, first: Measurement) -> Row:
    cells = []
    for name, _ in FIGURES[:3]:
        cells += [figure(one, name), ratio(one, first, name)]
    far = one.predicted_over_measured
    cells += [number(one.predicted_seconds), number(far, f"{far:.2f}"), figure(one, "peak_mb")]
    return attrs.evolve(_named(one), cells=(*cells, figure(one, "error")))


def number(value: float, written: str | None = None) -> str:
    """Three digits, and all of those before the point; a dash for what is not defined."""
    if math.isnan(value):
        return NONE
    if written is not None:
        return written
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.3g}"


def figure(one: Measurement, name: str) -> str:
    """The median of a figure, and its range if it has one."""
    spread = one.spread(name)

    def told(value: float) -> str:
        if name == "error":
            return number(value, f"{value:.1e}" if value else "0")
        if name == "bytes_most":
            return number(value / MB)
        return number(round(value) if name == "peak_mb" and not math.isnan(value) else value)

    low, middle, high = told(spread.least), told(spread.median), told(spread.most)
    return middle if low == high else f"{middle} ({low}–{high})"


def ratio(one: Measurement, other: Measurement, name: str) -> str:
    """How many times the median of another measurement a figure's is; a dash where that is nothing."""
    below = other.spread(name).median
    times = one.spread(name).median / below if below else math.nan
    return number(times, f"{times:.2f}" if times < 10 else None)


def plain(one: Measurement, number: int) -> dict[str, Any]:
    """All numbers of one run, by name, without structure."""
    setting = attrs.asdict(one, filter=lambda field, _: field.name not in ("network", "runs"))
    link = attrs.asdict(one.network)
    run = attrs.asdict(one.runs[number])
    sent = " ".join(map(str, run.pop("bytes_sent")))
    return {**setting, "network": link.pop("name"), **link, "run": number + 1, **run, "bytes_sent": sent}


def plot(measured: Sequence[Measurement], path: str | Path) -> None:
    """Draw each figure of `PANELS` beside the others: a bar for each protocol, settings one below the other.

    Whiskers are ranges, marks on seconds what was predicted. Needs matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ordered = [one for group in groups(measured) for one in group]
    places, ticks, at = [], [], 0.0
    for group in groups(measured):
        ticks.append(
            (at - 0.95, ", ".join((group[0].plan, group[0].network.name, f"{group[0].rows:,} rows")))
        )
        places += [at + step for step in range(len(group))]
        at += len(group) + 1.4
    names = list(dict.fromkeys(one.label for one in ordered))
    colours = [f"C{names.index(one.label) % 10}" for one in ordered]
    drawn: Any = Figure(figsize=(2.4 * len(PANELS), 0.7 + 0.26 * at), layout="constrained")
    for axes, (name, title) in zip(drawn.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        scale = MB if name == "bytes_most" else 1.0
        spreads = [one.spread(name) for one in ordered]
        axes.barh(places, [spread.median / scale for spread in spreads], color=colours, height=0.8)
        _whiskers(axes, places, spreads, scale)
        if name == "seconds":
            axes.plot([one.predicted_seconds for one in ordered], places, "k|", markersize=9)
        axes.set_title(title, fontsize=9, pad=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    first = drawn.axes[0]
    first.set_yticks(places, [one.label for one in ordered])
    for place, heading in ticks:
        first.text(
            0.01,
            place,
            heading,
            transform=first.get_yaxis_transform(),
            fontsize=8,
            style="italic",
            va="center",
        )
    first.set_ylim(at - 1.6, -1.5)
    with rc_context({"svg.fonttype": "none"}):
        drawn.savefig(path)


def _whiskers(axes: Any, places: Sequence[float], spreads: Sequence[Spread], scale: float) -> None:
    """Ranges of figures that have one."""
    for place, spread in zip(places, spreads, strict=True):
        if spread.least < spread.most:
            ends = [spread.least / scale, spread.most / scale]
            axes.plot(ends, [place, place], color="black", linewidth=1)


__all__ = ["difference", "groups", "plain", "plot", "table"]
