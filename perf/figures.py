"""`figures`: seconds over rows for linking, training and evaluating, beside the same work in the clear.

Three figures, each as SVG and PNG, and one JSON file with every number in them. Times are for all three nodes
on one machine, each a process, with latency added to every link. Slopes are fitted to logarithms: 1 means
that ten times the rows take ten times as long; the dotted line has slope 1. Small tables lie above it because
they wait for rounds of the network, not for rows.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio

from perf import evaluate, join, train
from perf.lakes import Conditions
from perf.report import Measured, tidy

ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
LARGE = 100_000
"""Rows from which slopes are fitted."""
LINK_FEATURES, FEATURES = 5, 10

INK, ACCENT, QUIET, GRID = "#1c2530", "#0b6e8a", "#8a94a0", "#e4e8ec"


@attrs.frozen
class Figure:
    """One figure: how a point is measured, and its words."""

    name: str
    measure: Callable[[int, Conditions], Any]
    title: str
    clear: str


FIGURES = (
    Figure(
        "link",
        lambda rows, conditions: join.run(rows, LINK_FEATURES, conditions),
        f"Linking two tables by a secret key, {LINK_FEATURES} columns in all",
        "pandas.merge, in the clear",
    ),
    Figure(
        "train",
        lambda rows, conditions: train.run(
            rows, FEATURES, train.Fit(solver="newton", iterations=None), conditions
        ),
        f"Training a logistic regression by Newton's method, {FEATURES} columns",
        "statsmodels, in the clear",
    ),
    Figure(
        "evaluate",
        lambda rows, conditions: evaluate.run(rows, FEATURES, conditions),
        "Evaluating a model: all metrics, the AUC included",
        "scikit-learn, in the clear",
    ),
)


def fitted_slope(rows: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The exponent k of `seconds ~ rows^k` by least squares on logarithms; None for fewer than two points."""
    if len(rows) < 2:
        return None
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def summarise(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Slopes, over all rows and over large tables, and how time grows from 100,000 to 1,000,000 rows."""
    rows, seconds = [point["rows"] for point in points], [point["seconds"] for point in points]
    large = [(r, s) for r, s in zip(rows, seconds, strict=True) if r >= LARGE]
    found: dict[str, Any] = {
        "slope": fitted_slope(rows, seconds),
        "slope_large": fitted_slope([r for r, _ in large], [s for _, s in large]),
        "slope_clear": fitted_slope(rows, [point["clear_seconds"] for point in points]),
    }
    times = dict(zip(rows, seconds, strict=True))
    if {100_000, 1_000_000} <= times.keys():
        found["growth_100k_to_1m"] = times[1_000_000] / times[100_000]
    return {key: value for key, value in found.items() if value is not None}


def run(
    rows: Sequence[int],
    conditions: Conditions,
    folder: Path,
    only: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Measured:
    """Measure all points, write the figures and their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "figures.json"
    known = json.loads(numbers.read_text()) if numbers.exists() and only else {}
    for figure in FIGURES:
        if only and figure.name not in only:
            continue
        points = []
        for count in rows:
            measured: Measured = trio.run(figure.measure, count, conditions)
            points.append(measured.as_dict())
            say(f"{figure.name}: {count} rows, {points[-1]['seconds']} s")
        known[figure.name] = {
            "title": figure.title,
            "clear": figure.clear,
            "conditions": {**conditions.describe(), **machine()},
            **tidy(summarise(points)),
            "points": points,
        }
        numbers.write_text(json.dumps(known, indent=1) + "\n")
        draw(figure, known[figure.name], folder)
    slopes = {name: one["slope_large"] for name, one in known.items() if "slope_large" in one}
    return Measured(
        name="figures", more={"folder": str(folder), "slope_large": slopes, **conditions.describe()}
    )


def redraw(folder: Path) -> None:
    """Draw the figures again from their numbers."""
    known = json.loads((folder / "figures.json").read_text())
    for figure in FIGURES:
        if figure.name in known:
            draw(figure, known[figure.name], folder)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine(), "parties": 3}


