"""What a comparison found, as a table, a plot, JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tercet.comparison.study import Measurement
from tercet.errors import TercetError

HEADINGS = (
    "plan", "protocol", "security", "network", "rows", "rounds", "MB sent by the busiest", "seconds",
    "predicted", "predicted / measured", "peak MB", "error",
)  # fmt: skip
PANELS = (
    ("rounds", "rounds"),
    ("bytes_most", "bytes sent by the busiest party"),
    ("seconds", "seconds, bars measured, marks predicted"),
    ("peak_mb", "peak memory of a node, MB"),
    ("error", "largest error of a figure"),
)


def cells(one: Measurement) -> list[str]:
    """A row of the table, as text."""
    return [
        one.plan,
        f"{one.protocol}, {one.parties}" if one.parties > 1 else one.protocol,
        one.security,
        one.network,
        f"{one.rows:,}",
        f"{one.rounds:,}",
        f"{one.bytes_most / 1e6:.3g}",
        f"{one.seconds:.3g}",
        f"{one.predicted_seconds:.3g}",
        f"{one.predicted_over_measured:.2f}",
        f"{one.peak_mb:.0f}",
        f"{one.error:.1e}",
    ]


def markdown(measured: Sequence[Measurement]) -> str:
    """The table, in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    return "\n".join([*lines, *("| " + " | ".join(cells(one)) + " |" for one in measured)]) + "\n"


def write(measured: Sequence[Measurement], path: str | Path) -> None:
    """Write all numbers to a file whose name ends in .json or .csv, or a plot to any other.

    Raises OSError, and TercetError for a plot without matplotlib.
    """
    path = Path(path)
    if path.suffix == ".json":
        path.write_text(json.dumps([one.to_json() for one in measured], indent=1) + "\n")
    elif path.suffix == ".csv":
        rows = [one.to_json() for one in measured]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows({**row, "bytes_sent": " ".join(map(str, row["bytes_sent"]))} for row in rows)
    else:
        plot(measured, path)


def plot(measured: Sequence[Measurement], path: str | Path) -> None:
    """Draw rounds, bytes, seconds, memory and accuracy side by side, a bar for each setting."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TercetError("a plot needs matplotlib; pip install 'tercet[ml]'") from error
    labels = [f"{one.protocol} {one.parties}, {one.network}, {one.rows:,}" for one in measured]
    figure: Any = Figure(figsize=(4 * len(PANELS), 1.2 + 0.32 * len(measured)), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        axes.barh(labels, [getattr(one, name) for one in measured], color="#4c78a8")
        if name == "seconds":
            axes.plot([one.predicted_seconds for one in measured], labels, "k|", markersize=14)
        axes.set_title(title, fontsize=9)
        axes.invert_yaxis() if axes is figure.axes[0] else None
    figure.suptitle(", ".join(dict.fromkeys(one.plan for one in measured)))
    figure.savefig(path)


__all__ = ["HEADINGS", "cells", "markdown", "plot", "write"]
