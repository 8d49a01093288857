"""Pictures of results: odds ratios as a forest, ROC curve, calibration; as SVG for pages, as PNG to keep.

matplotlib draws them, in light colours or dark ones. What is written in them came from members, and is text
to it, never a formula.
"""

from __future__ import annotations

import io
import threading
from typing import Any, Literal, cast

import numpy as np

from tercet.errors import PlanError
from tercet.ml.summary import INTERCEPT, Summary
from tercet.portal.outcomes import Outcome

Chart = Literal["forest", "roc", "calibration"]
Format = Literal["svg", "png"]

_DRAWING = threading.Lock()
"""matplotlib's settings are those of the whole process."""
INK, SOFT, PAPER, LINE = (
    ("#1c2430", "#e6e9ef"),
    ("#5b6675", "#a3adbb"),
    ("#ffffff", "#151a22"),
    ("#2f5fc4", "#8fb0f5"),
)
LONGEST_NAME = 40


def draw(outcome: Outcome, chart: str, kind: Format, *, dark: bool = False) -> bytes:
    """A picture. Takes a moment: call it in a thread. Raises PlanError for what there is none of."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    ink, paper, line = INK[dark], PAPER[dark], LINE[dark]
    settings: dict[str, Any] = {
        "text.parse_math": False,
        "svg.hashsalt": "tercet",
        "font.size": 10,
        "text.color": ink,
        "axes.edgecolor": SOFT[dark],
        "axes.labelcolor": ink,
        "axes.facecolor": paper,
        "figure.facecolor": paper,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.prop_cycle": cycler(color=[line]),
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with _DRAWING, mpl.rc_context(cast("Any", settings)):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        if chart == "forest":
            figure.set_size_inches(6.4, 1.4 + 0.3 * len(outcome.summary.names_))
            _forest(outcome.summary, axes, ink=ink, soft=SOFT[dark])
        elif chart == "roc" and outcome.roc is not None:
            outcome.roc.plot(axes)
        elif chart == "calibration" and outcome.calibration is not None:
            outcome.calibration.plot(axes)
        else:
            raise PlanError(f"there is no {chart} of this run")
        out = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(out, format=kind, dpi=160, metadata=metadata)
    return out.getvalue()


def _forest(summary: Summary, axes: Any, *, ink: str, soft: str) -> None:
    """Odds ratios with their intervals, on a logarithmic axis; those that are not defined are named only."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = summary.values
    if not {"odds_ratio", "odds_ratio_ci"} <= values.keys():
        raise PlanError("odds ratios and their intervals were not revealed, so there is no forest to draw")
    chosen = [place for place, name in enumerate(summary.names_) if name != INTERCEPT]
    names = [_short(summary.names_[place]) for place in chosen]
    ratios, ends = values["odds_ratio"][chosen], values["odds_ratio_ci"][chosen]
    rows = np.arange(len(chosen))[::-1]
    axes.axvline(1.0, color=soft, linewidth=1, linestyle="--")
    there = np.isfinite(ratios) & np.isfinite(ends).all(axis=1) & (ends > 0).all(axis=1)
    axes.hlines(rows[there], ends[there, 0], ends[there, 1], linewidth=1.6)
    axes.plot(ratios[there], rows[there], "o", color=ink, markersize=5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(chosen) - 0.3)
    level = f"{100 * (1 - summary.alpha):g} %"
    axes.set(
        xlabel=f"odds ratio, with interval at {level}", title=_short(f"odds ratios of {summary.what}", 70)
    )


def _short(text: str, most: int = LONGEST_NAME) -> str:
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