# -- drawing ---------------------------------------------------------------------------------------------


def draw(figure: Figure, found: dict[str, Any], folder: Path) -> None:
    """One figure, as SVG and PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.hashsalt": "tercet",
        "svg.fonttype": "none",
    }
    with plt.rc_context(style):
        canvas, axes = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
        _curves(axes, figure, found)
        _frame(axes, figure, found)
        for kind in ("svg", "png"):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            canvas.savefig(folder / f"{figure.name}.{kind}", dpi=200, metadata=metadata)
        plt.close(canvas)


def _curves(axes: Any, figure: Figure, found: dict[str, Any]) -> None:
    rows = np.array([point["rows"] for point in found["points"]], dtype=float)
    seconds = np.array([point["seconds"] for point in found["points"]])
    clear = np.array([point["clear_seconds"] for point in found["points"]])
    decade = np.array([rows[-1] / 10, rows[-1]])
    axes.plot(decade, seconds[-1] * decade / rows[-1], color=ACCENT, lw=1, ls=(0, (1, 3)), zorder=2)
    axes.plot(rows, seconds, color=ACCENT, lw=2.2, marker="o", ms=6, mec="white", mew=1.2, zorder=3)
    axes.plot(rows, clear, color=QUIET, lw=1.6, marker="s", ms=4.5, mec="white", mew=1, zorder=3)
    slope_text = f"slope {found['slope_large']:.2f} from {LARGE:,} rows" if "slope_large" in found else ""
    label = {"textcoords": "offset points", "va": "center", "fontsize": 10.5}
    middle = len(rows) // 2
    words = "\n".join(filter(None, ["Tercet, three nodes", slope_text]))
    axes.annotate(
        words,
        (rows[middle], seconds[middle]),
        xytext=(-8, 34),
        color=ACCENT,
        ha="right",
        fontweight="bold",
        **label,
    )
    axes.annotate(
        figure.clear, (rows[middle], clear[middle]), xytext=(10, -18), color=QUIET, ha="left", **label
    )
    axes.annotate(
        "proportional",
        (decade[0], seconds[-1] / 10),
        xytext=(4, -9),
        color=ACCENT,
        ha="left",
        **{**label, "fontsize": 9},
    )
    for end in (0, -1):
        axes.annotate(
            _seconds(seconds[end]),
            (rows[end], seconds[end]),
            xytext=(0, 12),
            color=ACCENT,
            ha="center",
            **label,
        )
        axes.annotate(
            _seconds(clear[end]), (rows[end], clear[end]), xytext=(4, -15), color=QUIET, ha="center", **label
        )


def _runs(count: int) -> str:
    return "one run each" if count == 1 else f"medians of {count} runs"


def _seconds(number: float) -> str:
    if number < 0.1:
        return f"{number * 1000:.2g} ms"
    return f"{number:.3g} s" if number < 100 else f"{number:.0f} s"


def _frame(axes: Any, figure: Figure, found: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    rows = [point["rows"] for point in found["points"]]
    every = [point[key] for point in found["points"] for key in ("seconds", "clear_seconds")]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(rows) / 1.6, max(rows) * 1.9)
    axes.set_ylim(min(every) / 3, max(every) * 4)
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(base=10))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.grid(visible=True, which="major", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.set_xlabel("rows")
    axes.set_ylabel("seconds")
    conditions = found["conditions"]
    latency = conditions.get("latency_ms", 0)
    axes.set_title(f"{figure.title}\n", loc="left", fontsize=13, fontweight="bold")
    axes.text(
        0, 1.025,
        f"three processes on one machine of {conditions['cores']} cores, {conditions['transport'].upper()}, "
        f"{latency:g} ms one way, {_runs(conditions['repeat'])}",
        transform=axes.transAxes, fontsize=9.5, color=QUIET,
    )  # fmt: skip
