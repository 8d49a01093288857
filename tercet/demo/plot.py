"""A picture of the demonstration: coefficients of both fits side by side, and both ROC curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tercet.demo.check import METRICS
from tercet.demo.script import Report
from tercet.errors import TercetError

OURS, THEIRS = "#1b6ca8", "#d9822b"
_NAMES = ("Tercet", "scikit-learn")


def require_writable(path: Path) -> None:
    """Raise TercetError, before an hour's work rather than after it, if no PNG can be written to `path`."""
    if path.suffix.lower() != ".png":
        raise TercetError(
            f"--plot writes PNG pictures, and {str(path)!r} is not named like one; end it in .png"
        )
    if not path.absolute().parent.is_dir():
        raise TercetError(f"the directory {str(path.parent)!r} of --plot does not exist; make it first")
    if path.is_dir():
        raise TercetError(f"{str(path)!r} is a directory; give --plot the name of a file")


def draw(report: Report, path: Path) -> None:
    """Draw the report as a PNG picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic(
        [["coefficients", "roc"], ["coefficients", "metrics"]], width_ratios=[1.3, 1], height_ratios=[2.4, 1]
    )
    left, right = panels["coefficients"], panels["roc"]

    order = np.argsort(report.reference.coef)
    places = np.arange(len(order))
    left.barh(places + 0.2, report.coef[order], height=0.4, color=OURS, label="Tercet, on shares")
    left.barh(
        places - 0.2,
        report.reference.coef[order],
        height=0.4,
        color=THEIRS,
        label="scikit-learn, in the clear",
    )
    left.set_yticks(places, [report.features[index] for index in order], fontsize=9)
    left.set_ylim(-0.8, len(order) - 0.2)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_xlabel("change of the log-odds of malignancy per standard deviation")
    left.set_title(
        f"Coefficients: largest difference {report.coef_max_abs_diff:.1e}", loc="left", fontsize=11
    )
    left.legend(loc="lower right", frameon=False)
    left.grid(axis="x", alpha=0.25)

    curves = [
        ("Tercet", report.probabilities, report.metrics["roc_auc"], OURS, "-", 3.0),
        (
            "scikit-learn",
            report.reference.probabilities,
            report.reference.metrics["roc_auc"],
            THEIRS,
            "--",
            1.6,
        ),
    ]
    for name, scores, area, colour, style, width in curves:
        false_positive, true_positive, _ = roc_curve(report.reference.labels, scores, drop_intermediate=False)
        right.plot(
            false_positive,
            true_positive,
            style,
            color=colour,
            linewidth=width,
            label=f"{name}, AUC {area:.4f}",
        )
    right.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    right.set_xlim(-0.02, 1.02)
    right.set_ylim(-0.02, 1.02)
    right.set_aspect("equal")
    right.set_xlabel("false positive rate")
    right.set_ylabel("true positive rate")
    right.set_title(f"ROC curve of the {report.rows['test']} test rows", loc="left", fontsize=11)
    right.legend(loc="lower right", frameon=False)
    right.grid(alpha=0.25)

    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    panels["metrics"].set_axis_off()
    for place, name in enumerate(("", *METRICS)):
        ours, theirs = (
            (f"{found[name]:.4f}" for found in (report.metrics, report.reference.metrics)) if name else _NAMES
        )
        row = [
            (0.12, METRICS.get(name, ""), "left", "black"),
            (0.66, ours, "right", OURS),
            (0.95, theirs, "right", THEIRS),
        ]
        for x, text, side, colour in row:
            panels["metrics"].text(x, 1 - place / 8, text, ha=side, va="top", color=colour, fontsize=11)
    figure.suptitle(
        f"Breast cancer: {report.rows['joined']} patients of a hospital and an insurer, joined and modelled "
        "on shares",
        fontsize=13,
    )
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise TercetError(f"the picture could not be written to {str(path)!r}: {error}") from error
